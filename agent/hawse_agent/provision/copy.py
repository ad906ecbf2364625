"""copy and template: a file with this content, written beside its place and put there by rename."""

from __future__ import annotations

import base64
import os
import shlex
import stat
import tempfile
import time

from hawse_agent.errors import InputError, OutOfSpace, TaskFailed
from hawse_agent.plan.operations import Change
from hawse_agent.provision import attributes, process, texts, users
from hawse_agent.provision.attributes import Wanted
from hawse_agent.provision.module import UNCHANGED, Context, ItemPlan, Result, Tell
from hawse_agent.spec.task import CopyArguments, TemplateArguments

Arguments = CopyArguments | TemplateArguments
NEW_MODE = 0o644


def plan(args: Arguments, context: Context) -> ItemPlan:
    dest = _destination(args)
    content, _ = _content(args, context)
    before = _read(dest)
    if before is not None and not args.force:
        return UNCHANGED
    changes = []
    diff = ""
    if before != content:
        changes.append(Change(field="content", old=texts.describe(before), new=texts.describe(content)))
        diff = "" if context.no_log else texts.unified(before, content, dest)
    if before is not None:
        changes += attributes.differences(dest, _wanted(args, context))
    if not changes:
        return UNCHANGED
    return ItemPlan(changed=True, changes=tuple(changes), diff=diff)


def apply(args: Arguments, context: Context, tell: Tell) -> Result:
    dest = _destination(args)
    content, _ = _content(args, context)
    wanted = _wanted(args, context)
    before = _read(dest)
    result: Result = {"changed": False, "dest": dest, "size": len(content)}
    if before is not None and not args.force:
        return result
    try:
        if before != content:
            if before is not None and args.backup:
                result["backup_file"] = _backup(dest, before)
            _write(dest, content, wanted, args.validate, context)
            result["changed"] = True
        elif attributes.apply(dest, wanted):
            result["changed"] = True
    except OSError as error:
        if error.errno == 28:
            raise OutOfSpace(f"{dest}: no space left; the old file is as it was") from error
        raise TaskFailed(f"{error.filename or dest}: {error.strerror}") from error
    return result


def _destination(args: Arguments) -> str:
    dest = args.dest
    if not dest.startswith("/"):
        raise InputError(f"dest must be absolute: {dest!r}")
    source = args.src if isinstance(args, CopyArguments) else ""
    if dest.endswith("/") or os.path.isdir(dest):
        if not source:
            raise TaskFailed(f"dest {dest} is a directory; name the file")
        dest = os.path.join(dest, os.path.basename(source))
    if args.follow:
        return os.path.realpath(dest)
    return dest


def _content(args: Arguments, context: Context) -> tuple[bytes, int]:
    """And the mode that a new file has by default."""
    if args.content_b64 is not None:
        return base64.b64decode(args.content_b64), NEW_MODE
    if args.content_blob:
        return (context.blobs / args.content_blob.removeprefix("sha256:")).read_bytes(), NEW_MODE
    if isinstance(args, CopyArguments) and args.remote_src and args.src:
        try:
            with open(args.src, "rb") as file:
                return file.read(), stat.S_IMODE(os.fstat(file.fileno()).st_mode)
        except OSError as error:
            raise TaskFailed(f"src {args.src}: {error.strerror}") from error
    raise InputError("there is no content to write")


def _wanted(args: Arguments, context: Context) -> Wanted:
    mode = args.mode
    if mode == "preserve":
        if not isinstance(args, CopyArguments) or not args.remote_src:
            raise InputError("mode: preserve is for files of the host (remote_src)")
        mode = f"{_content(args, context)[1]:04o}"
    return Wanted(mode=mode, owner=args.owner, group=args.group)


def _read(path: str) -> bytes | None:
    try:
        with open(path, "rb") as file:
            return file.read()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise TaskFailed(f"{path}: {error.strerror}") from error


def _write(dest: str, content: bytes, wanted: Wanted, validate: str, context: Context) -> None:
    """All or nothing: the new file is complete, has its owner and mode, and is valid before it is there."""
    directory = os.path.dirname(dest)
    if not os.path.isdir(directory):
        raise TaskFailed(f"the directory {directory} is not there")
    fd, partial = tempfile.mkstemp(dir=directory, prefix=f".{os.path.basename(dest)}.")
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        try:
            old = os.stat(dest)
        except FileNotFoundError:
            os.chmod(partial, NEW_MODE)
        else:
            os.chmod(partial, stat.S_IMODE(old.st_mode))
            status = os.stat(partial)
            if (old.st_uid, old.st_gid) != (status.st_uid, status.st_gid):
                os.chown(partial, old.st_uid, old.st_gid)
        attributes.apply(partial, wanted)
        if validate:
            _validate(validate, partial, context)
        os.rename(partial, dest)
    except BaseException:
        os.unlink(partial)
        raise


def _validate(command: str, path: str, context: Context) -> None:
    if "%s" not in command:
        raise InputError(f"validate needs %s where the new file's name goes: {command!r}")
    argv = [word.replace("%s", path) for word in shlex.split(command)]
    done = process.run(argv, env=users.environment(users.find(context.user), context.environment))
    if done.code != 0:
        raise TaskFailed(
            f"the new content is not valid: {argv[0]} ended with {done.code}; the old file is as it was",
            result={"rc": done.code, "stdout": done.stdout, "stderr": done.stderr},
        )


def _backup(dest: str, content: bytes) -> str:
    name = f"{dest}.{os.getpid()}.{time.strftime('%Y-%m-%d@%H:%M:%S~')}"
    status = os.stat(dest)
    fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(content)
    os.chown(name, status.st_uid, status.st_gid)
    os.chmod(name, stat.S_IMODE(status.st_mode))
    return name
