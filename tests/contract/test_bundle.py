"""The agent's bundle is small, the same on every machine, and enough by itself."""

from __future__ import annotations

import subprocess
import sys
import tarfile
from pathlib import Path

from hawse.fleet import bundle

MOST = 1 << 20
"""Bytes of the compressed bundle: it is sent to every host."""


def test_it_is_small(tmp_path: Path) -> None:
    assert bundle.bundle(tmp_path).path.stat().st_size <= MOST


def test_it_is_the_same_every_time(tmp_path: Path) -> None:
    first, second = (bundle.bundle(tmp_path / name) for name in ("one", "two"))
    assert first.digest == second.digest
    assert first.path.read_bytes() == second.path.read_bytes()


def test_every_module_of_it_can_be_imported_without_anything_else(tmp_path: Path) -> None:
    with tarfile.open(bundle.bundle(tmp_path).path) as archive:
        names = [
            name for name in archive.getnames() if name.startswith("hawse_agent/") and name.endswith(".py")
        ]
        archive.extractall(tmp_path / "unpacked", filter="data")
    modules = {name.removesuffix(".py").removesuffix("/__init__").replace("/", ".") for name in names}
    code = "import importlib, sys\nsys.path.insert(0, sys.argv[1])\n"
    code += "for name in sys.argv[2:]: importlib.import_module(name)"
    subprocess.run(
        [
            sys.executable,
            "-ISB",
            "-c",
            code,
            str(tmp_path / "unpacked"),
            *sorted(modules - {"hawse_agent.__main__"}),
        ],
        check=True,
    )
