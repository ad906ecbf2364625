"""Builds the images of stacks, each once in a run, and holds them here to be sent.

A build is made by this machine's agent, where there is one; else by that of the first host of the play that
can be reached: always the same one, whose cache knows the steps. All others get the layers that they lack.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from io import BytesIO
from itertools import chain

from hawse.docker.build import secrets_line
from hawse.docker.context import Context, context, with_text
from hawse.fleet.client import AgentClient, StepFailed
from hawse.images.fetch import fetch
from hawse.images.store import ImageStore
from hawse.report.messages import plain
from hawse.stack.build import Build
from hawse_agent.errors import HawseError, HostRefused, Unreachable
from hawse_agent.spec.host import ImageSource

Say = Callable[[str], None]
_TAIL = 12


@dataclass(kw_only=True)
class _Made:
    build: Build
    source: ImageSource | None = None
    error: HawseError | None = None


class Builder:
    """Of one run. Any thread may ask; builds go on one after another."""

    def __init__(
        self,
        *,
        images: ImageStore,
        local: Callable[[], AgentClient | None],
        remote: Callable[[str, Say], AgentClient],
        headers: Callable[[], Mapping[str, str]],
    ) -> None:
        """`local` gives a client of this machine's agent, if there is one, `remote` of a host's; `headers`
        say who we are at registries."""
        self._images, self._local, self._remote, self._headers = images, local, remote, headers
        self.hosts: tuple[str, ...] = ()
        """Of the play, in its order."""
        self._lock = threading.Lock()
        self._made: list[_Made] = []

    def source(self, build: Build, say: Say) -> tuple[ImageSource, bool]:
        """The image as it is held here now, and whether it was built for this very call."""
        with self._lock:
            for made in self._made:
                if made.build == build:
                    if made.error is not None:
                        raise made.error
                    assert made.source is not None
                    return made.source, False
            made = _Made(build=build)
            self._made.append(made)
            try:
                made.source = self._build(build, say)
            except HawseError as error:
                made.error = error.at(f"build {build.reference}")
                raise
            return made.source, True

    def _build(self, build: Build, say: Say) -> ImageSource:
        work_on = work_of(build)
        with self._agent(say) as agent:
            self._carry_out(build, work_on, agent, say)
            say(f"fetching {build.reference}")
            return fetch(agent, self._images, build.reference, build.reference).source()

    def _agent(self, say: Say) -> AgentClient:
        """To be closed by the caller."""
        local = self._local()
        if local is not None:
            return local
        unreachable: Unreachable | None = None
        for host in self.hosts:
            try:
                return self._remote(host, say).second()
            except Unreachable as error:
                unreachable = unreachable or error
        raise unreachable or HostRefused("there is no agent to build with")

    def _carry_out(self, build: Build, work_on: Context, agent: AgentClient, say: Say) -> None:
        messages = agent.messages(
            "POST",
            "/hawse/v1/build",
            query=build.query(work_on.dockerfile),
            headers={**self._headers(), "Content-Type": "application/x-tar"},
            body=chain([secrets_line(build.secrets)], work_on.pieces()),
        )
        said: deque[str] = deque(maxlen=_TAIL)
        say(f"building {build.reference}")
        try:
            for message in messages:
                if (step := message.get("step")) and step["state"] == "started":
                    said.clear()
                    say(f"building {build.reference}: {step['number']}/{step['of']} {step['text']}")
                said.extend(plain(message).splitlines())
        except StepFailed as error:
            raise HostRefused(error.message, hint="\n".join((*said, error.hint)).strip()) from error


def check_context(build: Build) -> None:
    """Raises InputError, which names the build, when its context or Dockerfile is not there."""
    try:
        work_of(build)
    except HawseError as error:
        error.at(f"build {build.reference}")
        raise


def work_of(build: Build) -> Context:
    """The context of a build; raises InputError for what is not there."""
    if build.text is not None:
        return with_text(build.context, build.text)
    return context(build.context, build.dockerfile, BytesIO())
