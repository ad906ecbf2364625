"""package: packages of the host's own manager (apt, dnf, apk).

What is installed is asked of the package database, which is quick; the manager itself runs only to change
something.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from hawse_agent.errors import InputError, NotSupported, TaskFailed
from hawse_agent.plan.operations import Change
from hawse_agent.provision import process, users
from hawse_agent.provision.module import UNCHANGED, Context, ItemPlan, Result, Tell
from hawse_agent.spec.task import PackageArguments


@dataclass(frozen=True, kw_only=True)
class Manager:
    """`installed` maps names to versions ("" is not there), in one call."""

    name: str
    installed: Callable[[tuple[str, ...], Mapping[str, str]], dict[str, str]]
    newest: Callable[[tuple[str, ...], Mapping[str, str]], dict[str, str]]
    update: tuple[str, ...]
    install: tuple[str, ...]
    upgrade: tuple[str, ...]
    remove: tuple[str, ...]
    environment: Mapping[str, str]


def plan(args: PackageArguments, context: Context) -> ItemPlan:
    manager, env = _manager(), _environment(context)
    changes = _differences(args, manager, env)
    if changes:
        return ItemPlan(changed=True, changes=tuple(changes))
    if args.update_cache:
        return ItemPlan(changed=False, unknown=True, reason="updates the package cache")
    return UNCHANGED


def apply(args: PackageArguments, context: Context, tell: Tell) -> Result:
    manager = _manager()
    env = {**_environment(context), **manager.environment}
    if args.update_cache:
        tell(" ".join(manager.update))
        _run(manager.update, env)
    changes = _differences(args, manager, env)
    if not changes:
        return {"changed": False, "cache_updated": args.update_cache}
    absent = args.state in ("absent", "removed")
    command = manager.remove if absent else manager.upgrade if args.state == "latest" else manager.install
    names = [change.field for change in changes]
    tell(" ".join([*command, *names]))
    done = _run((*command, *names), env)
    return {
        "changed": True,
        "cache_updated": args.update_cache,
        "packages": names,
        "stdout": done.stdout,
        "stderr": done.stderr,
    }


def _differences(args: PackageArguments, manager: Manager, env: Mapping[str, str]) -> list[Change]:
    if not args.name:
        if not args.update_cache:
            raise InputError("package: name is missing")
        return []
    plain = tuple(name.partition("=")[0] for name in args.name)
    present = manager.installed(plain, env)
    newest = manager.newest(plain, env) if args.state == "latest" else {}
    found = []
    for name in args.name:
        bare, _, version = name.partition("=")
        have = present.get(bare, "")
        if args.state in ("absent", "removed"):
            if have:
                found.append(Change(field=bare, old=have, new="absent"))
        elif not have:
            found.append(Change(field=name, old="absent", new=version or args.state))
        elif version and have != version:
            found.append(Change(field=name, old=have, new=version))
        elif newest.get(bare) not in (None, "", have):
            found.append(Change(field=bare, old=have, new=newest[bare]))
    return found


def _environment(context: Context) -> dict[str, str]:
    return users.environment(users.find(context.user), context.environment)


def _manager() -> Manager:
    for manager in _MANAGERS:
        if shutil.which(manager.name, path=users.PATH):
            return manager
    raise NotSupported("package: this host has none of apt-get, dnf, apk")


def _run(argv: tuple[str, ...], env: Mapping[str, str]) -> process.Finished:
    done = process.run(argv, env=env)
    if done.code != 0:
        lines = [line for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        raise TaskFailed(
            f"{argv[0]}: {lines[-1] if lines else f'exit status {done.code}'}",
            result={"rc": done.code, "stdout": done.stdout, "stderr": done.stderr},
        )
    return done


def _dpkg(names: tuple[str, ...], env: Mapping[str, str]) -> dict[str, str]:
    done = process.run(
        ("dpkg-query", "-W", "-f", "${Package} ${db:Status-Status} ${Version}\n", *names), env=env
    )
    rows = [line.split() for line in done.stdout.splitlines()]
    return {row[0]: row[2] for row in rows if len(row) == 3 and row[1] == "installed"}


def _apt_candidates(names: tuple[str, ...], env: Mapping[str, str]) -> dict[str, str]:
    found: dict[str, str] = {}
    current = ""
    for line in process.run(("apt-cache", "policy", *names), env=env).stdout.splitlines():
        if line and not line.startswith(" "):
            current = line.rstrip(":")
        elif line.startswith("  Candidate: "):
            version = line.partition(": ")[2]
            found[current] = "" if version == "(none)" else version
    return found


def _rpm(names: tuple[str, ...], env: Mapping[str, str]) -> dict[str, str]:
    done = process.run(("rpm", "-q", "--qf", "%{NAME} %{VERSION}-%{RELEASE}\n", *names), env=env)
    rows = [line.split() for line in done.stdout.splitlines()]
    return {row[0]: row[1] for row in rows if len(row) == 2}


def _dnf_updates(names: tuple[str, ...], env: Mapping[str, str]) -> dict[str, str]:
    done = process.run(("dnf", "-q", "check-update", *names), env=env)
    rows = [line.split() for line in done.stdout.splitlines()]
    return {row[0].rpartition(".")[0]: row[1] for row in rows if len(row) == 3}


def _apk(names: tuple[str, ...], env: Mapping[str, str]) -> dict[str, str]:
    done = process.run(("apk", "info", "-e", *names), env=env)
    return {line.strip(): "installed" for line in done.stdout.splitlines() if line.strip()}


def _apk_newest(names: tuple[str, ...], env: Mapping[str, str]) -> dict[str, str]:
    found = {}
    for line in process.run(("apk", "version", "-l", "<", *names), env=env).stdout.splitlines():
        if " < " in line:
            package, _, newest = line.partition(" < ")
            name = next((n for n in names if package.startswith(f"{n}-")), "")
            if name:
                found[name] = newest.strip()
    return found


_WAIT = ("-o", "DPkg::Lock::Timeout=300", "-o", "Dpkg::Options::=--force-confdef")
_KEEP = ("-o", "Dpkg::Options::=--force-confold")
_MANAGERS = (
    Manager(
        name="apt-get",
        installed=_dpkg,
        newest=_apt_candidates,
        update=("apt-get", "-q", "update"),
        install=("apt-get", "-qy", *_WAIT, *_KEEP, "install"),
        upgrade=("apt-get", "-qy", *_WAIT, *_KEEP, "install"),
        remove=("apt-get", "-qy", *_WAIT, "remove"),
        environment={"DEBIAN_FRONTEND": "noninteractive", "NEEDRESTART_MODE": "l"},
    ),
    Manager(
        name="dnf",
        installed=_rpm,
        newest=_dnf_updates,
        update=("dnf", "-q", "makecache"),
        install=("dnf", "-qy", "install"),
        upgrade=("dnf", "-qy", "upgrade"),
        remove=("dnf", "-qy", "remove"),
        environment={},
    ),
    Manager(
        name="apk",
        installed=_apk,
        newest=_apk_newest,
        update=("apk", "update", "--quiet"),
        install=("apk", "add", "--quiet"),
        upgrade=("apk", "add", "--quiet", "--upgrade"),
        remove=("apk", "del", "--quiet"),
        environment={},
    ),
)
