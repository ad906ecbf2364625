"""What can go wrong, one class per thing that a caller does differently.

    HawseError                exit  HTTP
    ├── InputError              2    400   the person's input is wrong: names file, line, key
    │   └── NotSupported        2    501   understood, and refused by name
    ├── Unauthorized            1    401   a registry does not know who asks, or does not let them
    ├── NotFound                1    404   no such container, image, network, volume
    ├── Conflict                1    409   the name, port or state is taken
    │   └── Forbidden           1    403   it is the engine's own, and stays as it is
    ├── HostRefused             1    500   the kernel or the host's state said no
    │   ├── OutOfSpace          1    507   a disk is full: nothing was lost, free some space and run again
    │   └── StartFailed         1    500   a container could not start: carries step and Docker's exit code
    ├── PlanChanged             1    409   the host has changed since the plan was made
    ├── ProtocolError           1    502   the peer broke the protocol
    ├── Unreachable             4    503   a host is out of reach: carries the stage
    ├── TaskFailed              1    500   a play's task failed on a host
    └── InternalError         250    500   a bug of ours

Raise, never exit: `main` alone turns an error into text, hint and exit code. Context is added once
on the way up, with `raise … from`. An error crosses the wire as `to_wire()` and comes back as the
same class by `from_wire()`.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal, Self

Stage = Literal["dns", "tcp", "banner", "host key", "auth", "sudo", "python", "agent"]


class HawseError(Exception):
    """Base of all errors that Hawse raises on purpose.

    `message` is one line for a person; `hint` says what to do about it, or is empty.
    """

    exit_code: ClassVar[int] = 1
    status: ClassVar[int] = 500

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return self.message

    def at(self, where: str) -> Self:
        """Puts its place, or what was being done, in front of its message."""
        if not self.message.startswith(f"{where}: "):
            self.message = f"{where}: {self.message}"
        return self

    def fields(self) -> dict[str, Any]:
        """What a subclass carries beside message and hint, as JSON values."""
        return {}

    def to_wire(self) -> dict[str, Any]:
        """`{"message", "kind", "hint", …fields}`; Docker's clients read `message`, ours the rest."""
        return {"message": self.message, "kind": type(self).__name__, "hint": self.hint, **self.fields()}


class InputError(HawseError):
    """What a person wrote is wrong. `where` is `file:line` or `file:line: key`, when known."""

    exit_code = 2
    status = 400

    def __init__(self, message: str, *, where: str = "", hint: str = "") -> None:
        super().__init__(f"{where}: {message}" if where else message, hint=hint)
        self.where = where


class NotSupported(InputError):
    """A known option that Hawse does not implement, refused by name."""

    status = 501


class Unauthorized(HawseError):
    """A registry does not take the credentials, or what they are good for is not enough."""

    status = 401


class NotFound(HawseError):
    status = 404


class Conflict(HawseError):
    status = 409


class Forbidden(Conflict):
    """What the engine has made for itself is not anybody's to change."""

    status = 403


class HostRefused(HawseError):
    """The kernel or the state of the host does not allow it."""


class OutOfSpace(HostRefused):
    status = 507


class StartFailed(HostRefused):
    """A container could not start. `step` is the step of `runtime.init`; `exit_code` is Docker's:
    125 engine, 126 not executable, 127 not found."""

    def __init__(self, message: str, *, step: str = "", container_exit: int = 125, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.step = step
        self.container_exit = container_exit

    def fields(self) -> dict[str, Any]:
        return {"step": self.step, "container_exit": self.container_exit}


class PlanChanged(HawseError):
    status = 409


class ProtocolError(HawseError):
    status = 502


class Unreachable(HawseError):
    """A host is out of reach; `stage` says how far the connection came."""

    exit_code = 4
    status = 503

    def __init__(self, message: str, *, stage: Stage, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.stage: Stage = stage

    def fields(self) -> dict[str, Any]:
        return {"stage": self.stage}


class TaskFailed(HawseError):
    """A task of a play failed on a host; `result` is what the task reported."""

    def __init__(self, message: str, *, result: dict[str, Any] | None = None, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.result = result or {}

    def fields(self) -> dict[str, Any]:
        return {"result": self.result}


class InternalError(HawseError):
    exit_code = 250


_KINDS: dict[str, type[HawseError]] = {
    kind.__name__: kind
    for kind in (
        HawseError,
        InputError,
        NotSupported,
        Unauthorized,
        NotFound,
        Conflict,
        Forbidden,
        HostRefused,
        OutOfSpace,
        StartFailed,
        PlanChanged,
        ProtocolError,
        Unreachable,
        TaskFailed,
        InternalError,
    )
}


def from_wire(body: dict[str, Any]) -> HawseError:
    """The error that `to_wire` described; an unknown kind comes back as `HawseError`."""
    kind = _KINDS.get(str(body.get("kind", "")), HawseError)
    kwargs = {key: body[key] for key in ("step", "container_exit", "stage", "result") if key in body}
    message, hint = str(body.get("message", "")), str(body.get("hint", ""))
    try:
        return kind(message, hint=hint, **kwargs)
    except TypeError:  # a newer peer added or dropped a field
        return HawseError(message, hint=hint)
