"""How a container's spec names other containers: whose namespaces it joins, to whom it is linked. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from hawse_agent.spec.container import ContainerSpec

_MODES = ("network_mode", "pid_mode", "ipc_mode")


def renamed(spec: ContainerSpec, name: Callable[[str], str]) -> ContainerSpec:
    """With `name` of each; an alias of a link stays what it was."""

    def mode(given: str) -> str:
        kind, _, other = given.partition(":")
        return f"container:{name(other)}" if kind == "container" else given

    def link(given: str) -> str:
        other, _, alias = given.partition(":")
        return f"{name(other)}:{alias or other}"

    return replace(
        spec,
        network_mode=mode(spec.network_mode),
        pid_mode=mode(spec.pid_mode),
        ipc_mode=mode(spec.ipc_mode),
        links=tuple(map(link, spec.links)),
    )


def joined(spec: ContainerSpec) -> list[tuple[str, str]]:
    """Fields by which it joins another one's namespace, each with what they call that one."""
    modes = ((field, getattr(spec, field).partition(":")) for field in _MODES)
    return [(field, other) for field, (kind, _, other) in modes if kind == "container"]
