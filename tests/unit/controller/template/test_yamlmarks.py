"""YAML with places: values as Ansible reads them, every error with its line."""

from __future__ import annotations

import pytest

from hawse.yamlmarks import Unsafe, load
from hawse_agent.errors import InputError


def test_values_know_their_lines() -> None:
    document = load("a: 1\nb:\n  - x\n  - y: 2\nc: |\n  one\n  two\n", "f.yml")
    assert document.value == {"a": 1, "b": ["x", {"y": 2}], "c": "one\ntwo\n"}
    marks = document.marks
    assert [marks.where(place) for place in [("a",), ("b", 0), ("b", 1, "y"), ("nope",)]] == [
        "f.yml:1",
        "f.yml:3",
        "f.yml:4",
        "f.yml:1",
    ]
    assert marks.text_line(("c",), 2) == 7


def test_scalars_are_yaml_1_1_and_merges_work() -> None:
    text = "base: &b {x: 1, y: 2}\nmore: {<<: *b, y: 3}\nflag: yes\noctal: 010\nraw: !unsafe '{{ x }}'\n"
    value = load(text, "f.yml").value
    assert value == {
        "base": {"x": 1, "y": 2},
        "more": {"y": 3, "x": 1},
        "flag": True,
        "octal": 8,
        "raw": "{{ x }}",
    }
    assert isinstance(value["raw"], Unsafe)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3\n", r"f.yml:3: duplicate key 'a'"),
        ("a: [1\nb: 2\n", r"f.yml:2: not YAML: .*"),
        ("x:\n\ty: 1\n", r"f.yml:2: not YAML: .*"),
        ("a: {{ b }}\n", r"f.yml:1: expected a plain key"),
        ("a: !vault |\n  $ANSIBLE\n", r"f.yml:1: vaulted values are not supported yet"),
        ("a: !foo 1\n", r"f.yml:1: YAML tag !foo is not supported"),
        ("a: &a [*a]\n", r"f.yml:1: an anchor that contains itself"),
        ("a: 2024-99-99\n", r"f.yml:1: not a valid timestamp"),
        ("a: 1\n---\nb: 2\n", r"f.yml:2: not YAML: .*"),
    ],
)
def test_errors_name_file_and_line(text: str, message: str) -> None:
    with pytest.raises(InputError, match=f"^{message}$"):
        load(text, "f.yml")


def test_an_unquoted_template_gets_a_hint() -> None:
    with pytest.raises(InputError) as caught:
        load("a: {{ b }}\n", "f.yml")
    assert caught.value.hint == "quote a value that begins with {{"


def test_an_empty_document_is_nothing() -> None:
    assert load("# only a comment\n", "f.yml").value is None
