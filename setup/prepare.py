"""Installs what the demo, the tests and the benches need, quietly when it is there already.

    python3 setup/prepare.py packages [peers|vm]    Debian packages, without starting any service
    python3 setup/prepare.py venv DIR               the project and its test tools into a virtual environment
    python3 setup/prepare.py bench DIR              the peers that come from PyPI

Standard library only, Python 3.11: it runs before anything is installed.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]

PACKAGES = {
    # package: a file that tells whether it is there
    "nftables": "/usr/sbin/nft",
    "libnftables1": "/usr/lib/*/libnftables.so.1",
    "iproute2": "/usr/sbin/ip",
    "openssh-server": "/usr/sbin/sshd",
    "openssh-client": "/usr/bin/ssh",
    "sudo": "/usr/bin/sudo",
    "mmdebstrap": "/usr/bin/mmdebstrap",
    "busybox-static": "/bin/busybox",
    "zstd": "/usr/bin/zstd",
    "curl": "/usr/bin/curl",
    "docker.io": "/usr/bin/docker",
    "docker-registry": "/usr/bin/docker-registry",
    "skopeo": "/usr/bin/skopeo",
    "umoci": "/usr/bin/umoci",
    "python3": "/usr/bin/python3",
}
PEERS = {"runc": "/usr/sbin/runc", "docker.io": "/usr/sbin/dockerd", "iptables": "/usr/sbin/iptables"}
VM = {"qemu-system-x86": "/usr/bin/qemu-system-x86_64"}
POLICY = Path("/usr/sbin/policy-rc.d")


def main(argv: list[str]) -> int:
    match argv:
        case ["packages"]:
            install_packages(PACKAGES)
        case ["packages", "peers"]:
            install_packages({**PACKAGES, **PEERS})
        case ["packages", "vm"]:
            install_packages({**PACKAGES, **VM})
        case ["venv", directory]:
            make_venv(Path(directory))
        case ["bench", directory]:
            run([f"{directory}/bin/pip", "install", "--quiet", "-e", f"{REPOSITORY}[bench]"], "bench tools")
        case _:
            print(__doc__, file=sys.stderr)
            return 2
    return 0


def install_packages(wanted: dict[str, str]) -> None:
    missing = [package for package, file in wanted.items() if not list(Path("/").glob(file.lstrip("/")))]
    if not missing:
        return
    if os.geteuid() != 0:
        sys.exit(f"these Debian packages are missing, and installing them needs root: {' '.join(missing)}")
    if not shutil.which("apt-get"):
        sys.exit(f"no apt-get here; install by hand: {' '.join(missing)}")
    print(f"installing Debian packages: {' '.join(missing)}", flush=True)
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    with nothing_started():
        run(["apt-get", "-qq", "update"], "apt-get update", environment)
        command = ["apt-get", "-qq", "-y", "--no-install-recommends", "install", *missing]
        run(command, "apt-get install", environment)


@contextlib.contextmanager
def nothing_started() -> Iterator[None]:
    """While packages are configured, none of their services is started or enabled to run now."""
    before = POLICY.read_bytes() if POLICY.exists() else None
    mode = POLICY.stat().st_mode if before is not None else 0
    POLICY.write_text("#!/bin/sh\nexit 101\n")
    POLICY.chmod(0o755)
    try:
        yield
    finally:
        if before is None:
            POLICY.unlink()
        else:
            POLICY.write_bytes(before)
            POLICY.chmod(mode)


def make_venv(directory: Path) -> None:
    python = directory / "bin" / "python"
    if not python.exists():
        print(f"making {directory}", flush=True)
        made = subprocess.run([sys.executable, "-m", "venv", str(directory)], capture_output=True, text=True)
        if made.returncode != 0:  # Debian keeps ensurepip in a package of its own
            shutil.rmtree(directory, ignore_errors=True)
            install_packages({"python3-venv": "/usr/share/doc/python3-venv"})
            run([sys.executable, "-m", "venv", str(directory)], "python3 -m venv")
    command = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    run([*command, "-e", f"{REPOSITORY}[test]"], "pip install")


def run(argv: list[str], what: str, environment: dict[str, str] | None = None) -> None:
    """Quiet when it works; shows everything when it does not."""
    done = subprocess.run(argv, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode != 0:
        sys.exit(f"{what} failed:\n{done.stdout}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
