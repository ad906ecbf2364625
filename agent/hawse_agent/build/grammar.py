"""One function an instruction: a line → its typed form, or what is wrong with it.

Errors are InputError without a place, which the caller has. Nothing is replaced in words: `scope.py` does it.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from hawse_agent.build import values
from hawse_agent.build.instructions import (
    Add,
    Arg,
    Cmd,
    Command,
    Copy,
    Entrypoint,
    Env,
    Expose,
    Healthcheck,
    Heredoc,
    Instruction,
    Label,
    Maintainer,
    Onbuild,
    Place,
    Run,
    Shell,
    Stage,
    Stopsignal,
    User,
    Volume,
    Workdir,
)
from hawse_agent.build.lines import Line
from hawse_agent.build.mounts import mount
from hawse_agent.build.words import first_word, heredoc_mark, json_array, split_flags, split_words
from hawse_agent.errors import InputError, NotSupported


def instruction(line: Line, place: Place, escape: str) -> Instruction:
    name, _ = first_word(line.text)
    make = _MAKERS.get(name)
    if make is None:
        close = difflib.get_close_matches(name, [*_MAKERS, "FROM"], n=1)
        raise InputError(f"unknown instruction {name}" + (f": did you mean {close[0]}?" if close else ""))
    return make(_split(line, place, escape))


_STAGE_NAME = re.compile(r"[a-z][a-z0-9._-]*")


def stage(line: Line, place: Place) -> Stage:
    words = _split(line, place, "\\")
    said = words.rest.split()
    name = ""
    if len(said) == 3 and said[1].lower() == "as":
        name = said[2].lower()
        if _STAGE_NAME.fullmatch(name) is None:
            raise InputError(
                f"invalid stage name {said[2]!r}: expected a letter, then letters, digits, - _ or ."
            )
    elif len(said) != 1:
        raise InputError("FROM takes an image, or IMAGE AS NAME")
    return Stage(
        place=place,
        text=line.text,
        base=said[0],
        name=name,
        platform=words.text_flag("platform"),
        instructions=(),
    )


@dataclass(frozen=True, kw_only=True)
class _Words:
    """A line, as far as it is the same for all instructions."""

    name: str
    place: Place
    text: str
    rest: str
    flags: dict[str, str | bool | list[str]]
    heredocs: tuple[Heredoc, ...]
    escape: str

    @property
    def common(self) -> dict[str, Any]:
        return {"place": self.place, "text": self.text}

    def text_flag(self, name: str) -> str:
        value = self.flags.get(name, "")
        assert isinstance(value, str)
        return value

    def one(self) -> str:
        """The rest, which may not be missing."""
        if not self.rest:
            raise InputError(f"{self.name} requires an argument")
        return self.rest


_FLAGS: dict[str, dict[str, type]] = {
    "ADD": {
        "chown": str,
        "chmod": str,
        "link": bool,
        "checksum": str,
        "unpack": bool,
        "keep-git-dir": bool,
        "exclude": list,
    },
    "COPY": {"from": str, "chown": str, "chmod": str, "link": bool, "parents": bool, "exclude": list},
    "FROM": {"platform": str},
    "HEALTHCHECK": {
        "interval": str,
        "timeout": str,
        "start-period": str,
        "start-interval": str,
        "retries": str,
    },
    "RUN": {"mount": list, "network": str, "security": str, "device": list},
}

_REFUSED = {
    "parents": "directories above a source are not kept",
    "exclude": "use .dockerignore",
    "keep-git-dir": "ADD takes no git repository",
    "device": "a build gets no device",
}


def _flags(name: str, words: list[str]) -> dict[str, str | bool | list[str]]:
    known = _FLAGS.get(name, {})
    found: dict[str, str | bool | list[str]] = {}
    for word in words:
        key, equals, value = word[2:].partition("=")
        kind = known.get(key)
        if kind is None:
            close = difflib.get_close_matches(key, known, n=1)
            has = ", ".join(f"--{one}" for one in known if one not in _REFUSED)
            raise InputError(
                f"{name} has no option --{key}" + (f": did you mean --{close[0]}?" if close else ""),
                hint=f"{name} knows {has}" if has else f"{name} has no options",
            )
        if key in _REFUSED and value.lower() != "false":
            raise NotSupported(f"{name} --{key} is not supported: {_REFUSED[key]}")
        if key in found and kind is not list:
            raise InputError(f"{name} --{key} is there twice")
        if kind is bool:
            if equals and value.lower() not in ("true", "false"):
                raise InputError(f"{name} --{key}={value}: expected true or false")
            found[key] = value.lower() != "false"
        elif not equals:
            raise InputError(f"{name} --{key} needs a value: --{key}=VALUE")
        elif kind is list:
            several = found.setdefault(key, [])
            assert isinstance(several, list)
            several.append(value)
        else:
            found[key] = value
    return found


def _split(line: Line, place: Place, escape: str) -> _Words:
    name, rest = first_word(line.text)
    flags: list[str] = []
    if name != "ONBUILD":
        flags, rest = split_flags(rest)
    return _Words(
        name=name,
        place=place,
        text=line.text,
        rest=rest,
        flags=_flags(name, flags),
        heredocs=line.heredocs,
        escape=escape,
    )


def _command(words: _Words) -> Command:
    array = json_array(words.rest)
    if array is not None:
        return Command(words=array, shell=False)
    return Command(words=(words.one(),), shell=True, heredocs=words.heredocs)


def _run(words: _Words) -> Run:
    command = _command(words)
    if not command.words:
        raise InputError("RUN requires an argument")
    network = words.text_flag("network") or "default"
    if network not in ("default", "none", "host"):
        raise InputError(f"RUN --network={network}: expected default, none or host")
    security = words.text_flag("security") or "sandbox"
    if security != "sandbox":
        raise NotSupported(
            f"RUN --security={security} is not supported: a build has no more rights than a container"
        )
    mounts = words.flags.get("mount", [])
    assert isinstance(mounts, list)
    return Run(
        **words.common,
        command=command,
        mounts=tuple(mount(one) for one in mounts),
        network=_NETWORKS[network],
    )


_NETWORKS: dict[str, Literal["default", "none", "host"]] = {
    "default": "default",
    "none": "none",
    "host": "host",
}


def _cmd(words: _Words) -> Cmd:
    return Cmd(**words.common, command=_command(words))


def _entrypoint(words: _Words) -> Entrypoint:
    if not words.rest:  # takes the base image's away, as `[]` does
        return Entrypoint(**words.common, command=Command(words=(), shell=False))
    return Entrypoint(**words.common, command=_command(words))


def _pairs(words: _Words) -> tuple[tuple[str, str], ...]:
    said = split_words(words.one(), words.escape)
    if not said or "=" not in said[0]:
        key, _, value = _cut_at_blanks(words.rest)
        if not value:
            raise InputError(f"{words.name} {key} has no value: write {words.name} {key}=VALUE")
        return ((key, value),)
    pairs = []
    for word in said:
        key, equals, value = word.partition("=")
        if not equals:
            raise InputError(
                f"{words.name}: {word!r} has no =: expected KEY=VALUE",
                hint="a value with blanks takes double quotes",
            )
        if not key:
            raise InputError(f"{words.name}: {word!r} has no name before its =")
        pairs.append((key, value))
    return tuple(pairs)


def _cut_at_blanks(text: str) -> tuple[str, str, str]:
    match = re.match(r"(\S+)([\t\v\f\r ]+)", text)
    if match is None:
        return text, "", ""
    return match[1], match[2], text[match.end() :]


def _label(words: _Words) -> Label:
    return Label(**words.common, pairs=_pairs(words))


def _env(words: _Words) -> Env:
    return Env(**words.common, pairs=_pairs(words))


def _maintainer(words: _Words) -> Maintainer:
    return Maintainer(**words.common, name=words.one())


def _expose(words: _Words) -> Expose:
    ports = words.one().split()
    for port in ports:
        if "$" not in port:
            values.exposed_ports(port.strip("'\""))
    return Expose(**words.common, ports=tuple(sorted(ports)))


def _sources(words: _Words) -> dict[str, Any]:
    """Fields of Transfer."""
    said = json_array(words.rest)
    if said is None:
        said = tuple(words.rest.split())
    if len(said) < 2:
        raise InputError(f"{words.name} requires a source and a destination")
    *sources, destination = said
    if heredoc_mark(destination) is not None:
        raise InputError(f"{words.name} cannot have a heredoc as its destination")
    contents = {one.name: one for one in words.heredocs}
    paths: list[str] = []
    heredocs: list[Heredoc] = []
    for source in sources:
        found = heredoc_mark(source)
        if found is not None and found.name in contents:
            heredocs.append(contents[found.name])
        elif words.heredocs and re.fullmatch(r"\d*<<-?", source):
            raise InputError(f"{words.name}: the name of a heredoc follows << without a blank")
        else:
            paths.append(source)
    chmod = words.text_flag("chmod")
    if "chmod" in words.flags and "$" not in chmod:
        values.mode(chmod)
    return {
        **words.common,
        "sources": tuple(paths),
        "destination": destination,
        "heredocs": tuple(heredocs),
        "chown": words.text_flag("chown"),
        "chmod": chmod,
        "link": words.flags.get("link", False),
    }


_CHECKSUM = re.compile(r"(?:sha256:[0-9a-f]{64}|sha384:[0-9a-f]{96}|sha512:[0-9a-f]{128})")


def is_url(source: str) -> bool:
    return source.lower().startswith(("http://", "https://"))


def refuse_git(source: str) -> None:
    """Raises NotSupported for what Docker would clone. `source` has no variables."""
    bare = source.partition("#")[0]
    if source.startswith(("git@", "git://", "ssh://")) or (is_url(source) and bare.endswith(".git")):
        raise NotSupported(
            f"{source}: git repositories are not supported", hint="clone it, and take it from the context"
        )


def check_checksum(checksum: str, sources: Sequence[str]) -> None:
    """Of ADD, without variables. Raises InputError."""
    if _CHECKSUM.fullmatch(checksum) is None:
        raise InputError(f"ADD --checksum={checksum}: expected sha256: and 64 hexadecimal digits")
    if not all(map(is_url, sources)):
        raise InputError("ADD --checksum is for what an address has, not for the context")


def _add(words: _Words) -> Add:
    fields = _sources(words)
    for source in fields["sources"]:
        refuse_git(source)
    checksum = words.text_flag("checksum")
    if "checksum" in words.flags and "$" not in checksum:
        check_checksum(checksum, [source for source in fields["sources"] if "$" not in source])
    if "checksum" in words.flags and (fields["heredocs"] or len(fields["sources"]) != 1):
        raise InputError("ADD --checksum is of one source")
    unpack = words.flags.get("unpack")
    assert unpack is None or isinstance(unpack, bool)
    return Add(**fields, checksum=checksum, unpack=unpack)


def _copy(words: _Words) -> Copy:
    fields = _sources(words)
    from_ = words.text_flag("from")
    if "from" in words.flags and not from_:
        raise InputError("COPY --from needs a stage or an image")
    if "$" in from_:
        raise InputError(
            f"COPY --from={from_}: variables are not replaced here",
            hint="name a stage in a FROM line, where they are, and copy from that",
        )
    if from_ and fields["heredocs"]:
        raise InputError("COPY --from cannot have a heredoc as a source")
    for source in fields["sources"]:
        if is_url(source):
            raise InputError(f"COPY takes no address: {source}", hint="ADD does")
    return Copy(**fields, from_=from_)


def _volume(words: _Words) -> Volume:
    paths = json_array(words.rest)
    if paths is None:
        paths = tuple(words.one().split())
    if not paths or not all(path.strip() for path in paths):
        raise InputError("VOLUME requires at least one path, none of them empty")
    return Volume(**words.common, paths=tuple(path.strip() for path in paths))


def _user(words: _Words) -> User:
    return User(**words.common, user=words.one())


def _workdir(words: _Words) -> Workdir:
    return Workdir(**words.common, path=words.one())


def _arg(words: _Words) -> Arg:
    pairs: list[tuple[str, str | None]] = []
    for word in split_words(words.one(), words.escape):
        key, equals, value = word.partition("=")
        if not key:
            raise InputError(f"ARG: {word!r} has no name before its =")
        pairs.append((key, value if equals else None))
    return Arg(**words.common, pairs=tuple(pairs))


def _onbuild(words: _Words) -> Onbuild:
    trigger = words.one()
    name, _ = first_word(trigger)
    if name in ("ONBUILD", "FROM", "MAINTAINER"):
        raise InputError(f"{name} cannot be a trigger of ONBUILD")
    line = Line(number=words.place.line, text=trigger, heredocs=words.heredocs)
    instruction(line, words.place, words.escape)
    for heredoc in words.heredocs:
        trigger += f"\n{heredoc.content}{heredoc.name}"
    return Onbuild(**words.common, trigger=trigger)


def _stopsignal(words: _Words) -> Stopsignal:
    signal = words.one()
    if "$" not in signal:
        values.stop_signal(signal.strip("'\""))
    return Stopsignal(**words.common, signal=signal)


def _healthcheck(words: _Words) -> Healthcheck:
    kind, rest = first_word(words.one())
    if kind == "NONE":
        if rest or words.flags:
            raise InputError("HEALTHCHECK NONE takes nothing else")
        return Healthcheck(**words.common, command=None)
    if kind != "CMD":
        raise InputError(f"HEALTHCHECK {kind}: expected CMD or NONE")
    array = json_array(rest)
    if array is None:
        array = (rest,) if rest else ()
    if not array:
        raise InputError("HEALTHCHECK CMD requires a command")
    retries = words.text_flag("retries")
    if retries and not (retries.isdecimal() and int(retries) < 1 << 31):
        raise InputError(f"HEALTHCHECK --retries={retries}: expected a number")
    times: dict[str, Any] = {
        name.replace("-", "_"): _time(words, name)
        for name in ("interval", "timeout", "start-period", "start-interval")
    }
    return Healthcheck(
        **words.common,
        command=Command(words=array, shell=json_array(rest) is None),
        **times,
        retries=int(retries or 0),
    )


def _time(words: _Words, name: str) -> int:
    text = words.text_flag(name)
    if not text:
        return 0
    try:
        return values.duration(text)
    except InputError as error:
        raise error.at(f"HEALTHCHECK --{name}") from error


def _shell(words: _Words) -> Shell:
    array = json_array(words.rest)
    if array is None:
        raise InputError('SHELL takes a JSON array: SHELL ["/bin/sh", "-c"]')
    if not array:
        raise InputError("SHELL requires at least one word")
    return Shell(**words.common, words=array)


_MAKERS: dict[str, Callable[[_Words], Instruction]] = {
    "ADD": _add,
    "ARG": _arg,
    "CMD": _cmd,
    "COPY": _copy,
    "ENTRYPOINT": _entrypoint,
    "ENV": _env,
    "EXPOSE": _expose,
    "HEALTHCHECK": _healthcheck,
    "LABEL": _label,
    "MAINTAINER": _maintainer,
    "ONBUILD": _onbuild,
    "RUN": _run,
    "SHELL": _shell,
    "STOPSIGNAL": _stopsignal,
    "USER": _user,
    "VOLUME": _volume,
    "WORKDIR": _workdir,
}
