"""Which stages are built, from what, and what must be in the context; wildcards and values beside them."""

from __future__ import annotations

import pytest

from hawse_agent.build import values
from hawse_agent.build.globs import clamped, match
from hawse_agent.build.parser import parse
from hawse_agent.build.sources import check_sources
from hawse_agent.build.stages import Plan, normal_platform, plan
from hawse_agent.errors import InputError

LINUX = {"platform": "linux/arm64", "build_platform": "linux/amd64"}

FOUR = """
FROM golang AS build
RUN make
FROM build AS Test
RUN test
FROM alpine
COPY --from=build /a /a
COPY --from=busybox /b /b
RUN --mount=from=0,target=/x true
FROM scratch AS last
COPY --from=2 /a /a
"""


def order(result: Plan) -> list[int]:
    return [one.index for one in result.stages]


@pytest.mark.parametrize(
    ("target", "stages"),
    [("", [0, 2, 3]), ("last", [0, 2, 3]), ("test", [0, 1]), ("TEST", [0, 1]), ("2", [0, 2]), ("build", [0])],
)
def test_only_what_the_target_needs_is_built(target: str, stages: list[int]) -> None:
    assert order(plan(parse(FOUR), target=target)) == stages


def test_bases_and_sources() -> None:
    stages = plan(parse(FOUR), target="2").stages
    assert [one.base for one in stages] == ["golang", "alpine"]
    assert stages[1].sources == {"build": 0, "0": 0}
    assert plan(parse(FOUR), target="test").target.base == 0
    assert plan(parse(FOUR)).target.base == "scratch"


def test_a_name_of_a_later_stage_is_an_image_to_from_and_a_stage_to_copy() -> None:
    text = "FROM nginx AS a\nCOPY --from=nginx /x /x\nFROM nginx AS nginx\nFROM a\n"
    stages = plan(parse(text)).stages
    assert order(plan(parse(text))) == [1, 0, 2]
    assert stages[1].base == "nginx"
    assert stages[0].base == "nginx"


@pytest.mark.parametrize(
    ("text", "base", "platform"),
    [
        ("ARG V=1\nFROM a:$V", "a:1", ""),
        ("ARG V\nFROM a:${V:-2}", "a:given", ""),
        ("ARG W=$V V\nFROM a:${W:-2}", "a:2", ""),
        ("ARG V\nARG W=x$V\nFROM a:$W", "a:xgiven", ""),
        ("FROM --platform=$BUILDPLATFORM a", "a", "linux/amd64"),
        ("FROM --platform=linux/$TARGETARCH a", "a", "linux/arm64"),
        ("FROM --platform=arm a", "a", "linux/arm/v7"),
        ("FROM a@sha256:" + "0" * 64, "a@sha256:" + "0" * 64, ""),
    ],
)
def test_variables_of_from_lines(text: str, base: str, platform: str) -> None:
    target = plan(parse(text), given={"V": "given"} if "ARG V\n" in text else {}, **LINUX).target
    assert (target.base, target.platform) == (base, platform)


def test_the_platforms_arguments_are_there_for_stages_that_ask() -> None:
    text = "ARG V=1\nFROM scratch AS s\nARG V TARGETARCH BUILDPLATFORM TARGETVARIANT TARGETSTAGE\n"
    result = plan(parse(text), target="s", **LINUX)
    scope = result.scope({})
    assert "TARGETARCH" not in scope.variables
    scope.enter(result.target.stage.instructions[0])
    assert scope.variables == {
        "V": "1",
        "TARGETARCH": "arm64",
        "BUILDPLATFORM": "linux/amd64",
        "TARGETVARIANT": "",
        "TARGETSTAGE": "s",
    }


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "FROM a AS x\nCOPY --from=y /a /a\nFROM x AS y\n",
            "Dockerfile:1: stages need each other: x → y → x",
        ),
        ("FROM a AS x\nCOPY --from=x /a /a\n", "Dockerfile:1: stages need each other: x → x"),
        ("FROM a\nRUN --mount=from=0,target=/x y\nFROM b\n", "Dockerfile:1: stages need each other: 0 → 0"),
        ("FROM a\nCOPY --from=1 /a /a\n", "Dockerfile:2: there is no stage 1: the file has 1, from 0"),
        ("FROM $x\n", "Dockerfile:1: FROM $x: no image is left of it"),
        ("FROM --platform=$x a\n", "Dockerfile:1: FROM --platform=$x: the value is empty"),
        ("FROM --platform=a/b/c/d a\n", "Dockerfile:1: invalid platform 'a/b/c/d'"),
        ("ARG V=${x:?why}\nFROM a\n", "Dockerfile:1: x: why"),
    ],
)
def test_what_is_wrong_between_stages(text: str, said: str) -> None:
    with pytest.raises(InputError) as caught:
        plan(parse(text))
    assert caught.value.message.startswith(said)


@pytest.mark.parametrize("text", ["FROM Upper\n", "FROM a\nCOPY --from=UP/per: /a /a\n"])
def test_names_that_are_no_images(text: str) -> None:
    with pytest.raises(InputError, match=r"Dockerfile:\d: "):
        plan(parse(text))


def test_a_chain_of_stages_may_be_long() -> None:
    chain = "".join(f"FROM {f'a{number - 1}' if number else 'x'} AS a{number}\n" for number in range(2000))
    assert order(plan(parse(chain))) == list(range(2000))


def test_several_errors_are_told_at_once() -> None:
    with pytest.raises(InputError) as caught:
        plan(parse("FROM $x\nCOPY --from=7 /a /a\nFROM --platform=/ b\n"))
    assert [line[:13] for line in caught.value.message.splitlines()] == [
        *("Dockerfile:1:", "Dockerfile:2:", "Dockerfile:3:")
    ]


def test_a_target_that_is_not_there() -> None:
    with pytest.raises(InputError, match="target stage 'x' could not be found") as caught:
        plan(parse("FROM a AS b\nFROM c\n"), target="x")
    assert caught.value.hint == "the file has b, 1"


def test_arguments_that_nobody_asks_for() -> None:
    file = parse("ARG a\nFROM x\nARG b\n")
    result = plan(file, given={"a": "1", "b": "2", "c": "3", "HTTP_PROXY": "x"})
    assert result.unused(file) == ["c"]


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("linux/amd64", "linux/amd64"),
        ("LINUX/x86_64", "linux/amd64"),
        ("aarch64", "linux/arm64"),
        ("linux/arm64/v8", "linux/arm64"),
        ("linux/arm", "linux/arm/v7"),
        ("linux/arm/v6", "linux/arm/v6"),
    ],
)
def test_platforms(text: str, normal: str) -> None:
    assert normal_platform(text) == normal


# The context


def missing(text: str, paths: list[str], **environments: dict[str, str]) -> str:
    try:
        check_sources(plan(parse(text)), paths, environments)
    except InputError as error:
        return error.message
    return ""


@pytest.mark.parametrize(
    "source",
    ["a", "d", "d/b", "./a", "/a", "../../a", "d/*", "?", "[ab]", ".", "/", "d/../a", "http://x/y", "\\a"],
)
def test_sources_that_are_there(source: str) -> None:
    assert missing(f"FROM scratch\nADD {source} /\n", ["a", "d/b"]) == ""


@pytest.mark.parametrize("source", ["c", "d/a", "a/b", "*.c", "d/?x"])
def test_sources_that_are_missing(source: str) -> None:
    assert missing(f"FROM scratch\nADD {source} /\n", ["a", "d/b"]) == (
        f"Dockerfile:2: ADD: {source} is not in the context, or .dockerignore leaves it out"
    )


def test_missing_sources_are_looked_for_as_far_as_variables_are_known() -> None:
    text = """
FROM base AS one
ENV f=a$x
COPY $f b /
FROM one
COPY $f.c c /
RUN --mount=source=d,target=/d true
"""
    unknown = missing(text, ["a1"])
    assert [line.split(":")[1] for line in unknown.splitlines()] == ["4", "6", "7"]
    known = missing(text, ["a1"], base={"x": "1"})
    assert [line.split()[2] for line in known.splitlines()] == ["b", "a1.c", "c", "d"]


def test_what_is_not_built_or_comes_from_elsewhere_may_be_missing() -> None:
    text = "FROM a AS skipped\nCOPY x /\nFROM scratch AS b\nFROM scratch\nCOPY --from=b x /\n"
    assert missing(text, []) == ""


@pytest.mark.parametrize("pattern", ["[", "[]a]", "[a-]", "[a", "a\\", "[^]"])
def test_patterns_that_are_none(pattern: str) -> None:
    with pytest.raises(InputError, match="invalid pattern"):
        match(pattern, "a")


@pytest.mark.parametrize(
    ("pattern", "name", "matches"),
    [
        # Of Go's documentation of filepath.Match and its tests.
        ("abc", "abc", True),
        ("*", "abc", True),
        ("*c", "abc", True),
        ("a*", "a", True),
        ("a*", "ab/c", False),
        ("a*/b", "abc/b", True),
        ("a*/b", "a/c/b", False),
        ("a*b*c*d*e*/f", "axbxcxdxe/xxx/f", False),
        ("a*b?c*x", "abxbbxdbxebxczzx", True),
        ("ab[c]", "abc", True),
        ("ab[b-d]", "abc", True),
        ("ab[e-g]", "abc", False),
        ("ab[^c]", "abc", False),
        ("ab[^e-g]", "abc", True),
        ("a\\*b", "a*b", True),
        ("a\\*b", "ab", False),
        ("a?b", "a☺b", True),
        ("a[^a]b", "a☺b", True),
        ("a[^a][^a][^a]b", "a☺b", False),
        ("[a-ζ]*", "β", True),
        ("*[a-ζ]", "A", False),
        ("a?b", "a/b", False),
        ("a*b", "a/b", False),
        ("[\\]a]", "]", True),
        ("[\\-]", "-", True),
        ("[x\\-]", "x", True),
        ("[x\\-]", "z", False),
        ("[\\-x]", "a", False),
        ("[z-a]", "m", False),
        ("*x", "xxx", True),
        ("a.c", "abc", False),
        ("", "", True),
    ],
)
def test_wildcards_are_gos(pattern: str, name: str, matches: bool) -> None:
    assert match(pattern, name) is matches


@pytest.mark.parametrize(
    ("path", "inside"),
    [("a", "a"), ("../a", "a"), ("a/../../b", "b"), ("/", "."), ("//a//b/", "a/b"), (".", ".")],
)
def test_no_path_leads_out_of_the_context(path: str, inside: str) -> None:
    assert clamped(path) == inside


# Values


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [
        ("0", 0),
        ("30s", 30 * 10**9),
        ("1m30s", 90 * 10**9),
        ("1.5h", 5400 * 10**9),
        ("5ms", 5 * 10**6),
        ("0s", 0),
    ],
)
def test_durations(text: str, nanoseconds: int) -> None:
    assert values.duration(text) == nanoseconds


@pytest.mark.parametrize("text", ["", "5", "s", "1x", "-1s", "1 s", "1s ", "100ns"])
def test_durations_that_are_none(text: str) -> None:
    with pytest.raises(InputError):
        values.duration(text)


@pytest.mark.parametrize(
    ("mode", "before", "directory", "after"),
    [
        ("755", 0o600, False, 0o755),
        ("01777", 0o600, True, 0o1777),
        ("u=rwX,go=rX", 0o600, False, 0o644),
        ("u=rwX,go=rX", 0o700, False, 0o755),
        ("u=rwX,go=rX", 0o600, True, 0o755),
        ("+x", 0o644, False, 0o755),
        ("a-w", 0o666, False, 0o444),
        ("go=", 0o777, False, 0o700),
        ("u+s,g+s,+t", 0o755, False, 0o7755),
        ("g=u", 0o750, False, 0o770),
        ("o=g-w", 0o770, False, 0o775),
        ("u=rw+x", 0o000, False, 0o700),
        ("u-s", 0o4755, False, 0o755),
    ],
)
def test_modes(mode: str, before: int, directory: bool, after: int) -> None:
    assert oct(values.mode(mode).of(before, directory=directory)) == oct(after)


@pytest.mark.parametrize("mode", ["", "8", "77777", "rwx", "u=z", "u", "u=r,", "x=r", "0x1ff"])
def test_modes_that_are_none(mode: str) -> None:
    with pytest.raises(InputError):
        values.mode(mode)
