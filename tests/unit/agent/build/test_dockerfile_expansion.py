"""Variables in Dockerfiles: their forms, and which ones an instruction sees."""

from __future__ import annotations

import shlex
import subprocess
from typing import Any

import pytest

from hawse_agent.build.expansion import expand, expand_heredoc, expand_words, names
from hawse_agent.build.instructions import Arg, Env
from hawse_agent.build.parser import parse
from hawse_agent.build.scope import Scope
from hawse_agent.build.stages import plan
from hawse_agent.errors import InputError

VALUES = {
    "a": "1",
    "empty": "",
    "path": "/usr/local/lib/x.tar.gz",
    "words": "one  two",
    "_u1": "under",
    "dollar": "$a",
    "é": "accent",
}

FORMS = {
    "plain": "plain",
    "$a": "1",
    "${a}": "1",
    "$ab": "",
    "${a}b": "1b",
    "$a$a": "11",
    "$_u1-": "under-",
    "$é": "accent",
    "$": "$",
    "a$": "a$",
    "$ a": "$ a",
    "$.": "$.",
    "$1x": "x",
    "${nothing}": "",
    "$dollar": "$a",
    # quotes and escapes
    "'$a'": "$a",
    '"$a"': "1",
    "\"'$a'\"": "'1'",
    "'\"$a\"'": '"$a"',
    r"\$a": "$a",
    r"\\$a": r"\1",
    r"\a": "a",
    r'"\a"': r"\a",
    r'"\$a\"\\"': '$a"\\',
    r"'\'": "\\",
    "a\\": "a",
    '""': "",
    "a'b'\"c\"d": "abcd",
    "${a}'${a}'\"${a}\"": "1${a}1",
    # modifiers
    "${a:-x}": "1",
    "${empty:-x}": "x",
    "${empty-x}": "",
    "${nothing:-x}": "x",
    "${nothing-x}": "x",
    "${nothing:-}": "",
    "${nothing:-$a}": "1",
    "${nothing:-${empty:-${a}}}": "1",
    "${nothing:-'}'}": "}",
    '${nothing:-"$a b"}': "1 b",
    r"${nothing:-\}}": "}",
    "${a:+x}": "x",
    "${empty:+x}": "",
    "${empty+x}": "x",
    "${nothing+x}": "",
    "${a:?no}": "1",
    "${empty?no}": "",
    # patterns
    "${path#*/}": "usr/local/lib/x.tar.gz",
    "${path##*/}": "x.tar.gz",
    "${path%.*}": "/usr/local/lib/x.tar",
    "${path%%.*}": "/usr/local/lib/x",
    "${path#/usr}": "/local/lib/x.tar.gz",
    "${path%nothing}": "/usr/local/lib/x.tar.gz",
    "${path#?}": "usr/local/lib/x.tar.gz",
    "${path%.t?r*}": "/usr/local/lib/x",
    "${path/l/L}": "/usr/Local/lib/x.tar.gz",
    "${path//l/L}": "/usr/LocaL/Lib/x.tar.gz",
    r"${path//\//-}": "-usr-local-lib-x.tar.gz",
    "${path//[l]/L}": "/usr/local/lib/x.tar.gz",
    "${path/u*l/X}": "/X/lib/x.tar.gz".replace("/X/lib", "/Xib"),
    "${path//$a/b}": "/usr/local/lib/x.tar.gz",
    "${words//  /,}": "one,two",
    "${nothing#x}": "",
    "${a//*/X}": "X",
    "${words//o*e/X}": "X  two",
}


@pytest.mark.parametrize("text", FORMS)
def test_forms(text: str) -> None:
    assert expand(text, VALUES) == FORMS[text]


def test_forms_are_those_of_bash() -> None:
    """But for what Docker does otherwise."""
    own = {"$é", "$ a", "a\\", "$1x", "${path//[l]/L}"}
    lines = [f"{name}={shlex.quote(value)}" for name, value in VALUES.items() if name.isascii()]
    asked = [text for text in FORMS if text not in own]
    lines += [f"x={text}; printf '%s\\0' \"$x\"" for text in asked]
    done = subprocess.run(["bash", "-c", "\n".join(lines)], capture_output=True, text=True)
    answers = dict(zip(asked, done.stdout.split("\0"), strict=False))
    assert {text: FORMS[text] for text in asked} == answers


def test_long_values_take_no_long_time() -> None:
    text = "x" * 1_000_000 + "$a"
    assert expand(text, VALUES) == "x" * 1_000_000 + "1"
    assert expand_words(f"'{text}' {text}", VALUES) == [text, "x" * 1_000_000 + "1"]
    assert expand(f"{'$a' * 100_000}", VALUES) == "1" * 100_000


def test_the_escape_may_be_a_backtick() -> None:
    assert expand(r"c:\$a `$a", VALUES, "`") == r"c:\1 $a"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("${", "missing }"),
        ("${a", "missing }"),
        ("${a:-x", "missing }"),
        ("${}", "bad substitution"),
        ("${:x}", "bad substitution"),
        ("${{a}}", "bad substitution"),
        ("${a^}", "${a^: unknown modifier"),
        ("${a:=x}", "${a:=: unknown modifier"),
        ("${a:x}", "${a:x: unknown modifier"),
        ("${a/b}", "missing /"),
        ("${a/b/c", "missing }"),
        (r"${a#\x}", r"invalid escape \x in the pattern \x"),
        ("'a", "a single quote is not closed"),
        ('"a', "a double quote is not closed"),
        ("${nothing:?set it}", "nothing: set it"),
        ("${nothing?}", "nothing: is unset"),
        ("${empty:?}", "empty: is empty"),
    ],
)
def test_what_is_wrong(text: str, said: str) -> None:
    with pytest.raises(InputError) as caught:
        expand(text, VALUES)
    assert caught.value.message == f"{said}, in {text!r}"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("$words", ["one", "two"]),
        ('"$words" x', ["one  two", "x"]),
        (r"a\ b  c", ["a b", "c"]),
        ("$empty", []),
        ("x$words", ["xone", "two"]),
    ],
)
def test_words(text: str, words: list[str]) -> None:
    assert expand_words(text, VALUES) == words


def test_quotes_mean_nothing_in_a_heredoc() -> None:
    assert expand_heredoc("'$a' \"${a}\" \\$a \\\\\n", VALUES) == "'1' \"1\" $a \\\n"


def test_names_that_are_asked_for() -> None:
    assert names("$a ${b:-$c} '$d' ${e:?}") == {"a", "b", "e", "c"}


# Scopes


def scope(**options: Any) -> Scope:
    return Scope(**{"given": {}, "outer": {}, "environment": {}, **options})


def run(scope: Scope, text: str) -> list[Any]:
    return [scope.enter(one) for one in parse("FROM x\n" + text).stages[0].instructions]


@pytest.mark.parametrize(
    ("options", "text", "value"),
    [
        ({}, "ARG v=1", "1"),
        ({"given": {"v": "2"}}, "ARG v=1", "2"),
        ({"given": {"v": ""}}, "ARG v=1", ""),
        ({"given": {"v": "2"}}, "", None),
        ({"outer": {"v": "3"}}, "ARG v", "3"),
        ({"outer": {"v": "3"}}, "ARG v=1", "1"),
        ({"outer": {"v": "3"}}, "", None),
        ({}, "ARG v", None),
        ({}, "ARG v=1\nARG v", "1"),
        ({}, "ARG a=1\nARG v=$a", "1"),
        ({}, "ARG a=1 v=$a", "1"),
        ({"environment": {"v": "4"}, "given": {"v": "2"}}, "ARG v=1", "4"),
        ({"given": {"v": "2"}}, "ENV v=5\nARG v", "5"),
        ({"given": {"v": "2"}}, "ARG v\nENV v=${v:-x}", "2"),
        ({}, "ARG v\nENV v=${v:-x}", "x"),
    ],
)
def test_what_a_name_stands_for(options: dict[str, Any], text: str, value: str | None) -> None:
    seen = scope(**options)
    run(seen, text)
    assert seen.variables.get("v") == value


def test_an_env_sees_what_was_before_it() -> None:
    seen = scope()
    *_, env = run(seen, "ENV abc=hello\nENV abc=bye def=$abc")
    assert isinstance(env, Env)
    assert env.pairs == (("abc", "bye"), ("def", "hello"))
    assert seen.environment == {"abc": "bye", "def": "hello"}


def test_arguments_that_history_names() -> None:
    seen = scope(given={"b": "2", "HTTP_PROXY": "p", "no_proxy": "q"}, environment={"c": "3"})
    run(seen, "ARG b\nARG a=1\nARG c=x\nARG d\nARG HTTP_PROXY")
    assert seen.arguments == {"HTTP_PROXY": "p", "a": "1", "b": "2"}
    assert seen.run_environment == {"a": "1", "b": "2", "c": "3", "HTTP_PROXY": "p", "no_proxy": "q"}


def test_a_stage_from_a_stage_goes_on_with_what_that_has() -> None:
    first = scope(given={"a": "1"})
    run(first, "ARG a\nENV b=2")
    second = first.child()
    run(second, "ENV c=$a$b")
    assert second.environment == {"b": "2", "c": "12"}
    assert first.environment == {"b": "2"}


EXPANDED = {
    "EXPOSE $ports": {"ports": ("80", "53/udp", "7000-7001")},
    "USER $u:${g:-x}": {"user": "me:x"},
    "WORKDIR /a/$u": {"path": "/a/me"},
    "STOPSIGNAL $sig": {"signal": "SIGINT"},
    'VOLUME ["/a/$u"]': {"paths": ("/a/me",)},
    'LABEL "k $u"="v $u" b=\'$u\'': {"pairs": (("k me", "v me"), ("b", "$u"))},
    "COPY --chown=$u --chmod=$m a$u /$u/": {
        "chown": "me",
        "chmod": "640",
        "sources": ("ame",),
        "destination": "/me/",
    },
    "ADD --checksum=$c http://x/$u /": {"checksum": f"sha256:{'0' * 64}", "sources": ("http://x/me",)},
    "RUN $u": {"text": "RUN $u"},
    "CMD $u": {"text": "CMD $u"},
}


@pytest.mark.parametrize("text", EXPANDED)
def test_what_is_expanded(text: str) -> None:
    variables = {
        "ports": "80 53/udp 7000-7001",
        "u": "me",
        "sig": "SIGINT",
        "m": "640",
        "c": f"sha256:{'0' * 64}",
    }
    (found,) = run(scope(environment=variables), text)
    assert {name: getattr(found, name) for name in EXPANDED[text]} == EXPANDED[text]


def test_mounts_and_heredocs_are_expanded() -> None:
    seen = scope(environment={"u": "me"})
    mounted, copied = run(seen, "RUN --mount=type=cache,id=$u,target=/$u x\nCOPY <<A <<'B' /\n$u\nA\n$u\nB\n")
    assert (mounted.mounts[0].id, mounted.mounts[0].target) == ("me", "/me")
    assert [one.content for one in copied.heredocs] == ["me\n", "$u\n"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("COPY $nothing /", "a source or the destination is empty"),
        ("COPY --chmod=$x a /", "invalid mode 'y z'"),
        ("EXPOSE $x", "invalid port 'y'"),
        ("STOPSIGNAL $x", "'y z' is no signal"),
        ("VOLUME $nothing", "a VOLUME's path is empty"),
        ("ADD $git /", "git repositories are not supported"),
        ("COPY $url /", "COPY takes no address"),
        ("USER ${nothing:?who}", "nothing: who"),
    ],
)
def test_values_that_are_wrong_are_told_with_their_place(text: str, said: str) -> None:
    with pytest.raises(InputError) as caught:
        run(scope(environment={"x": "y z", "git": "git://a/b", "url": "http://a/b"}), text)
    assert caught.value.message.startswith("Dockerfile:2: ") and said in caught.value.message


def test_a_declaration_tells_its_defaults_and_not_what_was_given() -> None:
    seen = scope(given={"a": "1", "d": "5"}, outer={"b": "2"})
    (found,) = run(seen, "ARG a b c d=4$a")
    assert isinstance(found, Arg)
    assert found.pairs == (("a", None), ("b", None), ("c", None), ("d", "41"))
    assert seen.variables == {"a": "1", "b": "2", "d": "5"}


@pytest.mark.parametrize(
    ("lines", "line"),
    [
        (["ENV a=0123456789abcdef", *["ENV a=$a$a"] * 30], 19),
        (["ARG a=0123456789abcdef", *["ARG a=$a$a"] * 30], 19),
        (["ENV a=0123456789abcdef", *["ENV a=${a//?/$a}"] * 5], 5),
        (["ENV a=0123456789abcdef", *["ENV a=$a$a"] * 15, *(f"ENV b{n}=$a" for n in range(9))], 19),
        (["ENV a=0123456789abcdef", *["ENV a=$a$a"] * 15, "LABEL " + " ".join(["b=$a"] * 9)], 18),
    ],
)
def test_variables_do_not_grow_without_a_limit(lines: list[str], line: int) -> None:
    dockerfile = parse("\n".join(["FROM scratch", *lines]), file="Dockerfile")
    scope = Scope(given={}, outer={}, environment={})
    with pytest.raises(InputError, match=f"^Dockerfile:{line}: .*longer than 1048576"):
        for instruction in dockerfile.stages[0].instructions:
            scope.enter(instruction)


def test_global_arguments_have_the_same_limit() -> None:
    text = "\n".join(["ARG a=0123456789abcdef", *["ARG a=$a$a"] * 17, "FROM scratch"])
    with pytest.raises(InputError, match=r"^Dockerfile:18: .*longer than 1048576"):
        plan(parse(text, file="Dockerfile"))


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("ADD --checksum=$none http://x/y /", "ADD --checksum=: expected sha256"),
        ("ADD --checksum=$short http://x/y /", "ADD --checksum=sha256:0: expected sha256"),
        ("ADD --checksum=$sum y /", "ADD --checksum is for what an address has"),
    ],
)
def test_a_checksum_of_variables_is_one(line: str, said: str) -> None:
    add = parse(f"FROM scratch\n{line}\n", file="Dockerfile").stages[0].instructions[0]
    given = {"short": "sha256:0", "sum": f"sha256:{'0' * 64}"}
    with pytest.raises(InputError, match=f"^Dockerfile:2: {said}"):
        Scope(given={}, outer={}, environment=given).enter(add)
