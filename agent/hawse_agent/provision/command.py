"""command and shell: run a program, unless `creates` or `removes` says that it has done its work."""

from __future__ import annotations

import glob
import os
import shlex
import string
import time
from collections.abc import Mapping
from datetime import datetime, timedelta

from hawse_agent.errors import InputError, TaskFailed
from hawse_agent.provision import process, users
from hawse_agent.provision.module import UNCHANGED, Context, ItemPlan, Result, Tell
from hawse_agent.spec.task import CommandArguments, ShellArguments

Arguments = CommandArguments | ShellArguments


def plan(args: Arguments, context: Context) -> ItemPlan:
    argv = _argv(args, {})
    if _done(args):
        return UNCHANGED
    shown = "" if context.no_log else (args.cmd or shlex.join(argv))
    return ItemPlan(changed=True, unknown=True, reason=f"runs {shown}" if shown else "runs")


def apply(args: Arguments, context: Context, tell: Tell) -> Result:
    env = users.environment(users.find(context.user), context.environment)
    argv = _argv(args, env)
    if _done(args):
        return {"changed": False, "rc": 0, "stdout": "", "stderr": "", "cmd": argv}
    directory = args.chdir or env["HOME"]
    if not os.path.isdir(directory):
        if args.chdir:
            raise TaskFailed(f"chdir: {args.chdir} is not a directory")
        directory = "/"
    text = "" if args.stdin is None else args.stdin + ("\n" if args.stdin_add_newline else "")
    begin = time.time()
    done = process.run(argv, env=env, cwd=directory, stdin=text.encode())
    end = time.time()
    stdout, stderr = done.stdout, done.stderr
    if not isinstance(args, CommandArguments) or args.strip_empty_ends:
        stdout, stderr = stdout.rstrip("\r\n"), stderr.rstrip("\r\n")
    result: Result = {
        "changed": True,
        "cmd": args.cmd if isinstance(args, ShellArguments) else argv,
        "rc": done.code,
        "stdout": stdout,
        "stderr": stderr,
        "stdout_lines": stdout.splitlines(),
        "stderr_lines": stderr.splitlines(),
        "start": _stamp(begin),
        "end": _stamp(end),
        "delta": str(timedelta(seconds=end - begin)),
        "msg": "",
    }
    if done.code != 0:
        last = (stderr or stdout).splitlines()
        detail = f": {last[-1]}" if last and not context.no_log else ""
        raise TaskFailed(
            f"non-zero return code {done.code}{detail}", result={**result, "msg": "non-zero return code"}
        )
    return result


def _argv(args: Arguments, env: Mapping[str, str]) -> list[str]:
    if isinstance(args, ShellArguments):
        return [args.executable or "/bin/sh", "-c", args.cmd]
    if bool(args.cmd) == bool(args.argv):
        raise InputError("command needs either cmd or argv")
    try:
        words = list(args.argv) or shlex.split(args.cmd)
    except ValueError as error:
        raise InputError(f"command: {error}: {args.cmd!r}") from None
    if not words:
        raise InputError("command: nothing to run")
    if args.expand_argument_vars:
        words = [string.Template(word).safe_substitute(env) for word in words]
    return words


def _done(args: Arguments) -> bool:
    if args.creates and glob.glob(os.path.join(args.chdir or "/", args.creates)):
        return True
    return bool(args.removes) and not glob.glob(os.path.join(args.chdir or "/", args.removes))


def _stamp(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).isoformat(sep=" ")
