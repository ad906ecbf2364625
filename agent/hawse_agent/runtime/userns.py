"""A container with ids of its own: its root is nobody on the host.

What lies on the host's file systems can be mounted only from outside, and namespaces belong to the user
namespace that their maker is in. So a go-between is forked that does the one, crosses over, does the other,
and leaves:

    shim ── fork ──► go-between: overlay and binds as detached mounts, ids mapped
      │                  │ setns(user namespace)
      │                  └── clone(CLONE_PARENT, new namespaces) ──► PID 1, the shim's child: `init.run`
      ◄── its pid ───────┘

Files keep the owners on the disk that the container sees: the mapping is the mount's (Linux 5.19). A file
system that cannot map ids is refused by name; nothing is ever chowned instead.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from hawse_agent.errors import Conflict, HostRefused
from hawse_agent.linux import mount, namespace, privilege
from hawse_agent.runtime import mounts, rootfs
from hawse_agent.spec.records import IdRange
from hawse_agent.spec.runtime import RuntimeConfig


@dataclass(kw_only=True)
class Brought:
    """What the go-between has for PID 1: detached mounts, as owned fds."""

    root: int
    binds: dict[str, int] = field(default_factory=dict)
    """By target."""
    shared_memory: int | None = None
    """That of another container, which is in another mount namespace."""


def find(config: RuntimeConfig, netns_fd: int | None, donor: int | None) -> int:
    """The user namespace to enter, as an owned fd: that of a kept network namespace, `donor`, that of the
    container whose namespaces are shared, or a new one. Raises Conflict when the two first differ."""
    if netns_fd is None:
        if donor is not None:
            return os.dup(donor)
        assert config.ids is not None
        return create(config.ids)
    owner = namespace.owner(netns_fd)
    if donor is not None and not os.path.sameopenfile(owner, donor):
        os.close(owner)
        other = config.user_namespace.removeprefix("container:")
        raise Conflict(
            f"container {other} was started again and has other users by now: this one has to be, too"
        )
    return owner


def create(ids: IdRange) -> int:
    """A new user namespace, as an owned fd. Only in a process of one thread."""
    reader, writer = os.pipe2(os.O_CLOEXEC)
    try:
        pid, pidfd = namespace.clone(namespace.CLONE_NEWUSER)
        if pid == 0:
            try:
                os.close(writer)
                os.read(reader, 1)  # until the other end is closed: a namespace needs somebody in it
            finally:
                os._exit(0)
        os.close(pidfd)
        try:
            for name in ("uid_map", "gid_map"):
                fd = os.open(f"/proc/{pid}/{name}", os.O_WRONLY | os.O_CLOEXEC)
                try:
                    os.write(fd, f"0 {ids.first} {ids.count}\n".encode())
                finally:
                    os.close(fd)
            return os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
        finally:
            os.close(writer)
            writer = -1
            os.waitpid(pid, 0)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EUSERS):
            raise HostRefused(
                "this host allows no more user namespaces", hint="see the sysctl user.max_user_namespaces"
            ) from error
        raise
    finally:
        os.close(reader)
        if writer >= 0:
            os.close(writer)


def bring(config: RuntimeConfig, userns_fd: int, donor_mounts: int | None) -> Brought:
    """Mount all that lies on the host, in a mount namespace that goes with this process."""
    assert config.ids is not None
    namespace.unshare(namespace.CLONE_NEWNS)
    mounts.keep_to_ourselves(config)
    binds = mounts.open_sources(config, userns_fd)
    shared = None if config.ipc_namespace == "new" else mounts.shared_memory(config, donor_mounts)
    rootfs.make_directories(config)
    home = os.path.dirname(config.upper)
    # Their parents, not each layer: mounts are a resource of the whole host.
    show_mapped({home, *map(os.path.dirname, config.layers)}, userns_fd)
    # The overlay acts on its layers as who has mounted it, and there must be such a user.
    with privilege.making_files_as(config.ids.first, config.ids.first), stacking():
        attached = rootfs.mount_overlay(config)
    root = mount.clone("", dir_fd=attached)
    os.close(attached)
    return Brought(root=root, binds=binds, shared_memory=shared)


def give(stdio: Iterable[int | None], ids: IdRange) -> None:
    """Pipes and files to the container's root, which gives them to the process's user."""
    for fd in stdio:
        if fd is not None and stat.S_ISFIFO(os.fstat(fd).st_mode):
            os.fchown(fd, ids.first, ids.first)


def become_root() -> None:
    """In the user namespace, where the host's root has all capabilities, but is no user."""
    os.setgroups(())
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)


@contextlib.contextmanager
def stacking() -> Iterator[None]:
    """A kernel that cannot stack mapped layers is named."""
    try:
        yield
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        raise HostRefused(
            "this kernel cannot stack layers whose ids are mapped, so no container can have ids of its own",
            hint="start it with --userns=host; Linux 5.19 and newer can",
        ) from error


def show_mapped(directories: Iterable[str], userns_fd: int) -> None:
    """Lay over each directory a view of itself, in this mount namespace."""
    views = {}
    for path in sorted(directories):  # parents first; and all opened before one covers another
        views[path] = mounts.map_ids(mount.clone(path), path, userns_fd, recursive=False)
    for path, fd in views.items():
        target = os.open(path, os.O_PATH | os.O_CLOEXEC)
        mount.attach(fd, target)
        for opened in (fd, target):
            os.close(opened)
