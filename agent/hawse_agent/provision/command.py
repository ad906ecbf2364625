"""command and shell: run a program as the task's user.

What a program will do cannot be known before, unless `creates` or `removes` say that it need not run.
"""

from __future__ import annotations

import glob
import os
import re
import shlex
import time
from typing import Any

from hawse_agent.errors import InputError, TaskFailed
from hawse_agent.provision import process, users
from hawse_agent.provision.item import Context, ItemPlan, Tell
from hawse_agent.spec.task import CommandArguments, ShellArguments

Arguments = CommandArguments | ShellArguments


def plan(args: Arguments, context: Context) -> ItemPlan:
    _check(args)
    user = users.account(context.user)
    if users.as_user(user, lambda: _needless(args)):
        return ItemPlan(changed=False)
    return ItemPlan(changed=True, unknown=True, reason="" if context.no_log else _shown(args))


def apply(args: Arguments, context: Context, tell: Tell) -> dict[str, Any]:
    _check(args)
    user = users.account(context.user)
    if reason := users.as_user(user, lambda: _needless(args)):
        return {
            "changed": False,
            "cmd": _shown(args),
            "rc": 0,
            "stdout": f"skipped, since {reason}",
            "stdout_lines": [f"skipped, since {reason}"],
            "stderr": "",
            "stderr_lines": [],
            "msg": f"Did not run command since {reason}",
        }
    environment = {**user.environment, **context.environment}
    argv = _argv(args, environment)
    where = users.as_user(user, lambda: _open(args.chdir or process.user_directory(user)))
    try:
        done = process.run(
            argv,
            user,
            directory=where,
            environment=context.environment,
            stdin=_stdin(args),
            cancelled=context.cancelled,
        )
    finally:
        os.close(where)
    result = _result(args, argv, done)
    if done.rc:
        raise TaskFailed(_failure(done), result=result)
    return result


def _check(args: Arguments) -> None:
    if isinstance(args, ShellArguments):
        if not args.cmd.strip():
            raise InputError("module shell needs a command")
        return
    if bool(args.cmd.strip()) == bool(args.argv):
        raise InputError("module command needs either 'cmd' or 'argv'")
    if args.cmd:
        _split(args.cmd)


def _split(cmd: str) -> list[str]:
    try:
        return shlex.split(cmd)
    except ValueError as error:
        raise InputError(f"not a command line: {error}") from None


def _argv(args: Arguments, environment: dict[str, str]) -> list[str]:
    if isinstance(args, ShellArguments):
        return [args.executable or "/bin/sh", "-c", args.cmd]
    words = list(args.argv) or _split(args.cmd)
    if args.expand_argument_vars:
        words = [_expand(word, environment) for word in words]
    return words


_VARIABLE = re.compile(r"\$(?:(\w+)|\{(\w+)\})", re.ASCII)


def _expand(word: str, environment: dict[str, str]) -> str:
    """`~` and variables, of the user and not of the daemon; unknown variables stay as they are written."""
    if word == "~" or word.startswith("~/"):
        word = environment["HOME"] + word[1:]
    return _VARIABLE.sub(lambda match: environment.get(match[1] or match[2], match[0]), word)


def _needless(args: Arguments) -> str:
    """Why the command need not run, or nothing."""
    directory = args.chdir or "."
    if args.creates and glob.glob(os.path.join(directory, args.creates)):
        return f"{args.creates} exists"
    if args.removes and not glob.glob(os.path.join(directory, args.removes)):
        return f"{args.removes} does not exist"
    return ""


def _open(directory: str) -> int:
    """The user must be able to enter it, so it is opened with the user's rights."""
    descriptor = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fchdir(descriptor)
    except OSError as error:
        os.close(descriptor)
        raise OSError(error.errno, error.strerror, directory) from None
    return descriptor


def _stdin(args: Arguments) -> bytes | None:
    if args.stdin is None:
        return None
    return (args.stdin + ("\n" if args.stdin_add_newline else "")).encode()


def _result(args: Arguments, argv: list[str], done: process.Completed) -> dict[str, Any]:
    stdout, stderr = _text(done.stdout), _text(done.stderr)
    if not isinstance(args, CommandArguments) or args.strip_empty_ends:
        stdout, stderr = stdout.rstrip("\r\n"), stderr.rstrip("\r\n")
    result = {
        "changed": True,
        "cmd": args.cmd if isinstance(args, ShellArguments) else argv,
        "rc": done.rc,
        "stdout": stdout,
        "stderr": stderr,
        "stdout_lines": stdout.splitlines(),
        "stderr_lines": stderr.splitlines(),
        "start": _moment(done.started),
        "end": _moment(done.ended),
        "delta": _delta(done.ended - done.started),
        "msg": "" if not done.rc else "non-zero return code",
    }
    if done.dropped:
        result["warnings"] = [f"{done.dropped} bytes of output were dropped"]
    return result


def _failure(done: process.Completed) -> str:
    said = _text(done.stderr).strip() or _text(done.stdout).strip()
    last = said.splitlines()[-1][:200] if said else ""
    how = f"ended by signal {-done.rc}" if done.rc < 0 else f"exit status {done.rc}"
    return f"{how}: {last}" if last else how


def _shown(args: Arguments) -> str:
    return shlex.join(args.argv) if isinstance(args, CommandArguments) and args.argv else args.cmd


def _text(data: bytes) -> str:
    return data.decode(errors="backslashreplace")


def _moment(stamp: float) -> str:
    whole = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(stamp))
    return f"{whole}.{int(stamp % 1 * 1e6):06d}"


def _delta(seconds: float) -> str:
    minutes, rest = divmod(max(0.0, seconds), 60)
    hours, minutes = divmod(int(minutes), 60)
    return f"{hours}:{minutes:02d}:{rest:09.6f}"
