"""Rendering with a host's variables: types, laziness, undefined names, places of errors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hawse.template import OMIT, NotYet, Promise, Scope, UndefinedVariable, View, check, render_text
from hawse.variables import Variable, data, written
from hawse.yamlmarks import load
from hawse_agent.errors import InputError, NotSupported

VARIABLES = """\
name: web1
ports: [80, 443]
url: "http://{{ name }}:{{ ports[0] }}/"
nested: {list: ["{{ name }}", "{{ port }}"], deep: {u: "{{ url }}"}}
port: "{{ ports[0] }}"
lost: "{{ nowhere }}"
lost_too: "{{ lost }}x"
loop1: "{{ loop2 }}"
loop2: "{{ loop1 }}"
flag: yes
empty: ""
fold: |
  first
  {{ missing_here }}
raw: !unsafe "{{ name }}"
"""


@pytest.fixture
def scope(tmp_path: Path) -> Scope:
    document = load(VARIABLES, "vars.yml")
    return Scope(written(document.value, document.marks), search=(tmp_path,))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("plain", "plain"),
        ("{{ ports }}", [80, 443]),
        ("{{ ports[0] }}", 80),
        ("{{ port + 1 }}", 81),
        ("{{ url }}", "http://web1:80/"),
        ("{{ nested.deep.u }}", "http://web1:80/"),
        ("{{ nested.list }}", ["web1", 80]),
        ("{{ 5 }}", 5),
        ("{{ '5' }}", "5"),
        ("{{ 1 }}{{ 2 }}", "12"),
        ("{{ flag }}", True),
        ("{{ none }}", None),
        ("a{{ none }}b", "ab"),
        ("{{ ports | map('string') }}", ["80", "443"]),
        ("{{ raw }}", "{{ name }}"),
        ("{% for p in ports %}{{ p }},{% endfor %}", "80,443,"),
        ("{{ nowhere.at.all | default('x') }}", "x"),
        ("{{ lost | default('x') }}", "x"),
        ("{{ lost is defined }}", False),
        ("{{ vars['name'] }}", "web1"),
        ({"a": "{{ omit }}", "b": "{{ name }}"}, {"b": "web1"}),
        (["{{ omit }}", 1], [1]),
        ("{{ 'x' is match('x') }}", True),
    ],
)
def test_values_keep_their_type(scope: Scope, text: Any, value: Any) -> None:
    rendered = scope.render(Variable(text))
    assert rendered == value
    assert type(rendered) is type(value)


def test_omit_alone_is_left_to_the_caller(scope: Scope) -> None:
    assert scope.render(Variable("{{ nowhere | default(omit) }}")) is OMIT


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{{ nam }}", "'nam' is undefined"),
        ("{{ nested.nope }}", "'dict object' has no attribute 'nope'"),
        ("{{ lost }}", "'nowhere' is undefined (needed by 'lost', at vars.yml:6)"),
        ("{{ lost_too }}", "'nowhere' is undefined (needed by 'lost', at vars.yml:6)"),
        ("{{ fold }}", "'missing_here' is undefined (needed by 'fold', at vars.yml:14)"),
        ("{{ nowhere.message }}", "'nowhere' is undefined"),
    ],
)
def test_undefined_names_are_told(scope: Scope, text: str, message: str) -> None:
    with pytest.raises(UndefinedVariable) as caught:
        scope.render(Variable(text))
    assert caught.value.message == message


def test_a_close_name_is_suggested(scope: Scope) -> None:
    with pytest.raises(UndefinedVariable) as caught:
        scope.render(Variable("{{ nam }}"))
    assert caught.value.hint == "did you mean 'name'?"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{{ loop1 }}", "vars.yml:8: variable 'loop1' refers to itself: loop1 → loop2 → loop1"),
        ("{{ name | nofilter }}", "p.yml:3: not a valid template: No filter named 'nofilter'."),
        ("a\nb\n{{ 1 / 0 }}", "p.yml:5: ZeroDivisionError: division by zero"),
        (
            "{{ x",
            "p.yml:3: not a valid template: unexpected end of template, expected 'end of print statement'.",
        ),
        ("{{ lookup('file', 'none') }}", "p.yml:3: no such file: none"),
    ],
)
def test_errors_name_the_place(scope: Scope, text: str, message: str) -> None:
    marks = load("a: 1\n\nb: 2\n", "p.yml").marks
    with pytest.raises(InputError) as caught:
        scope.render(Variable(text, marks, ("b",)))
    assert str(caught.value) == message


def test_other_lookups_are_refused_by_name(scope: Scope) -> None:
    with pytest.raises(NotSupported, match="lookup 'pipe' is not supported"):
        scope.render(Variable("{{ lookup('pipe', 'id') }}"))


def test_lookups_read_files_and_the_environment(
    scope: Scope, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "files").mkdir()
    (tmp_path / "files/motd").write_text("hello\n")
    monkeypatch.setenv("HAWSE_TEST", "there")
    assert scope.render(Variable("{{ lookup('file', 'motd') }}")) == "hello"
    assert scope.render(Variable("{{ lookup('env', 'HAWSE_TEST') }}")) == "there"
    assert scope.render(Variable("{{ query('env', 'HAWSE_TEST', 'HAWSE_NOPE') }}")) == ["there", ""]


@pytest.mark.parametrize(
    ("condition", "holds"),
    [
        ("port == 80", True),
        ("port == 80 and not flag", False),
        (["port == 80", "name == 'web1'"], True),
        ("lost is defined", False),
        ("ports", True),
        ("none", False),
        (True, True),
        ("{{ flag }}", True),
    ],
)
def test_conditions(scope: Scope, condition: Any, holds: bool) -> None:
    assert scope.condition(Variable(condition)) is holds


def test_text_is_no_condition(scope: Scope) -> None:
    with pytest.raises(InputError, match="comes out as text") as caught:
        scope.condition(Variable("name"))
    assert "bool" in caught.value.hint


def test_what_hosts_report_is_never_a_template() -> None:
    scope = Scope({"out": data("{{ evil }}"), "copy": Variable("{{ out }}")})
    assert scope.render(Variable("{{ out }} {{ copy }}")) == "{{ evil }} {{ evil }}"


def test_a_promise_is_waited_for_even_behind_default_and_other_variables() -> None:
    class Later(NotYet):
        pass

    scope = Scope({"r": Variable(Promise(Later), templated=False), "x": Variable("{{ r.rc }}")})
    for text in ("{{ r }}", "{{ r | default(1) }}", "{{ r is defined }}", "{{ x }}", "{{ vars.r }}"):
        with pytest.raises(Later):
            scope.render(Variable(text))


def test_missing_names_are_asked_for_first() -> None:
    asked = []
    scope = Scope({}, missing=asked.append)
    assert scope.render(Variable("{{ ansible_hostname | default('?') }}")) == "?"
    assert "ansible_hostname" in asked


def test_a_child_does_not_see_what_its_parent_made_of_a_name() -> None:
    scope = Scope({"path": Variable("/srv/{{ item }}"), "item": data("a")})
    assert scope["path"] == "/srv/a"
    assert scope.child({"item": data("b")})["path"] == "/srv/b"


def test_a_view_is_only_a_mapping(scope: Scope) -> None:
    outer = Scope({"hostvars": data({"web1": View(scope)})})
    assert outer.render(Variable("{{ hostvars.web1.url }}")) == "http://web1:80/"
    assert outer.render(Variable("{{ hostvars['web1'].render is defined }}")) is False
    assert outer.render(Variable("{{ hostvars.web1.lost | default('-') }}")) == "-"


def test_files_render_with_places_and_includes(scope: Scope, tmp_path: Path) -> None:
    (tmp_path / "part.j2").write_text("one\n{{ nope }}\n")
    file = str(tmp_path / "main.j2")
    assert (
        render_text("{% for p in ports %}\nport {{ p }}\n{% endfor %}\n", file, scope)
        == "port 80\nport 443\n"
    )
    assert render_text("{{ a }}", file, {"a": "{{ b }}"}) == "{{ b }}"
    with pytest.raises(InputError, match=r"main.j2:2: 'x' is undefined"):
        render_text("a\n{{ x }}\n", file, scope)
    with pytest.raises(InputError, match=r"part.j2:2: 'nope' is undefined"):
        render_text("{% include 'part.j2' %}", file, scope)
    with pytest.raises(InputError, match=r"main.j2:1: no such template: none.j2"):
        render_text("{% include 'none.j2' %}", file, scope)
    with pytest.raises(InputError, match=r"main.j2:3: not a valid template: .*endfor"):
        render_text("a\nb\n{% endfor %}", file, scope)


def test_includes_see_the_variables_and_the_loop_around_them(scope: Scope, tmp_path: Path) -> None:
    (tmp_path / "part.j2").write_text("{{ name }}:{{ p }} ")
    text = "{% for p in ports %}{% include 'part.j2' %}{% endfor %}"
    assert render_text(text, str(tmp_path / "main.j2"), scope) == "web1:80 web1:443 "


def test_check_reads_without_rendering() -> None:
    check(Variable({"a": ["{{ undefined_here }}"]}))
    check(Variable("a == 1"), expression=True)
    for value, expression in [
        ("{{ a", False),
        ({"x": "{% if %}"}, False),
        ("a ==", True),
        (["a", "b =="], True),
    ]:
        with pytest.raises(InputError, match="not a valid template"):
            check(Variable(value), expression=expression)
