"""The root file system of a test host: the upper directory of an overlay of the machine's `/`.

The machine's Debian shows through (its python3, sshd, sudo, nft, ip); what belongs to the machine's
user does not: unknown top-level directories are whited out, and /root, /home, /opt, /usr/local, /mnt …
are opaque, that is, empty. Nothing here mounts anything, and nothing outside the upper directory is
written.
"""

from __future__ import annotations

import os
import stat
import uuid
from collections.abc import Mapping
from pathlib import Path

_KNOWN = frozenset(
    (
        *("bin", "boot", "dev", "etc", "home", "lib", "lib32", "lib64", "libx32", "media", "mnt", "opt"),
        *("proc", "root", "run", "sbin", "srv", "sys", "tmp", "usr", "var"),
    )
)
_EMPTY = (
    "etc/ssh",
    "etc/sudoers.d",
    "home",
    "media",
    "mnt",
    "opt",
    "root",
    "srv",
    "usr/local",
    "var/lib/hawse",
    "var/log",
    "var/tmp",
)
"""Hidden, and there as an empty directory."""
_ABSENT = ("etc/docker", "etc/hawse", "usr/src", "var/crash", "var/lib/containerd", "var/lib/docker")
_SUDOERS = "Defaults env_reset\nroot ALL=(ALL:ALL) ALL\n@includedir /etc/sudoers.d\n"
_SSHD_CONFIG = """\
Port 22
ListenAddress 0.0.0.0
ListenAddress ::
HostKey /etc/ssh/ssh_host_ed25519_key
HostKey /etc/ssh/ssh_host_ecdsa_key
PermitRootLogin prohibit-password
PubkeyAuthentication yes
PasswordAuthentication yes
KbdInteractiveAuthentication no
UsePAM no
UseDNS no
PrintMotd no
AcceptEnv LANG LC_*
Subsystem sftp /usr/lib/openssh/sftp-server
"""


def build(upper: Path, *, hostname: str, hosts: Mapping[str, str], authorized_key: str, hide: Path) -> None:
    """Fills an empty upper directory. `hosts` is name to address for /etc/hosts; `hide` a further tree
    (the project's checkout) that the host must not see."""
    for entry in os.scandir("/"):
        if entry.name not in _KNOWN:
            _white_out(upper / entry.name)
    for relative in _EMPTY:
        _make_empty(upper, relative)
    for relative in _ABSENT:
        if Path("/", relative).exists():
            _parents(upper, relative)
            _white_out(upper / relative)
    _hide(upper, hide)
    for relative, mode in (
        ("usr/local/bin", 0o755),
        ("usr/local/sbin", 0o755),
        ("var/log/apt", 0o755),
        ("root/.ssh", 0o700),
    ):
        (upper / relative).mkdir(exist_ok=True)
        (upper / relative).chmod(mode)
    (upper / "var/tmp").chmod(0o1777)
    for skeleton in Path("/etc/skel").iterdir():
        if skeleton.is_file():
            (upper / "root" / skeleton.name).write_bytes(skeleton.read_bytes())
    write(upper, "root/.ssh/authorized_keys", authorized_key, 0o600)
    write(upper, "etc/hostname", f"{hostname}\n")
    write(upper, "etc/machine-id", f"{uuid.uuid4().hex}\n", 0o444)
    write(upper, "etc/resolv.conf", "")
    write(upper, "etc/sudoers", _SUDOERS, 0o440)
    write(upper, "etc/ssh/sshd_config", _SSHD_CONFIG)
    write(upper, "etc/hosts", hosts_file(hosts))


def hosts_file(hosts: Mapping[str, str]) -> str:
    names = "".join(f"{address}\t{name}\n" for name, address in hosts.items())
    return f"127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost\n{names}"


def write(upper: Path, relative: str, text: str, mode: int = 0o644) -> None:
    _parents(upper, relative)
    path = upper / relative
    path.write_text(text)
    path.chmod(mode)


def _parents(upper: Path, relative: str) -> None:
    """Makes the directories above `relative` as they are on the machine: the upper one's mode shows."""
    for parent in reversed(Path(relative).parents[:-1]):
        directory = upper / parent
        if directory.exists():
            continue
        directory.mkdir()
        try:
            original = (Path("/") / parent).stat()
        except FileNotFoundError:
            continue
        os.chown(directory, original.st_uid, original.st_gid)
        directory.chmod(stat.S_IMODE(original.st_mode))


def _make_empty(upper: Path, relative: str) -> None:
    """An opaque directory hides what the machine has there."""
    _parents(upper, f"{relative}/entry")
    os.setxattr(upper / relative, "trusted.overlay.opaque", b"y")


def _white_out(path: Path) -> None:
    os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(0, 0))


def _hide(upper: Path, tree: Path) -> None:
    """Whites `tree` out, unless a directory above it is hidden already."""
    relative = tree.resolve().relative_to("/")
    for parent in relative.parents:
        path = upper / parent
        if path.exists() and parent != Path() and _hides(path):
            return
    if not (upper / relative).exists():
        _parents(upper, str(relative))
        _white_out(upper / relative)


def _hides(path: Path) -> bool:
    if stat.S_ISCHR(path.lstat().st_mode):
        return True
    return "trusted.overlay.opaque" in os.listxattr(path)
