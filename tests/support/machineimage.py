"""The disk of a virtual machine: Debian with systemd, sshd, Python and its own kernel, kept under .cache/.

mmdebstrap makes the root, mke2fs the file system, both as on any machine: nothing is mounted or started.
Kernel and initial RAM disk lie beside the disk, since qemu boots them directly. Root logs in by the key that
lies there, too. Made in 60 s (56 of them mmdebstrap), 440 MB.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
QEMU = "qemu-system-x86_64"
SUITE = "bookworm"
PACKAGES = (
    *("systemd-sysv", "libpam-systemd", "dbus", "udev", "kmod", "iproute2", "openssh-server", "curl"),
    *("python3", "libnftables1", "libzstd1"),  # what the agent asks of a host
    *("nftables", "busybox-static", "zstd", "procps"),  # what its tests use
    "linux-image-cloud-amd64",
)
LEFT_OUT = ("doc", "man", "locale", "info", "lintian")
DISK_SIZE = 4 << 30
MASKED = (
    *("apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "e2scrub_all.timer"),
    *("e2scrub_reap.service", "fstrim.timer"),
)
FILES = {
    "etc/hostname": "machine\n",
    "etc/fstab": "/dev/vda / ext4 defaults 0 1\n",
    "etc/machine-id": "uninitialized\n",
    "etc/systemd/network/lan.network": "[Match]\nName=eth*\n[Network]\nDHCP=yes\n",
}


@dataclass(frozen=True, kw_only=True)
class MachineImage:
    directory: Path

    @property
    def kernel(self) -> Path:
        return self.directory / "vmlinuz"

    @property
    def initrd(self) -> Path:
        return self.directory / "initrd"

    @property
    def disk(self) -> Path:
        """Sparse; to be copied, never written."""
        return self.directory / "disk"

    @property
    def client_key(self) -> Path:
        return self.directory / "client_key"

    @property
    def host_key(self) -> str:
        """As in known_hosts: `ssh-ed25519 AAAA…`."""
        return " ".join((self.directory / "host_key.pub").read_text().split()[:2])


def missing() -> str:
    """Why there can be no virtual machine here; empty when there can."""
    if shutil.which(QEMU) is None:
        return f"needs {QEMU} (setup/prepare.py packages vm)"
    if not _directory().exists():
        absent = [name for name in ("mmdebstrap", "mke2fs", "ssh-keygen") if shutil.which(name) is None]
        if absent or os.geteuid() != 0:
            return f"the machine's image needs root, mmdebstrap and e2fsprogs; absent: {absent or 'root'}"
    return ""


def make() -> MachineImage:
    """Made only once for each recipe."""
    directory = _directory()
    if not directory.exists():
        directory.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=directory.parent, prefix="making-") as scratch:
            made = Path(scratch) / "machine"
            made.mkdir()
            _build(Path(scratch) / "root", made)
            try:
                made.rename(directory)
            except OSError:
                if not directory.exists():  # by somebody who was faster
                    raise
    return MachineImage(directory=directory)


def _build(root: Path, made: Path) -> None:
    options = [f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in LEFT_OUT]
    include = f"--include={','.join(PACKAGES)}"
    _run("mmdebstrap", "--quiet", "--variant=minbase", include, *options, SUITE, str(root))
    for name, text in FILES.items():
        (root / name).write_text(text)
    _run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "tests", "-f", str(made / "client_key"))
    (root / "root/.ssh").mkdir(mode=0o700, exist_ok=True)
    shutil.copy(made / "client_key.pub", root / "root/.ssh/authorized_keys")
    shutil.copy(root / "etc/ssh/ssh_host_ed25519_key.pub", made / "host_key.pub")
    _run("systemctl", "--quiet", f"--root={root}", "enable", "systemd-networkd.service")
    for unit in MASKED:
        (root / "etc/systemd/system" / unit).symlink_to("/dev/null")
    shutil.copy(_only(root / "boot", "vmlinuz-*"), made / "vmlinuz")
    shutil.copy(_only(root / "boot", "initrd.img-*"), made / "initrd")
    with (made / "disk").open("wb") as disk:
        disk.truncate(DISK_SIZE)
    _run("mke2fs", "-q", "-t", "ext4", "-d", str(root), str(made / "disk"))


def _only(directory: Path, pattern: str) -> Path:
    (found,) = directory.glob(pattern)
    return found


def _run(*words: str) -> None:
    done = subprocess.run(
        words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    if done.returncode != 0:
        raise RuntimeError(f"{words[0]} failed:\n{done.stdout[-3000:]}")


def _directory() -> Path:
    recipe = repr((SUITE, PACKAGES, LEFT_OUT, DISK_SIZE, MASKED, FILES))
    key = hashlib.sha256(recipe.encode()).hexdigest()[:12]
    return REPOSITORY / ".cache" / f"machine-{key}"
