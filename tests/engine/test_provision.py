"""Tasks of other users: what they may do, whose the result is, and what a planted link does not reach.

Packages are only asked about: installing them would change the machine.
"""

from __future__ import annotations

import base64
import ctypes
import os
import shutil
import stat
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.support import isolation

from hawse_agent.errors import OutOfSpace, TaskFailed
from hawse_agent.linux import libc, mount
from hawse_agent.provision import MODULES, Context, ItemPlan, users

pytestmark = pytest.mark.skipif(isolation.current() is None, reason="needs root, inside of a session")

USER = "nobody"
UID = 65534


@pytest.fixture
def root(request: pytest.FixtureRequest) -> Iterator[Path]:
    """Everybody may come here, and only root may write."""
    session = isolation.current()
    assert session is not None
    session.directory.chmod(session.directory.stat().st_mode | 0o011)
    path = session.directory / request.node.name.translate({ord(c): "_" for c in "[]/"})
    path.mkdir(mode=0o755)
    yield path
    shutil.rmtree(path)


@pytest.fixture
def home(root: Path) -> Path:
    """A directory of the user's own."""
    path = root / "home"
    path.mkdir(mode=0o755)
    os.chown(path, UID, UID)
    return path


def context(root: Path, *, become: str = "") -> Context:
    return Context(login_user=USER, become_user=become, blobs=root / "blobs")


def apply(module: str, run_as: Context, **args: Any) -> dict[str, Any]:
    return MODULES[module].apply(_plain(args), run_as, lambda line: None)


def plan(module: str, run_as: Context, **args: Any) -> ItemPlan:
    return MODULES[module].plan(_plain(args), run_as)


def _plain(args: dict[str, Any]) -> dict[str, Any]:
    if "content" in args:
        args["content_b64"] = base64.b64encode(args.pop("content").encode()).decode()
    return {name: str(value) if isinstance(value, Path) else value for name, value in args.items()}


def test_a_command_is_the_users(root: Path, home: Path) -> None:
    done = apply("shell", context(root), cmd="id -u; id -G; umask; pwd; cat /proc/self/status", chdir=home)
    assert done["stdout_lines"][:4] == [str(UID), str(UID), "0022", str(home)]
    assert "CapEff:\t0000000000000000" in done["stdout_lines"]
    assert apply("command", context(root, become="root"), cmd="id -u")["stdout"] == "0"


def test_a_command_enters_only_where_its_user_may(root: Path) -> None:
    (root / "closed").mkdir(mode=0o700)
    with pytest.raises(TaskFailed, match="closed: Permission denied"):
        apply("command", context(root), cmd="pwd", chdir=root / "closed")


def test_files_are_the_users(root: Path, home: Path) -> None:
    apply("copy", context(root), dest=home / "f", content="x")
    apply("file", context(root), path=home / "d", state="directory")
    assert {(path.stat().st_uid, path.stat().st_gid) for path in home.iterdir()} == {(UID, UID)}


def test_a_user_writes_only_where_it_may(root: Path) -> None:
    with pytest.raises(TaskFailed, match="Permission denied") as refused:
        apply("copy", context(root), dest=root / "f", content="x")
    assert "become" in refused.value.hint
    with pytest.raises(TaskFailed, match="Permission denied"):
        apply("file", context(root), path=root / "d", state="directory")
    assert list(root.iterdir()) == []
    apply("copy", context(root, become="root"), dest=root / "f", content="x", owner=USER, mode="0600")
    status = (root / "f").stat()
    assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (UID, 0, 0o600)


def test_a_link_that_a_user_planted_leads_nowhere(root: Path, home: Path) -> None:
    secret = root / "secret"
    secret.write_text("root's own")
    secret.chmod(0o600)
    (home / "link").symlink_to(secret)
    for args in (
        {"dest": home / "link", "content": "x"},
        {"dest": home / "copied", "src": home / "link", "remote_src": True},
    ):
        planned = plan("copy", context(root), **args)
        assert planned.unknown and "root's own" not in planned.diff
        with pytest.raises(TaskFailed, match="Permission denied"):
            apply("copy", context(root), **args)
    with pytest.raises(TaskFailed, match="Operation not permitted"):
        apply("file", context(root), path=home / "link", mode="0777")
    with pytest.raises(TaskFailed, match="Permission denied"):
        apply("wait_for", context(root), path=home / "link", search_regex="own", timeout=0)
    assert (secret.read_text(), stat.S_IMODE(secret.stat().st_mode)) == ("root's own", 0o600)


def test_ownership_is_roots_to_give(root: Path, home: Path) -> None:
    apply("copy", context(root), dest=home / "f", content="x")
    with pytest.raises(TaskFailed, match="f: Operation not permitted"):
        apply("file", context(root), path=home / "f", owner="root")
    assert plan("file", context(root, become="root"), path=home / "f", owner="root").changed
    apply("file", context(root, become="root"), path=home / "f", owner="root", group="root", mode="u+s")
    status = (home / "f").stat()
    assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (0, 0, 0o4644)


def test_a_trees_owner_is_set_without_following_links(root: Path, home: Path) -> None:
    outside = root / "outside"
    outside.touch()
    (root / "tree/sub").mkdir(parents=True)
    (root / "tree/sub/link").symlink_to(outside)
    done = {"path": root / "tree", "state": "directory", "owner": USER, "recurse": True}
    assert apply("file", context(root, become="root"), **done)["changed"]
    assert apply("file", context(root, become="root"), **done)["changed"] is False
    owners = [path.lstat().st_uid for path in (root / "tree/sub", root / "tree/sub/link", outside)]
    assert owners == [UID, UID, 0]


def test_the_user_reaches_a_blob_only_as_the_content(root: Path, home: Path) -> None:
    digest = "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"  # sha256 of "x"
    (root / "blobs").mkdir(mode=0o700)
    (root / "blobs" / digest).write_text("x")
    apply("copy", context(root), dest=home / "f", content_blob=f"sha256:{digest}")
    assert ((home / "f").read_text(), (home / "f").stat().st_uid) == ("x", UID)


def test_a_content_is_validated_by_the_user(root: Path, home: Path) -> None:
    validate = f"sh -c 'id -u > {home}/who; test -r $0' %s"
    apply("copy", context(root), dest=home / "f", content="x", validate=validate)
    assert (home / "who").read_text() == f"{UID}\n"


def test_the_users_other_groups_count_and_the_daemons_do_not(root: Path) -> None:
    shared = root / "shared"
    shared.write_text("x")
    os.chown(shared, 0, 4)
    shared.chmod(0o040)
    user = users.account(USER)
    assert users.as_user(replace(user, groups=(UID, 4)), shared.read_text) == "x"

    def daemon() -> str:
        groups = (ctypes.c_uint32 * 1)(4)
        libc.syscall("setgroups", 1, groups)  # of this thread, which the task's thread comes from
        return users.as_user(user, shared.read_text)

    with ThreadPoolExecutor(1) as pool, pytest.raises(PermissionError):
        pool.submit(daemon).result()


def test_the_daemon_stays_who_it_is(root: Path) -> None:
    before = Path("/proc/self/status").read_text().splitlines()
    mask = os.umask(0o027)
    users.as_user(users.account(USER), lambda: os.chdir("/"))
    assert os.umask(mask) == 0o027
    kept = ("Uid", "Gid", "Groups", "CapEff")
    after = Path("/proc/self/status").read_text().splitlines()
    assert [line for line in before if line.startswith(kept)] == [
        line for line in after if line.startswith(kept)
    ]


def test_a_full_disk_leaves_the_old_file(root: Path) -> None:
    mount.mount("tmpfs", str(root), "tmpfs", data="size=64k")
    try:
        (root / "f").write_text("old")
        with pytest.raises(OutOfSpace):
            apply("copy", context(root, become="root"), dest=root / "f", content="x" * 100_000)
        assert ((root / "f").read_text(), [path.name for path in root.iterdir()]) == ("old", ["f"])
    finally:
        mount.umount(str(root))


@pytest.mark.skipif(shutil.which("dpkg-query") is None, reason="needs a Debian")
def test_packages_are_looked_up(root: Path) -> None:
    planned = plan("package", context(root), name=["base-files", "no-such-package-here"])
    assert [(change.field, change.old) for change in planned.changes] == [("no-such-package-here", "absent")]
    shown = ["dpkg-query", "--show", "--showformat=${Version}", "base-files"]
    version = subprocess.run(shown, capture_output=True, text=True, check=True).stdout
    removal = plan("package", context(root), name=["base-files"], state="absent")
    assert [(change.old, change.new) for change in removal.changes] == [(version, "absent")]
