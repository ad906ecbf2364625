"""Ansible's filters and tests, each by an example."""

from __future__ import annotations

from typing import Any

import pytest

from hawse.template import Scope
from hawse.variables import Variable, data
from hawse_agent.errors import InputError

SCOPE = Scope(
    {
        "d": data({"a": 1, "b": {"x": 1, "l": [1]}}),
        "e": data({"b": {"y": 2, "l": [2]}}),
        "l": data([1, 2, [3, [4, None]]]),
        "users": data([{"n": "u", "k": [1, 2]}, {"n": "v", "k": [3]}]),
        "ok": data({"changed": False, "failed": False}),
        "bad": data({"changed": True, "failed": True}),
        "skip": data({"skipped": True}),
    }
)


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("d | to_json", '{"a": 1, "b": {"x": 1, "l": [1]}}'),
        ("{'b': 1, 'a': [1]} | to_nice_json", '{\n    "a": [\n        1\n    ],\n    "b": 1\n}'),
        ("{'b': 1, 'a': [1, 2]} | to_yaml", "a: [1, 2]\nb: 1\n"),
        ("{'a': {'b': 1}} | to_nice_yaml", "a:\n    b: 1\n"),
        ("'[1, 2]' | from_json", [1, 2]),
        ("'a: yes' | from_yaml", {"a": True}),
        ("'hé' | b64encode", "aMOp"),
        ("'aMOp' | b64decode", "hé"),
        ("'a' | hash('sha256')", "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb"),
        ("'a' | hash", "86f7e437faa5a7fce15d1ddcb9eaeaea377667b8"),
        ("'web01' | regex_replace('([a-z]+)([0-9]+)', '\\\\2-\\\\1')", "01-web"),
        ("'web01' | regex_search('[0-9]+')", "01"),
        ("'web01' | regex_search('x')", None),
        ("'web01' | regex_search('([a-z]+)([0-9]+)', '\\\\2', '\\\\1')", ["01", "web"]),
        ("'a1b2' | regex_findall('[0-9]')", ["1", "2"]),
        ("['yes', 'no', 1, 'TRUE', ''] | map('bool')", [True, False, True, True, False]),
        ("d | combine(e)", {"a": 1, "b": {"y": 2, "l": [2]}}),
        (
            "d | combine(e, recursive=true, list_merge='append')",
            {"a": 1, "b": {"x": 1, "l": [1, 2], "y": 2}},
        ),
        ("{'k': 1} | dict2items", [{"key": "k", "value": 1}]),
        ("[{'key': 'k', 'value': 1}] | items2dict", {"k": 1}),
        ("'/a/b.c' | basename", "b.c"),
        ("'/a/b.c' | dirname", "/a"),
        ("'/a/b.c' | splitext", ["/a/b", ".c"]),
        ("['a', 'b'] | path_join", "a/b"),
        ("'a b' | quote", "'a b'"),
        ("1 | ternary('y', 'n')", "y"),
        ("none | ternary('y', 'n', 'z')", "z"),
        ("[1, 1, 2] | unique", [1, 2]),
        ("l | flatten", [1, 2, 3, 4]),
        ("l | flatten(levels=1)", [1, 2, 3, [4, None]]),
        ("[1, 2] | union([2, 3])", [1, 2, 3]),
        ("[1, 2] | difference([2])", [1]),
        ("[1, 2] | intersect([2])", [2]),
        ("[1, 2] | symmetric_difference([2, 3])", [1, 3]),
        ("[1, 2] | zip(['a', 'b'])", [[1, "a"], [2, "b"]]),
        ("['a', 'b'] | map('extract', {'a': 1, 'b': 2})", [1, 2]),
        ("users | subelements('k') | map('last')", [1, 2, 3]),
        ("'10 MB' | human_to_bytes", 10485760),
        ("'a,b' | split(',')", ["a", "b"]),
        ("'http://u@h:8/p' | urlsplit('hostname')", "h"),
        ("nope | default('d')", "d"),
        ("ok is succeeded and bad is failed and bad is changed and skip is skipped", True),
        ("ok is failed or ok is changed", False),
        ("'web1' is match('web') and 'myweb' is search('web') and not 'myweb' is match('web')", True),
        ("'1.10' is version('1.9', '>') and '1.0' is version('1.0', '==')", True),
        ("[1] is subset([1, 2]) and [1, 2] is contains(2)", True),
    ],
)
def test_filters_and_tests(expression: str, value: Any) -> None:
    assert SCOPE.evaluate(Variable(expression)) == value


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("nope | mandatory", "mandatory variable 'nope' is not defined"),
        ("nope | mandatory('say it')", "say it"),
        ("'x' | from_json", "JSONDecodeError"),
        ("[1] | combine([2])", "combine needs mappings"),
        ("'a' | hash('md6')", "there is no hash 'md6'"),
        ("1 is failed", "needs a registered result"),
        ("'1' is version('2', '~')", "no operator '~'"),
    ],
)
def test_wrong_inputs_are_told(expression: str, message: str) -> None:
    with pytest.raises(InputError, match=message.replace("(", r"\(")):
        SCOPE.evaluate(Variable(expression))
