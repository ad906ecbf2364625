"""Text of Dockerfiles → typed instructions, and what is wrong with them."""

from __future__ import annotations

from typing import Any

import pytest

from hawse_agent.build.heredocs import script_of
from hawse_agent.build.instructions import (
    Add,
    Arg,
    Copy,
    Entrypoint,
    Env,
    Expose,
    Healthcheck,
    Instruction,
    Label,
    Maintainer,
    Mount,
    Onbuild,
    Place,
    Run,
    Shell,
    Stopsignal,
    User,
    Volume,
    Workdir,
)
from hawse_agent.build.parser import parse, parse_trigger
from hawse_agent.errors import InputError, NotSupported


def one(text: str, *, head: str = "FROM scratch\n") -> Any:
    """The only instruction after a FROM."""
    (stage,) = parse(head + text).stages
    (instruction,) = stage.instructions
    return instruction


def refused(text: str) -> InputError:
    with pytest.raises(InputError) as caught:
        parse(text)
    return caught.value


# Lines


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("RUN a \\\n  b", "a   b"),
        ("RUN a \\  \n# comment\n  # indented\n  b", "a   b"),
        ("RUN a \\\n\n\n b", "a  b"),
        ("RUN a \\\r\n b\r\n", "a  b"),
        ("RUN a # no comment", "a # no comment"),
        ("   run   a", "a"),
        ("RUN a \\", "a"),
        ("RUN a \\\\\n# comment\n", "a \\\\"),
        ("RUN a\\\nb", "ab"),
    ],
)
def test_lines_are_joined(text: str, words: str) -> None:
    assert one(text).command.words == (words,)


def test_a_byte_order_mark_and_an_interpreter_line_are_nothing() -> None:
    assert parse(b"\xef\xbb\xbfFROM scratch\n").stages[0].base == "scratch"
    assert parse("#!/usr/bin/env docker\n# escape=`\nFROM scratch\n").escape == "`"


def test_places_count_lines_of_the_file() -> None:
    file = parse("# c\n\nFROM scratch\nRUN a \\\n b\nCOPY <<A <<B /\nx\nA\ny\nB\nCMD c\n", file="D")
    assert file.stages[0].place == Place(file="D", line=3)
    assert [one.place.line for one in file.stages[0].instructions] == [4, 6, 11]


def test_the_escape_can_be_another() -> None:
    run = one("RUN dir c:\\ `\n  x", head="# escape=`\nFROM scratch\n")
    assert run.command.words == ("dir c:\\   x",)


@pytest.mark.parametrize(
    ("head", "said"),
    [
        ("# escape=x\n", "D:1: # escape=x: expected \\ or `"),
        ("# escape=`\n# Escape = `\n", "D:2: only one escape directive can be used"),
        ("# check=skipp=all\n", "D:1: # check=skipp=all: expected skip=NAME,… or error=true"),
    ],
)
def test_directives_that_are_wrong(head: str, said: str) -> None:
    with pytest.raises(InputError) as caught:
        parse(head + "FROM scratch\n", file="D")
    assert caught.value.message == said


@pytest.mark.parametrize("head", ["\n", "# comment\n", "# unknown=x\n"])
def test_below_anything_else_a_directive_is_a_comment(head: str) -> None:
    assert parse(head + "# escape=`\nFROM scratch\n").escape == "\\"


@pytest.mark.parametrize(
    "frontend", ["docker/dockerfile:1", "docker/dockerfile:1.7-labs", "docker.io/docker/dockerfile:1"]
)
def test_dockers_own_syntax_is_known(frontend: str) -> None:
    assert parse(f"# syntax={frontend}\nFROM scratch\n").stages


@pytest.mark.parametrize(
    "frontend", ["example.com/mine:1", "docker/dockerfile:2", "docker/dockerfile-upstream"]
)
def test_other_frontends_are_refused_by_name(frontend: str) -> None:
    with pytest.raises(NotSupported, match=rf"Dockerfile:1: # syntax={frontend}: .*none is fetched"):
        parse(f"# syntax={frontend}\nFROM scratch\n")


def test_text_that_is_no_utf8_is_told_with_its_line() -> None:
    with pytest.raises(InputError, match="Dockerfile: line 2 is not UTF-8"):
        parse(b"FROM scratch\nRUN \xff\n")


# Heredocs


def test_heredocs_of_run() -> None:
    run = one("RUN <<EOF sh\necho $a\n\tindented\nEOF\n")
    assert run.command.words == ("<<EOF sh",)
    (heredoc,) = run.command.heredocs
    assert (heredoc.name, heredoc.content, heredoc.expand) == ("EOF", "echo $a\n\tindented\n", True)


@pytest.mark.parametrize(
    ("mark", "content", "expand"),
    [
        ("<<E", "\ta\n", True),
        ("<<-E", "a\n", True),
        ("<<'E'", "\ta\n", False),
        ('<<-"E"', "a\n", False),
        ("3<<E", "\ta\n", True),
        ("<< E", "\ta\n", True),
    ],
)
def test_marks_of_heredocs(mark: str, content: str, expand: bool) -> None:
    end = "\tE" if "-" in mark else "E"
    heredoc = one(f"RUN cat {mark}\n\ta\n{end}\n").command.heredocs[0]
    assert (heredoc.content, heredoc.expand) == (content, expand)


def test_heredocs_are_files_for_copy() -> None:
    copy = one("COPY --chmod=600 <<one <<'two' plain /d/\n1\none\n$2\ntwo\n")
    assert copy.sources == ("plain",)
    assert [(one.name, one.content, one.expand) for one in copy.heredocs] == [
        ("one", "1\n", True),
        ("two", "$2\n", False),
    ]
    assert copy.destination == "/d/"


@pytest.mark.parametrize(
    "text", ['RUN ["cat", "<<EOF"]', "RUN echo '<<EOF'", "RUN a <<<EOF", "CMD cat <<EOF", "RUN echo \\<<EOF"]
)
def test_what_looks_like_a_heredoc_and_is_none(text: str) -> None:
    assert not one(text).command.heredocs


@pytest.mark.parametrize(
    ("text", "script", "program"),
    [
        ("RUN echo  a", "echo  a", False),
        ("RUN <<E\na\nb\nE", "a\nb\n", False),
        ("RUN <<-E\n\ta\n\tE", "a\n", False),
        ("RUN <<E\n#!/bin/x\na\nE", "#!/bin/x\na\n", True),
        ("RUN cat <<E >/x\n$a\nE", "cat <<E >/x\n$a\nE", False),
        ("RUN cat <<-'E'\n\ta\n\tE", "cat <<-'E'\na\nE", False),
        ("RUN a <<A && b <<B\n1\nA\n2\nB", "a <<A && b <<B\n1\nA\n2\nB", False),
    ],
)
def test_what_a_shell_gets_of_heredocs(text: str, script: str, program: bool) -> None:
    found = script_of(one(text).command)
    assert (found.text, found.program) == (script, program)


def test_a_heredoc_without_an_end() -> None:
    error = refused("FROM scratch\nRUN <<EOF\nx\n")
    assert error.message == "Dockerfile:2: heredoc <<EOF has no line EOF that ends it"


# Instructions


def fields(instruction: Instruction, *names: str) -> tuple[Any, ...]:
    return tuple(getattr(instruction, name) for name in names)


SIMPLE = {
    "MAINTAINER Joe <joe@x>": (Maintainer, {"name": "Joe <joe@x>"}),
    "USER app:app": (User, {"user": "app:app"}),
    "WORKDIR /a b": (Workdir, {"path": "/a b"}),
    "STOPSIGNAL SIGRTMIN+3": (Stopsignal, {"signal": "SIGRTMIN+3"}),
    "STOPSIGNAL $sig": (Stopsignal, {"signal": "$sig"}),
    'SHELL ["/bin/bash", "-c"]': (Shell, {"words": ("/bin/bash", "-c")}),
    'VOLUME ["/a", "/b c"]': (Volume, {"paths": ("/a", "/b c")}),
    "VOLUME /a  /b": (Volume, {"paths": ("/a", "/b")}),
    "EXPOSE 80 53/udp 7000-7002 $p": (Expose, {"ports": ("$p", "53/udp", "7000-7002", "80")}),
    "ENV a=b c='d e' f=\"g h\" i=j\\ k": (
        Env,
        {"pairs": (("a", "b"), ("c", "'d e'"), ("f", '"g h"'), ("i", "j\\ k"))},
    ),
    "ENV a  b c=d": (Env, {"pairs": (("a", "b c=d"),)}),
    'LABEL "a b"=c d.e=': (Label, {"pairs": (('"a b"', "c"), ("d.e", ""))}),
    "ARG a b=c d=": (Arg, {"pairs": (("a", None), ("b", "c"), ("d", ""))}),
    "ONBUILD ADD . /app": (Onbuild, {"trigger": "ADD . /app"}),
    "onbuild COPY <<E /x\na\nE": (Onbuild, {"trigger": "COPY <<E /x\na\nE"}),
    "ENTRYPOINT": (Entrypoint, {}),
}


@pytest.mark.parametrize("text", SIMPLE)
def test_instructions(text: str) -> None:
    kind, wanted = SIMPLE[text]
    instruction = one(text)
    assert type(instruction) is kind
    assert {name: getattr(instruction, name) for name in wanted} == wanted


@pytest.mark.parametrize(
    ("text", "words", "shell"),
    [
        ("CMD a b", ("a b",), True),
        ('CMD ["a", "b c"]', ("a", "b c"), False),
        ('CMD [ "a" ,"\\u0062\\n"]', ("a", "b\n"), False),
        ("CMD []", (), False),
        ("CMD ['a', 'b']", ("['a', 'b']",), True),
        ('CMD ["a", "b"', ('["a", "b"',), True),
        ('CMD ["a"] && b', ('["a"] && b',), True),
        ("CMD [NaN]", ("[NaN]",), True),
        ("CMD [ -f x ] || y", ("[ -f x ] || y",), True),
    ],
)
def test_json_and_shell_forms(text: str, words: tuple[str, ...], shell: bool) -> None:
    assert fields(one(text).command, "words", "shell") == (words, shell)  # type: ignore[arg-type]


def test_copy_and_add() -> None:
    copy = one('COPY --from=build --chown=a:b --chmod=u=rwX,go=rX --link ["a b", "/c d/"]')
    assert isinstance(copy, Copy)
    assert fields(copy, "from_", "chown", "chmod", "link", "sources", "destination") == (
        *("build", "a:b", "u=rwX,go=rX", True),
        *(("a b",), "/c d/"),
    )
    digest = "sha256:" + "0" * 64
    add = one(f"ADD --checksum={digest} --unpack=false --link=false https://example.com/x /x")
    assert isinstance(add, Add)
    assert fields(add, "checksum", "unpack", "link") == (digest, False, False)
    assert one("ADD a.tar /").unpack is None


def test_healthcheck() -> None:
    check = one("HEALTHCHECK --interval=1m30s --timeout=500ms --start-period=0 --retries=4 CMD curl x")
    assert isinstance(check, Healthcheck)
    assert fields(check, "interval", "timeout", "start_period", "retries") == (
        *(90 * 10**9, 5 * 10**8),
        *(0, 4),
    )
    assert check.command is not None
    assert (check.command.words, check.command.shell) == (("curl x",), True)
    assert one("HEALTHCHECK none").command is None
    assert one('HEALTHCHECK CMD ["a"]').command.shell is False


def test_run_with_options() -> None:
    run = one("RUN --network=none --mount=type=cache,id=$a,target=/c,sharing=locked,uid=1,mode=700 a --b")
    assert isinstance(run, Run)
    assert run.command.words == ("a --b",)
    assert run.network == "none"
    assert run.mounts == (Mount(kind="cache", id="$a", target="/c", sharing="locked", uid=1, mode=0o700),)


@pytest.mark.parametrize(
    ("text", "mount"),
    [
        ("target=/a", Mount(kind="bind", target="/a", read_only=True)),
        ("type=bind,dst=a,from=b,src=c,rw", Mount(kind="bind", target="a", from_="b", source="c")),
        ("type=tmpfs,target=/t,size=64m", Mount(kind="tmpfs", target="/t", size=64 << 20)),
        ("type=cache,target=/t,ro", Mount(kind="cache", target="/t", read_only=True)),
        (
            "type=secret,id=a,required",
            Mount(kind="secret", id="a", required=True, read_only=True),
        ),
        ("type=secret,target=/x/y", Mount(kind="secret", id="y", target="/x/y", read_only=True)),
        ("type=secret,id=a,env=A", Mount(kind="secret", id="a", env="A", read_only=True)),
        ('type=bind,"target=/a,b"', Mount(kind="bind", target="/a,b", read_only=True)),
    ],
)
def test_mounts(text: str, mount: Mount) -> None:
    text = text.replace('"', '\\"')
    assert one(f"RUN --mount={text} x").mounts == (mount,)


def test_triggers_of_a_base_image() -> None:
    place = Place(file="D", line=3)
    copy = parse_trigger("COPY <<E /x\na\nE", place=place)
    assert isinstance(copy, Copy)
    assert (copy.place, copy.heredocs[0].content) == (place, "a\n")
    with pytest.raises(InputError, match="D:3: ONBUILD of the base image: unknown instruction COPPY"):
        parse_trigger("COPPY a b", place=place)


def test_text_is_as_written_and_joined() -> None:
    assert one("run  echo \\\n   hi").text == "run  echo    hi"


# Errors: one row a rule, without the place

WRONG = {
    "COPPY a b": "unknown instruction COPPY: did you mean COPY?",
    "XYZZY": "unknown instruction XYZZY",
    "COPY a": "COPY requires a source and a destination",
    "COPY": "COPY requires a source and a destination",
    "COPY --form=x a b": "COPY has no option --form: did you mean --from?",
    "COPY --from a b": "COPY --from needs a value: --from=VALUE",
    "COPY --from= a b": "COPY --from needs a stage or an image",
    "COPY --from=$x a b": "COPY --from=$x: variables are not replaced here",
    "COPY --from=a --from=b c d": "COPY --from is there twice",
    "COPY --chmod=99 a b": "invalid mode '99': expected octal digits such as 755, or u=rwX,go=rX",
    "COPY --chmod=17777 a b": "invalid mode '17777': expected octal digits such as 755, or u=rwX,go=rX",
    "COPY --link=maybe a b": "COPY --link=maybe: expected true or false",
    "COPY --parents a b": "COPY --parents is not supported: directories above a source are not kept",
    "COPY --exclude=*.o a b": "COPY --exclude is not supported: use .dockerignore",
    "COPY https://example.com/x /": "COPY takes no address: https://example.com/x",
    "COPY a <<E\nE": "COPY cannot have a heredoc as its destination",
    "COPY << E /x\nE": "COPY: the name of a heredoc follows << without a blank",
    'COPY [1, "b"]': "a JSON array may hold only strings here",
    "ADD git@example.com:a/b.git /": "git@example.com:a/b.git: git repositories are not supported",
    "ADD https://example.com/a.git#v1 /": "https://example.com/a.git#v1: git repositories are not supported",
    "ADD --keep-git-dir=true a b": "ADD --keep-git-dir is not supported: ADD takes no git repository",
    "ADD --checksum=md5:0 http://a/b /": ("ADD --checksum=md5:0: expected sha256: and 64 hexadecimal digits"),
    f"ADD --checksum=sha256:{'0' * 64} a b": "ADD --checksum is for what an address has, not for the context",
    "RUN": "RUN requires an argument",
    "RUN --network=bridge a": "RUN --network=bridge: expected default, none or host",
    "RUN --security=insecure a": (
        "RUN --security=insecure is not supported: a build has no more rights than a container"
    ),
    "RUN --mount=type=ssh a": (
        "RUN --mount=type=ssh: type=ssh is not supported: no agent's keys reach a build"
    ),
    "RUN --mount=type=chache,target=/a x": (
        "RUN --mount=type=chache,target=/a: unknown type 'chache': did you mean cache?"
    ),
    "RUN --mount=type=cache x": "RUN --mount=type=cache: a cache mount needs a target",
    "RUN --mount=type=bind,target=/,from=a x": (
        "RUN --mount=type=bind,target=/,from=a: nothing can be mounted over the root"
    ),
    "RUN --mount=target=/a,tarjet=b x": (
        "RUN --mount=target=/a,tarjet=b: a bind mount has no tarjet: did you mean target?"
    ),
    "RUN --mount=target=/a,from=$b x": "RUN --mount=target=/a,from=$b: from takes no variables",
    "RUN --mount=type=secret x": "RUN --mount=type=secret: a secret needs an id",
    "RUN --mount=type=cache,target=/a,mode=9 x": (
        "RUN --mount=type=cache,target=/a,mode=9: mode=9: expected octal digits"
    ),
    "RUN --mount=type=tmpfs,target=/a,size=x b": (
        "RUN --mount=type=tmpfs,target=/a,size=x: invalid size 'x': expected one such as 64m"
    ),
    "RUN --mount=type=cache,target=/a,sharing=x b": (
        "RUN --mount=type=cache,target=/a,sharing=x: sharing=x: expected shared, private or locked"
    ),
    "CMD": "CMD requires an argument",
    "CMD --x a": "CMD has no option --x",
    'CMD ["a", 1]': "a JSON array may hold only strings here",
    "ENV": "ENV requires an argument",
    "ENV a": "ENV a has no value: write ENV a=VALUE",
    "ENV a=b c": "ENV: 'c' has no =: expected KEY=VALUE",
    "ENV =b": "ENV: '=b' has no name before its =",
    "ARG =b": "ARG: '=b' has no name before its =",
    "EXPOSE": "EXPOSE requires an argument",
    "EXPOSE http": "invalid port 'http': expected PORT, PORT-PORT or PORT/PROTOCOL",
    "EXPOSE 80/icmp": "invalid port '80/icmp': the protocol is tcp, udp or sctp",
    "EXPOSE 70000": "invalid port '70000': expected 0 to 65535, the lower one first",
    "EXPOSE 9-8": "invalid port '9-8': expected 0 to 65535, the lower one first",
    "USER": "USER requires an argument",
    "WORKDIR": "WORKDIR requires an argument",
    "VOLUME []": "VOLUME requires at least one path, none of them empty",
    'VOLUME [""]': "VOLUME requires at least one path, none of them empty",
    "STOPSIGNAL SIGFOO": "'SIGFOO' is no signal",
    "STOPSIGNAL 99": "'99' is no signal",
    "SHELL /bin/sh -c": 'SHELL takes a JSON array: SHELL ["/bin/sh", "-c"]',
    "SHELL []": "SHELL requires at least one word",
    "HEALTHCHECK": "HEALTHCHECK requires an argument",
    "HEALTHCHECK curl x": "HEALTHCHECK CURL: expected CMD or NONE",
    "HEALTHCHECK CMD": "HEALTHCHECK CMD requires a command",
    "HEALTHCHECK NONE x": "HEALTHCHECK NONE takes nothing else",
    "HEALTHCHECK --interval=5 CMD x": (
        "HEALTHCHECK --interval: invalid duration '5': expected one such as 30s or 1m30s"
    ),
    "HEALTHCHECK --timeout=1us CMD x": "HEALTHCHECK --timeout: duration 1us is less than 1ms",
    "HEALTHCHECK --retries=-1 CMD x": "HEALTHCHECK --retries=-1: expected a number",
    "ONBUILD": "ONBUILD requires an argument",
    "ONBUILD FROM x": "FROM cannot be a trigger of ONBUILD",
    "ONBUILD onbuild RUN x": "ONBUILD cannot be a trigger of ONBUILD",
    "ONBUILD RUM x": "unknown instruction RUM: did you mean RUN?",
    "FROM": "FROM takes an image, or IMAGE AS NAME",
    "FROM a b": "FROM takes an image, or IMAGE AS NAME",
    "FROM a as 1b": "invalid stage name '1b': expected a letter, then letters, digits, - _ or .",
    "FROM --plattform=x a": "FROM has no option --plattform: did you mean --platform?",
}


@pytest.mark.parametrize("text", WRONG)
def test_what_is_wrong_with_an_instruction(text: str) -> None:
    assert refused(f"FROM scratch\n{text}\n").message == f"Dockerfile:2: {WRONG[text]}"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "Dockerfile:1: the file has no instructions"),
        ("# only a comment\n", "Dockerfile:1: the file has no instructions"),
        ("ARG a=1\n", "Dockerfile:1: the file has no FROM"),
        ("RUN a\nRUN b\nFROM x\n", "Dockerfile:1: RUN stands before the first FROM, where only ARG may"),
        ("FROM a AS x\nFROM b AS X\n", "Dockerfile:2: stage name 'x' is taken by line 1"),
    ],
)
def test_what_is_wrong_with_a_file(text: str, said: str) -> None:
    assert refused(text).message == said


def test_all_errors_are_told_at_once_in_the_files_order() -> None:
    error = refused("FROM a b\nCOPPY x y\nRUN ok\nEXPOSE http\nRUN <<E\nnever\n")
    assert [line.split(": ")[0] for line in error.message.splitlines()] == [
        *("Dockerfile:1", "Dockerfile:2"),
        *("Dockerfile:4", "Dockerfile:5"),
    ]
    assert not isinstance(error, NotSupported)


def test_of_very_many_errors_the_first_are_told() -> None:
    lines = refused("FROM x\n" + "RUM x\n" * 1000).message.splitlines()
    assert len(lines) == 51 and lines[-1] == "and 950 more"


def test_long_lines_take_no_long_time() -> None:
    parse("FROM x\nENV a='" + "b" * 1_000_000 + "'\nRUN a\\\n" + "b\\\n" * 100_000)


def test_what_is_only_not_supported_has_its_own_class() -> None:
    assert isinstance(refused("FROM a\nCOPY --parents a b\nADD git://x/y /\n"), NotSupported)


# Warnings


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("CMD a", "JSONArgsRecommended"),
        ("CMD ['a']", "JSONArgsRecommended"),
        ("ENTRYPOINT a", "JSONArgsRecommended"),
        ("CMD []\nCMD []", "MultipleInstructionsDisallowed"),
        ("MAINTAINER x", "MaintainerDeprecated"),
        ("ENV a b", "LegacyKeyValueFormat"),
        ("ENV DB_PASSWORD=x", "SecretsUsedInArgOrEnv"),
        ("ARG API_TOKEN", "SecretsUsedInArgOrEnv"),
        ("EXPOSE 8080:80", "ExposeInvalidFormat"),
        ("WORKDIR a", "WorkdirRelativePath"),
        ("RUN a \\\n\n b", "NoEmptyContinuation"),
        ("FROM x AS Up", "StageNameCasing"),
        ("FROM x as up", "FromAsCasing"),
        ("FROM x AS context", "ReservedStageName"),
    ],
)
def test_warnings(text: str, name: str) -> None:
    (warning,) = parse(f"FROM x\n{text}\n").warnings
    assert warning.startswith("Dockerfile:2: ") and warning.endswith(f"({name})")
    assert parse(f"# check=skip={name}\nFROM x\n{text}\n").warnings == ()
    assert parse(f"# check=skip=all\nFROM x\n{text}\n").warnings == ()
    assert f"({name}, and check=error=true)" in refused(f"# check=error=true\nFROM x\n{text}\n").message


def test_nothing_is_warned_of_without_reason() -> None:
    text = 'FROM x AS a\nENV A=b PUBLIC_KEY=c\nWORKDIR /a\nWORKDIR b\nCMD ["a"]\nEXPOSE 80\n'
    assert parse(text).warnings == ()
