"""The image of the demo: Debian's nginx, redis-server and python3, made by mmdebstrap, kept under .cache/.

Run as a program it makes the image, before the demo's session is entered, which has no way to the mirrors.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
NAME = "guestbook:1"
SUITE = "bookworm"
PACKAGES = ("nginx-light", "redis-server", "python3")
LEFT_OUT = ("doc", "man", "locale", "info", "lintian")


def available() -> bool:
    return shutil.which("mmdebstrap") is not None and os.geteuid() == 0


def cached() -> Path | None:
    """The controller's data directory that holds the image, when it was made before."""
    directory = _directory()
    return directory if directory.exists() else None


def make(hawse: Path) -> Path:
    """A data directory (XDG_DATA_HOME) whose image store has the image; made only once."""
    directory = _directory()
    if directory.exists():
        return directory
    directory.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=directory.parent, prefix="making-") as scratch:
        tar, data = Path(scratch) / "root.tar", Path(scratch) / "data"
        _bootstrap(tar)
        subprocess.run(
            [hawse, "image", "import", tar, NAME],
            env={**os.environ, "XDG_DATA_HOME": str(data)},
            check=True,
            stdout=subprocess.DEVNULL,
        )
        try:
            data.rename(directory)
        except OSError:
            if not directory.exists():  # by somebody who was faster
                raise
    return directory


def _bootstrap(tar: Path) -> None:
    options = [f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in LEFT_OUT]
    done = subprocess.run(
        [
            "mmdebstrap",
            "--quiet",
            "--variant=essential",
            f"--include={','.join(PACKAGES)}",
            *options,
            SUITE,
            tar,
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode != 0:
        raise RuntimeError(f"mmdebstrap failed:\n{done.stdout[-3000:]}")


def _directory() -> Path:
    recipe = repr((SUITE, PACKAGES, LEFT_OUT))
    key = hashlib.sha256(recipe.encode()).hexdigest()[:12]
    return REPOSITORY / ".cache" / f"guestbook-{key}"


def main() -> int:
    if cached() is None:
        if not available():
            print("the image of the demo needs root and mmdebstrap", file=sys.stderr)
            return 1
        print(f"making the image {NAME} by mmdebstrap; it is kept under .cache/", flush=True)
        make(Path(sys.executable).with_name("hawse"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
