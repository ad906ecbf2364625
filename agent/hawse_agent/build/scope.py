"""Variables that the instructions of one stage see: ARG and ENV.

    given with --build-arg      only for names that an ARG declares, and `PREDEFINED` ones
    ARG before the first FROM   its value, if the stage's own ARG names it without a default
    ARG in the stage            from its line on
    ENV                         over every ARG of the same name, in whatever order, the base image's too

A stage `FROM` another of the file begins with what that has declared (`Scope.child`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, TypeVar

from hawse_agent.build import values
from hawse_agent.build.expansion import LONGEST, expand, expand_heredoc, expand_words
from hawse_agent.build.grammar import check_checksum, is_url, refuse_git
from hawse_agent.build.instructions import (
    Add,
    Arg,
    Copy,
    Env,
    Expose,
    Heredoc,
    Instruction,
    Label,
    Run,
    Stopsignal,
    Transfer,
    User,
    Volume,
    Workdir,
)
from hawse_agent.errors import InputError

PREDEFINED = frozenset(
    variant
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY")
    for variant in (name, name.lower())
)
"""Every stage's RUN gets them if they are given. History and cache do not know them."""

_I = TypeVar("_I", bound=Instruction)


def check_size(variables: Mapping[str, str]) -> None:
    """Raises InputError for more than a process can be started with."""
    if sum(map(len, variables.values())) > LONGEST:
        raise InputError(f"all variables together are longer than {LONGEST} characters")


class Scope:
    def __init__(
        self,
        *,
        given: Mapping[str, str],
        outer: Mapping[str, str],
        environment: Mapping[str, str],
        escape: str = "\\",
        declared: Mapping[str, str | None] | None = None,
    ) -> None:
        """`outer` is from before the first FROM, and the platform's; `environment` the base image's."""
        self._given = given
        self._outer = outer
        self._environment = dict(environment)
        self._escape = escape
        self._declared: dict[str, str | None] = dict(declared or {})

    def child(self) -> Scope:
        """Of a stage that begins where this one ends."""
        return Scope(
            given=self._given,
            outer=self._outer,
            environment=self._environment,
            escape=self._escape,
            declared=self._declared,
        )

    @property
    def environment(self) -> dict[str, str]:
        return dict(self._environment)

    @property
    def variables(self) -> dict[str, str]:
        """What `$NAME` stands for."""
        declared = {name: value for name, value in self._declared.items() if value is not None}
        return {**declared, **self._environment}

    @property
    def arguments(self) -> dict[str, str]:
        """Declared ones that have a value, and are no ENV: RUN gets them, history and cache name them."""
        return {
            name: value
            for name, value in sorted(self._declared.items())
            if value is not None and name not in self._environment
        }

    @property
    def run_environment(self) -> dict[str, str]:
        """All that a RUN step has, for the time of the build only what is not `environment`."""
        proxies = {name: value for name, value in self._given.items() if name in PREDEFINED}
        return {**proxies, **self.variables}

    @property
    def known(self) -> set[str]:
        """Names that were declared or set, with a value or without."""
        return {*self._declared, *self._environment}

    def enter(self, instruction: _I) -> _I:
        """The instruction with its variables replaced; an ARG or ENV counts for all that come after it.

        An ARG comes back with its defaults, as history shows it: `variables` has the values. EXPOSE's ports
        are words of which `values.exposed_ports` makes ports. Raises InputError with its place.
        """
        try:
            expanded = self._expanded(instruction)
            if isinstance(expanded, Env):
                self._environment.update(expanded.pairs)
            if isinstance(expanded, Env | Arg):
                check_size(self.variables)
        except InputError as error:
            raise error.at(str(instruction.place)) from error
        return expanded

    def _expanded(self, instruction: _I) -> _I:
        match instruction:
            case Arg():
                return replace(instruction, pairs=tuple(self._declare(instruction)))
            case Env(pairs=pairs) | Label(pairs=pairs):
                variables, expanded_pairs, size = self.variables, [], 0
                for pair in pairs:
                    key, value = (expand(text, variables, self._escape) for text in pair)
                    size += len(value)
                    if size > LONGEST:
                        raise InputError(f"all values together are longer than {LONGEST} characters")
                    expanded_pairs.append((key, value))
                return replace(instruction, pairs=tuple(expanded_pairs))
            case Expose(ports=ports):
                words = [word for port in ports for word in expand_words(port, self.variables, self._escape)]
                for word in words:
                    values.exposed_ports(word)
                return replace(instruction, ports=tuple(words))
            case Transfer():
                return self._transfer(instruction)
            case User(user=user):
                return replace(instruction, user=self._one(user))
            case Workdir(path=path):
                return replace(instruction, path=self._one(path))
            case Stopsignal(signal=signal):
                signal = self._one(signal)
                values.stop_signal(signal)
                return replace(instruction, signal=signal)
            case Volume(paths=paths):
                expanded = tuple(self._one(path) for path in paths)
                if not all(expanded):
                    raise InputError("a VOLUME's path is empty")
                return replace(instruction, paths=expanded)
            case Run(mounts=mounts) if mounts:
                return replace(
                    instruction,
                    mounts=tuple(
                        replace(
                            one,
                            target=self._one(one.target),
                            source=self._one(one.source),
                            id=self._one(one.id),
                        )
                        for one in mounts
                    ),
                )
            case _:
                return instruction

    def _transfer(self, instruction: _I) -> _I:
        assert isinstance(instruction, Transfer)
        sources = tuple(self._one(source) for source in instruction.sources)
        destination = self._one(instruction.destination)
        if not all(sources) or not destination:
            raise InputError("a source or the destination is empty")
        chmod = self._one(instruction.chmod)
        if instruction.chmod:
            values.mode(chmod)
        changes: dict[str, Any] = {
            "sources": sources,
            "destination": destination,
            "heredocs": tuple(self._heredoc(one) for one in instruction.heredocs),
            "chown": self._one(instruction.chown),
            "chmod": chmod,
        }
        if isinstance(instruction, Add):
            for source in sources:
                refuse_git(source)
            changes["checksum"] = self._one(instruction.checksum)
            if instruction.checksum:
                check_checksum(changes["checksum"], sources)
        elif isinstance(instruction, Copy):
            for source in sources:
                if is_url(source):
                    raise InputError(f"COPY takes no address: {source}", hint="ADD does")
        return replace(instruction, **changes)

    def _heredoc(self, heredoc: Heredoc) -> Heredoc:
        if not heredoc.expand:
            return heredoc
        return replace(heredoc, content=expand_heredoc(heredoc.content, self.variables))

    def _one(self, text: str) -> str:
        return expand(text, self.variables, self._escape)

    def _declare(self, instruction: Arg) -> list[tuple[str, str | None]]:
        declared: list[tuple[str, str | None]] = []
        for written, default in instruction.pairs:
            name = self._one(written)
            value = None if default is None else self._one(default)
            declared.append((name, value))
            if name in self._given:
                value = self._given[name]
            elif value is None:
                # Declared once more without a default, it keeps what it has.
                value = self._outer.get(name, self._declared.get(name))
            self._declared[name] = value
        return declared
