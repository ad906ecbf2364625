"""package: which packages are installed. Uses apt, dnf or apk, whichever the host has.

A plan asks only the local database and the lists that are already there; nothing is fetched for it.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hawse_agent.errors import InputError, TaskFailed
from hawse_agent.plan.operations import Change
from hawse_agent.provision import process, users
from hawse_agent.provision.item import Context, ItemPlan, Tell
from hawse_agent.provision.users import PATH, Account
from hawse_agent.spec.task import PackageArguments

_NAME = re.compile(r"[A-Za-z0-9@][A-Za-z0-9@+._:~-]*([=/][A-Za-z0-9+._:~^-]+)?")

_QUERY_TIMEOUT = 120.0
_ENVIRONMENT = {
    "APT_LISTCHANGES_FRONTEND": "none",
    "DEBIAN_FRONTEND": "noninteractive",
    "LC_ALL": "C.UTF-8",
    "NEEDRESTART_MODE": "l",
}

Run = Callable[[Sequence[str]], process.Completed]


@dataclass(frozen=True, kw_only=True)
class Manager:
    """One package manager: what to ask it, and what to have it do."""

    name: str
    program: str
    versions: Callable[[Run, Sequence[str]], dict[str, str]]
    """Of these packages those that are installed, with their version."""
    candidates: Callable[[Run, Sequence[str]], dict[str, str]]
    """The newest version that the lists know."""
    update: tuple[str, ...]
    install: tuple[str, ...]
    upgrade: tuple[str, ...]
    remove: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class _Work:
    install: tuple[str, ...] = ()
    upgrade: tuple[str, ...] = ()
    remove: tuple[str, ...] = ()
    changes: tuple[Change, ...] = ()


def plan(args: PackageArguments, context: Context) -> ItemPlan:
    _check(args)
    user = users.account(context.user)
    manager = _manager()
    if not args.name:
        return ItemPlan(changed=True, unknown=True, reason="updates the package lists")
    work = _work(args, manager, _runner(user, context, _QUERY_TIMEOUT))
    unknown = args.state == "latest" and args.update_cache
    reason = "newer versions may be in the lists once they are updated" if unknown else ""
    return ItemPlan(changed=bool(work.changes), changes=work.changes, unknown=unknown, reason=reason)


def apply(args: PackageArguments, context: Context, tell: Tell) -> dict[str, Any]:
    _check(args)
    user = users.account(context.user)
    manager = _manager()
    run = _runner(user, context, None)
    updated = False
    if args.update_cache and (not args.name or args.state == "latest" or _work(args, manager, run).changes):
        tell("updating the package lists")
        _do(run, manager.update, ())
        updated = True
    work = _work(args, manager, run) if args.name else _Work()
    stdout: list[str] = []
    for verb, command, names in (
        ("installing", manager.install, work.install),
        ("upgrading", manager.upgrade, work.upgrade),
        ("removing", manager.remove, work.remove),
    ):
        if names:
            tell(f"{verb} {' '.join(names)}")
            stdout.append(_do(run, command, names))
    text = "".join(stdout)
    return {
        "changed": bool(work.changes) or (updated and not args.name),
        "cache_updated": updated,
        "rc": 0,
        "stdout": text,
        "stdout_lines": text.splitlines(),
        "stderr": "",
        "stderr_lines": [],
        "diff": {
            "before": {change.field: change.old for change in work.changes},
            "after": {change.field: change.new for change in work.changes},
        },
    }


def _check(args: PackageArguments) -> None:
    if not args.name and not args.update_cache:
        raise InputError("module package needs a name")
    for name in args.name:
        if not _NAME.fullmatch(name):
            raise InputError(f"not a package name: {name!r}")


def _manager() -> Manager:
    for manager in _MANAGERS:
        if shutil.which(manager.program, path=PATH):
            return manager
    raise TaskFailed(f"this host has none of {', '.join(manager.program for manager in _MANAGERS)}")


def _runner(user: Account, context: Context, timeout: float | None) -> Run:
    environment = {**_ENVIRONMENT, **context.environment}
    return lambda argv: process.run(argv, user, environment=environment, timeout=timeout)


def _work(args: PackageArguments, manager: Manager, run: Run) -> _Work:
    names = tuple(dict.fromkeys(args.name))
    bare = [_bare(name) for name in names]
    installed = manager.versions(run, bare)
    if args.state in ("absent", "removed"):
        gone = tuple(name for name in bare if name in installed)
        return _Work(remove=gone, changes=tuple(_change(name, installed[name], "") for name in gone))
    missing = tuple(name for name in names if _missing(name, installed))
    changes = [_change(_bare(name), installed.get(_bare(name), ""), _asked(name)) for name in missing]
    newer: tuple[str, ...] = ()
    if args.state == "latest":
        rest = [_bare(name) for name in names if name not in missing and name == _bare(name)]
        best = manager.candidates(run, rest)
        newer = tuple(name for name in rest if best.get(name, installed[name]) != installed[name])
        changes += [_change(name, installed[name], best[name]) for name in newer]
    return _Work(install=missing, upgrade=newer, changes=tuple(changes))


def _bare(name: str) -> str:
    """`nginx=1.2` and `nginx/stable` are the package nginx."""
    return re.split("[=/]", name, maxsplit=1)[0]


def _asked(name: str) -> str:
    return name.partition("=")[2] or "installed"


def _missing(name: str, installed: Mapping[str, str]) -> bool:
    have = installed.get(_bare(name))
    return have is None or ("=" in name and have != name.partition("=")[2])


def _change(name: str, old: str, new: str) -> Change:
    return Change(field=name, old=old or "absent", new=new or "absent")


def _do(run: Run, command: Sequence[str], names: Iterable[str]) -> str:
    argv = [*command, *names]
    done = run(argv)
    stdout, stderr = (text.decode(errors="backslashreplace") for text in (done.stdout, done.stderr))
    if done.rc:
        said = [line for line in (stderr.strip() or stdout.strip()).splitlines() if line]
        errors = [line for line in said if line.startswith(("E:", "ERROR", "Error"))] or said[-1:]
        message = f"{os.path.basename(argv[0])} failed: {'; '.join(errors)[:500] or f'exit status {done.rc}'}"
        result = {"changed": False, "cmd": argv, "rc": done.rc, "stdout": stdout, "stderr": stderr}
        hint = "" if os.geteuid() == 0 and "ermission" not in stderr else "does the task need `become: true`?"
        raise TaskFailed(message, result=result, hint=hint)
    return stdout


def _ask(run: Run, argv: Sequence[str], *, accept: tuple[int, ...] = (0,)) -> list[str]:
    done = run(argv)
    if done.rc not in accept:
        said = (done.stderr or done.stdout).decode(errors="backslashreplace").strip()
        raise TaskFailed(f"{argv[0]} failed: {said or f'exit status {done.rc}'}")
    return done.stdout.decode(errors="replace").splitlines()


# apt

_DPKG_FORMAT = "${Package}\t${Architecture}\t${Version}\t${db:Status-Status}\t${Provides}\n"


def _apt_versions(run: Run, names: Sequence[str]) -> dict[str, str]:
    return dpkg_versions(_ask(run, ["dpkg-query", "--show", f"--showformat={_DPKG_FORMAT}"]), names)


def dpkg_versions(lines: Iterable[str], names: Sequence[str]) -> dict[str, str]:
    """Real packages, with or without `:arch`, and names that an installed package provides."""
    own: dict[str, str] = {}
    provided: dict[str, str] = {}
    for line in lines:
        package, architecture, version, status, provides = line.split("\t")
        if status != "installed":
            continue
        own[package] = own[f"{package}:{architecture}"] = version
        for word in re.findall(r"(\S+?)(?: \(= (\S+)\))?(?:,|$)", provides):
            provided.setdefault(word[0], word[1] or version)
    return {name: found for name in names if (found := own.get(name) or provided.get(name))}


def _apt_candidates(run: Run, names: Sequence[str]) -> dict[str, str]:
    if not names:
        return {}
    return apt_candidates(_ask(run, ["apt-cache", "policy", *names]))


def apt_candidates(lines: Iterable[str]) -> dict[str, str]:
    found, package = {}, ""
    for line in lines:
        if line and not line[0].isspace():
            package = line.rstrip(":")
        elif line.strip().startswith("Candidate:"):
            version = line.partition(":")[2].strip()
            if version != "(none)":
                found[package] = version
    return found


_APT_GET = (
    "apt-get",
    "--yes",
    "--quiet",
    "--option=Dpkg::Options::=--force-confdef",
    "--option=Dpkg::Options::=--force-confold",
    "--option=Dpkg::Use-Pty=0",
    "--option=DPkg::Lock::Timeout=120",
)

# dnf


def _rpm_versions(run: Run, names: Sequence[str]) -> dict[str, str]:
    found = {}
    for name in names:  # one by one: rpm says of a name that it does not know only that it does not
        query = ["rpm", "--query", "--whatprovides", "--queryformat=%{EVR}\\n", "--", name]
        lines = _ask(run, query, accept=(0, 1))
        if lines and not lines[0].startswith("no package "):
            found[name] = lines[-1]
    return found


def _dnf_candidates(run: Run, names: Sequence[str]) -> dict[str, str]:
    if not names:
        return {}
    query = ["dnf", "--quiet", "--cacheonly", "repoquery", "--latest-limit=1"]
    lines = _ask(run, [*query, "--queryformat=%{name}\t%{evr}\\n", "--", *names])
    return dict(line.split("\t", 1) for line in lines if "\t" in line)


# apk


def _apk_versions(run: Run, names: Sequence[str]) -> dict[str, str]:
    return apk_versions(_ask(run, ["apk", "list", "--installed"]), names)


def apk_versions(lines: Iterable[str], names: Sequence[str]) -> dict[str, str]:
    """Lines like `busybox-1.36.1-r2 x86_64 {busybox} (GPL-2.0-only) [installed]`."""
    found = {}
    for line in lines:
        match = re.match(r"(\S+)-(\d\S*-r\d+) ", line)
        if match and match[1] in names:
            found[match[1]] = match[2]
    return found


def _apk_candidates(run: Run, names: Sequence[str]) -> dict[str, str]:
    return apk_versions(_ask(run, ["apk", "list", "--available", "--", *names]), names) if names else {}


_MANAGERS = (
    Manager(
        name="apt",
        program="apt-get",
        versions=_apt_versions,
        candidates=_apt_candidates,
        update=(*_APT_GET, "update"),
        install=(*_APT_GET, "install", "--"),
        upgrade=(*_APT_GET, "install", "--only-upgrade", "--"),
        remove=(*_APT_GET, "remove", "--"),
    ),
    Manager(
        name="dnf",
        program="dnf",
        versions=_rpm_versions,
        candidates=_dnf_candidates,
        update=("dnf", "--assumeyes", "makecache"),
        install=("dnf", "--assumeyes", "install", "--"),
        upgrade=("dnf", "--assumeyes", "upgrade", "--"),
        remove=("dnf", "--assumeyes", "remove", "--"),
    ),
    Manager(
        name="apk",
        program="apk",
        versions=_apk_versions,
        candidates=_apk_candidates,
        update=("apk", "update"),
        install=("apk", "add", "--"),
        upgrade=("apk", "add", "--upgrade", "--"),
        remove=("apk", "del", "--"),
    ),
)
