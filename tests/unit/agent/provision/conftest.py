"""A task of the user that runs the tests."""

from __future__ import annotations

import base64
import getpass
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hawse_agent.provision import MODULES, Context, ItemPlan


class Task:
    """A module with arguments; paths may be given as they are."""

    def __init__(self, module: str, context: Context, **args: Any) -> None:
        self.module = MODULES[module]
        self.context = context
        self.args = {name: str(value) if isinstance(value, Path) else value for name, value in args.items()}

    def plan(self) -> ItemPlan:
        return self.module.plan(self.args, self.context)

    def apply(self) -> dict[str, Any]:
        return self.module.apply(self.args, self.context, lambda line: None)


@pytest.fixture
def context(tmp_path: Path) -> Context:
    return Context(login_user=getpass.getuser(), blobs=tmp_path / "blobs")


@pytest.fixture
def task(context: Context) -> Callable[..., Task]:
    def make(module: str, *, content: str | None = None, **args: Any) -> Task:
        if content is not None:
            args["content_b64"] = base64.b64encode(content.encode()).decode()
        return Task(module, args.pop("context", context), **args)

    return make
