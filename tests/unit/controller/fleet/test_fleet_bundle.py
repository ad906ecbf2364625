import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import hawse_agent
from hawse.fleet import bundle as subject


def names(tar: bytes) -> list[str]:
    with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
        return archive.getnames()


def test_the_same_sources_give_the_same_bytes(tmp_path: Path) -> None:
    original = [("hawse_agent/a.py", tmp_path / "1/a.py"), ("h11/b.py", tmp_path / "1/b.py")]
    for _, path in original:
        path.parent.mkdir(exist_ok=True)
        path.write_text(path.name)
    shutil.copytree(tmp_path / "1", tmp_path / "2")
    copies = [(name, tmp_path / "2" / path.name) for name, path in reversed(original)]
    os.utime(copies[0][1], (1, 1))
    copies[0][1].chmod(0o700)
    assert subject.build(original) == subject.build(copies)


def test_the_bundle_is_built_once(tmp_path: Path) -> None:
    first = subject.bundle(tmp_path)
    made = first.path.stat().st_ino
    assert subject.bundle(tmp_path) == first and first.path.stat().st_ino == made
    (tmp_path / "latest.json").write_text("{")  # torn: built again, to the same
    assert subject.bundle(tmp_path) == first


def test_what_is_in_it(tmp_path: Path) -> None:
    made = subject.bundle(tmp_path)
    with tarfile.open(made.path) as archive:
        entries = {entry.name: entry for entry in archive}
        version = archive.extractfile("VERSION")
        assert version is not None
        assert json.load(version) == {"version": hawse_agent.__version__, "protocol": 1}
    assert {name.split("/")[0] for name in entries} == {"hawse_agent", "h11", "VERSION", "bin"}
    assert not [name for name in entries if name.endswith(".pyc") or "/tests/" in name]
    assert entries["bin/hawse-agent"].mode == 0o755
    assert {(entry.mtime, entry.uid, entry.uname) for entry in entries.values()} == {(0, 0, "")}


def test_the_digest_is_that_of_the_tar(tmp_path: Path) -> None:
    made = subject.bundle(tmp_path)
    with tarfile.open(made.path) as archive:
        assert archive.fileobj is not None
    done = subprocess.run(["gzip", "-dc", str(made.path)], capture_output=True, check=True)
    assert hashlib.sha256(done.stdout).hexdigest() == made.digest


def test_the_agents_needs_are_all_in_it(tmp_path: Path) -> None:
    with tarfile.open(subject.bundle(tmp_path).path) as archive:
        archive.extractall(tmp_path / "unpacked", filter="data")
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import h11, hawse_agent.engine.engine; "
        "assert h11.__file__.startswith(sys.argv[1])"
    )
    subprocess.run([sys.executable, "-ISB", "-c", code, str(tmp_path / "unpacked")], check=True)
