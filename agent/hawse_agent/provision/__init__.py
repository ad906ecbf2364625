"""Tasks of a play on this host: one file a module, each comparing what is with what is wanted.

    MODULES["copy"].plan(args, context)          what would change; touches nothing
    MODULES["copy"].apply(args, context, tell)   makes it so, by the same comparison

A task runs as the login user of the connection, or as `become_user`: for another user than the agent's own,
the module runs in a process of that user (`helper.py`), so that it can do no more than they can.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from hawse_agent.provision import command, copy, file, package, wait_for
from hawse_agent.provision.module import Context, ItemPlan, Module, TypedModule
from hawse_agent.spec.task import (
    CommandArguments,
    CopyArguments,
    FileArguments,
    PackageArguments,
    ShellArguments,
    TemplateArguments,
    WaitForArguments,
)

__all__ = ["MODULES", "Context", "ItemPlan", "Module"]

MODULES: Mapping[str, Module] = MappingProxyType(
    {
        module.name: module
        for module in (
            TypedModule("command", CommandArguments, command.plan, command.apply),
            TypedModule("shell", ShellArguments, command.plan, command.apply),
            TypedModule("file", FileArguments, file.plan, file.apply),
            TypedModule("copy", CopyArguments, copy.plan, copy.apply),
            TypedModule("template", TemplateArguments, copy.plan, copy.apply),
            TypedModule("package", PackageArguments, package.plan, package.apply),
            TypedModule("apt", PackageArguments, package.plan, package.apply),
            TypedModule("wait_for", WaitForArguments, wait_for.plan, wait_for.apply),
        )
    }
)
