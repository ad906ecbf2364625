"""What every module is, and how it comes to run as the right user."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from hawse_agent.plan.operations import Change
from hawse_agent.provision import helper, users
from hawse_agent.spec import codec

A = TypeVar("A")
Tell = Callable[[str], None]
"""Takes a line of progress."""
Result = dict[str, Any]
"""As Ansible's: changed, and rc, stdout, dest, msg … of the module."""


@dataclass(frozen=True, kw_only=True)
class Context:
    login_user: str
    become_user: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)
    blobs: Path = Path("/nonexistent")
    """Long contents: the blob `sha256:HEX` is the file HEX here."""
    no_log: bool = False

    @property
    def user(self) -> str:
        return self.become_user or self.login_user or "root"


@dataclass(frozen=True, kw_only=True)
class ItemPlan:
    changed: bool
    changes: tuple[Change, ...] = ()
    diff: str = ""
    unknown: bool = False
    """Only running it can tell."""
    reason: str = ""


UNCHANGED = ItemPlan(changed=False)


class Module(Protocol):
    """Failures are raised as TaskFailed, bad arguments as InputError."""

    name: str

    def plan(self, args: Mapping[str, Any], context: Context) -> ItemPlan: ...

    def apply(self, args: Mapping[str, Any], context: Context, tell: Tell) -> Result: ...


class TypedModule(Generic[A]):
    def __init__(
        self,
        name: str,
        arguments: type[A],
        plan: Callable[[A, Context], ItemPlan],
        apply: Callable[[A, Context, Tell], Result],
    ) -> None:
        self.name = name
        self._arguments, self._plan, self._apply = arguments, plan, apply

    def plan(self, args: Mapping[str, Any], context: Context) -> ItemPlan:
        user = users.find(context.user)
        if user.uid == os.geteuid():
            return self._plan(codec.from_json(self._arguments, dict(args)), context)
        answer = helper.call(user, self._request("plan", args, context), lambda line: None)
        return codec.from_json(ItemPlan, answer)

    def apply(self, args: Mapping[str, Any], context: Context, tell: Tell) -> Result:
        user = users.find(context.user)
        if user.uid == os.geteuid():
            return self._apply(codec.from_json(self._arguments, dict(args)), context, tell)
        return helper.call(user, self._request("apply", args, context), tell)

    def _request(self, action: str, args: Mapping[str, Any], context: Context) -> dict[str, Any]:
        values = dict(args)
        blob = values.pop("content_blob", "")
        if blob:  # the user cannot read the store
            values["content_b64"] = helper.encoded(context.blobs / blob.removeprefix("sha256:"))
        return {
            "module": self.name,
            "action": action,
            "args": values,
            "user": context.user,
            "environment": dict(context.environment),
            "no_log": context.no_log,
        }
