"""Backup and restore of real trees: what comes back is what was there, or the old data stays."""

from __future__ import annotations

import hashlib
import io
import os
import socket
import stat
import struct
import subprocess
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.support import isolation

from hawse_agent.errors import InputError, NotSupported, OutOfSpace
from hawse_agent.linux import mount
from hawse_agent.paths import paths_for
from hawse_agent.spec import codec
from hawse_agent.spec.volume import VolumeSpec
from hawse_agent.volumes import writer
from hawse_agent.volumes.backup import Manifest, Restore, write_backup
from hawse_agent.volumes.store import VolumeStore

pytestmark = pytest.mark.skipif(isolation.current() is None, reason="needs root, inside of a session")


@pytest.fixture
def store(tmp_path: Path) -> VolumeStore:
    return VolumeStore(paths_for(tmp_path))


@pytest.fixture(params=["gnu", "python"])
def producer(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "python":
        monkeypatch.setattr(writer, "gnu_tar", lambda: "")
    return str(request.param)


def rich_tree(top: Path) -> None:
    """One of everything that a backup must keep."""
    (top / "sub" / "deep").mkdir(parents=True)
    (top / "plain").write_bytes(b"hello\n" * 1000)
    (top / "empty").touch()
    (top / ("long" * 40)).write_text("a long name")
    (top / "sub" / ("ü\u20ac" * 30)).write_text("not ASCII")
    Path(os.fsdecode(os.fsencode(top) + b"/raw\xff")).write_text("not UTF-8")
    os.link(top / "plain", top / "sub" / "again")
    os.symlink("../outside/" + "x" * 120, top / "sub" / "link")
    os.mkfifo(top / "pipe", 0o640)
    os.mknod(top / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    with (top / "sparse").open("wb") as file:
        file.truncate(64 << 20)
        for at in (1 << 20, 40 << 20):
            file.seek(at)
            file.write(b"data" * 2000)
    with (top / "hole").open("wb") as file:
        file.truncate(1 << 30)
    acl = [(1, 6, 0xFFFFFFFF), (2, 4, 1000), (4, 4, 0xFFFFFFFF), (16, 4, 0xFFFFFFFF), (32, 0, 0xFFFFFFFF)]
    packed = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in acl)
    (top / "acl").touch()
    os.setxattr(top / "acl", "system.posix_acl_access", packed)
    os.setxattr(top / "acl", "user.note", b"two\nlines = \0")
    os.setxattr(top / "sub", "trusted.mark", b"1")
    os.setxattr(
        top / "empty", "security.capability", bytes.fromhex("0100000200040000000000000000000000000000")
    )
    os.chown(top / "plain", 3_000_000, 4_000_000)
    os.chmod(top / "plain", 0o4751)
    os.chown(top / "sub", 12, 34)
    os.chmod(top / "sub", 0o3770)
    os.lchown(top / "sub" / "link", 5, 6)
    os.utime(top / "acl", ns=(1, 1_234_567_890_123_456_789))
    os.utime(top / "sub" / "deep", ns=(1, -1_500_000_000))
    os.utime(top / "sub", ns=(1, 987_654_321_000_000_001))
    os.chown(top, 70, 71)
    os.chmod(top, 0o2750)


def snapshot(top: Path) -> dict[str, Any]:
    """All that can be seen of a tree, without what a restore cannot set (inode, ctime)."""
    seen: dict[str, Any] = {}
    links: dict[int, str] = {}
    for path in [top, *sorted(top.rglob("*"))]:
        status = path.lstat()
        name = os.fspath(path.relative_to(top))
        content: Any = os.readlink(path) if path.is_symlink() else ""
        if stat.S_ISREG(status.st_mode) and status.st_size < 1 << 28:
            content = hashlib.sha256(path.read_bytes()).hexdigest()
        seen[name] = (
            oct(status.st_mode),
            (status.st_uid, status.st_gid, status.st_mtime_ns, status.st_rdev),
            status.st_size if not path.is_dir() else 0,
            content,
            {
                key: os.getxattr(path, key, follow_symlinks=False)
                for key in os.listxattr(path, follow_symlinks=False)
            },
            links.setdefault(status.st_ino, name),
        )
    return seen


def backup(store: VolumeStore, name: str, compression: Any = "zstd") -> tuple[bytes, Manifest]:
    out: list[bytes] = []
    manifest = write_backup(store.get(name), out.append, compression, "1.0")
    return b"".join(out), manifest


def pieces(data: bytes, size: int = 70_000) -> Iterator[bytes]:
    for at in range(0, len(data), size):
        yield data[at : at + size]


def restore(store: VolumeStore, name: str, data: bytes, manifest: Manifest) -> None:
    job = Restore(store, name, codec.loads(Manifest, codec.dumps(manifest)))
    try:
        job.receive(pieces(data))
        job.swap()
    finally:
        job.discard()


@pytest.mark.parametrize("compression", ["zstd", "gzip", "none"])
def test_everything_comes_back(store: VolumeStore, producer: str, compression: str) -> None:
    info = store.create(VolumeSpec(name="data", labels={"a": "b"}))
    rich_tree(info.path)
    before = snapshot(info.path)
    data, manifest = backup(store, "data", compression)
    assert manifest.bytes == len(data) and manifest.tar_sha256 == hashlib.sha256(data).hexdigest()
    assert not manifest.warnings and manifest.volume == info.spec
    other = store.create(VolumeSpec(name="other"))
    (other.path / "old").write_text("goes away")
    restore(store, "other", data, manifest)
    assert snapshot(other.path) == before
    assert (other.path / "hole").stat().st_blocks == 0
    assert (other.path / "sparse").stat().st_blocks * 512 < 1 << 20
    assert sorted(os.listdir(info.path.parent.parent)) == ["data", "other"]


def test_plain_tar_reads_it(store: VolumeStore, producer: str, tmp_path: Path) -> None:
    info = store.create(VolumeSpec(name="data"))
    rich_tree(info.path)
    data, _ = backup(store, "data", "none")
    out = tmp_path / "out"
    out.mkdir()
    subprocess.run(
        ["tar", "-x", "-p", "--xattrs", "--xattrs-include=*", "--numeric-owner", "-C", out],
        input=data,
        check=True,
    )
    assert snapshot(out) == snapshot(info.path)
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        assert len(archive.getmembers()) == len(snapshot(out))


def test_both_writers_tell_the_same(store: VolumeStore, monkeypatch: pytest.MonkeyPatch) -> None:
    info = store.create(VolumeSpec(name="data"))
    rich_tree(info.path)
    _, gnu = backup(store, "data")
    monkeypatch.setattr(writer, "gnu_tar", lambda: "")
    _, own = backup(store, "data")

    def seen(manifest: Manifest) -> set[Any]:
        # which name of a file with two comes first is the writer's choice
        return {f for f in manifest.files if f.path not in ("plain", "sub/again")}

    assert seen(gnu) == seen(own)


@pytest.mark.parametrize("damage", ["cut", "flip", "more", "empty", "cut in the middle of a chunk"])
@pytest.mark.parametrize("compression", ["zstd", "gzip", "none"])
def test_damage_leaves_the_old_data(store: VolumeStore, compression: str, damage: str) -> None:
    info = store.create(VolumeSpec(name="data"))
    rich_tree(info.path)
    before = snapshot(info.path)
    data, manifest = backup(store, "data", compression)
    middle = len(data) // 2
    broken = {
        "cut": data[:-1],
        "flip": data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :],
        "more": data + b"x",
        "empty": b"",
        "cut in the middle of a chunk": data[:middle],
    }[damage]
    with pytest.raises(InputError, match="damaged or incomplete"):
        restore(store, "data", broken, manifest)
    assert snapshot(info.path) == before
    assert os.listdir(info.path.parent.parent) == ["data"]


def test_a_tarball_that_is_not_the_manifests(store: VolumeStore) -> None:
    info = store.create(VolumeSpec(name="data"))
    (info.path / "a").write_text("one")
    _, manifest = backup(store, "data", "none")
    (info.path / "a").write_text("two")
    data, other = backup(store, "data", "none")
    forged = replace(manifest, tar_sha256=other.tar_sha256, bytes=other.bytes)
    with pytest.raises(InputError, match="not what the manifest says"):
        restore(store, "data", data, forged)
    with pytest.raises(InputError, match="b is missing"):
        extra = replace(other.files[-1], path="b")
        restore(store, "data", data, replace(other, files=(*other.files, extra)))
    assert (info.path / "a").read_text() == "two"


@pytest.mark.parametrize(
    "entries",
    [
        [("../escape", b"0", "")],
        [("/etc/../../escape", b"0", "")],
        [("link", b"2", "/var/tmp"), ("link/../../escape", b"0", "")],
        [("a", b"0", ""), ("a", b"0", "")],
        [("nowhere/a", b"0", "")],
        [("hard", b"1", "../../../etc/passwd")],
        [("disk", b"4", "")],
    ],
)
def test_hostile_tarballs(store: VolumeStore, tmp_path: Path, entries: list[tuple[str, bytes, str]]) -> None:
    info = store.create(VolumeSpec(name="data"))
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, kind, link in [("./", b"5", ""), *entries]:
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, link
            archive.addfile(member)
    data = out.getvalue()
    _, manifest = backup(store, "data", "none")
    forged = replace(manifest, tar_sha256=hashlib.sha256(data).hexdigest(), bytes=len(data))
    with pytest.raises(InputError):
        restore(store, "data", data, forged)
    assert not list(info.path.iterdir()) and not list(tmp_path.rglob("escape"))


def test_a_link_never_leads_out(store: VolumeStore, tmp_path: Path) -> None:
    """An entry below a link lands inside of the new tree, at worst."""
    outside = tmp_path / "outside"
    outside.mkdir()
    store.create(VolumeSpec(name="data"))
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, kind, link in [("./", b"5", ""), ("link", b"2", str(outside)), ("link/escape", b"0", "")]:
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, link
            archive.addfile(member)
    _, manifest = backup(store, "data", "none")
    with pytest.raises(InputError):
        restore(store, "data", out.getvalue(), manifest)
    assert not list(outside.iterdir())


def test_devices_are_refused_by_name(store: VolumeStore, producer: str) -> None:
    info = store.create(VolumeSpec(name="data"))
    os.mknod(info.path / "disk", stat.S_IFBLK | 0o600, os.makedev(8, 0))
    with pytest.raises(NotSupported, match=r"volume data has the block device 8:0: \./disk"):
        backup(store, "data")


def test_sockets_are_warned_of(store: VolumeStore, producer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    info = store.create(VolumeSpec(name="data"))
    monkeypatch.chdir(info.path)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("s")
        data, manifest = backup(store, "data")
    assert manifest.warnings == ("./s: socket ignored",)
    restore(store, "data", data, manifest)


def test_a_full_disk_leaves_the_old_data(tmp_path: Path) -> None:
    store = VolumeStore(paths_for(tmp_path / "big"))
    info = store.create(VolumeSpec(name="data"))
    (info.path / "random").write_bytes(os.urandom(8 << 20))
    data, manifest = backup(store, "data")
    small = tmp_path / "small"
    small.mkdir()
    mount.mount("tmpfs", str(small), "tmpfs", 0, "size=4m")
    try:
        full = VolumeStore(paths_for(small))
        kept = full.create(VolumeSpec(name="data"))
        (kept.path / "old").write_text("still here")
        with pytest.raises(OutOfSpace):
            restore(full, "data", data, manifest)
        assert (kept.path / "old").read_text() == "still here"
        assert os.listdir(kept.path.parent.parent) == ["data"]
    finally:
        mount.umount(str(small))


def test_first_use_copies_the_image(store: VolumeStore, tmp_path: Path) -> None:
    base, top = tmp_path / "base", tmp_path / "top"
    rich_tree(base / "srv" / "data") if not (base / "srv" / "data").mkdir(parents=True) else None
    (base / "var").mkdir()
    os.symlink("/srv/data", base / "var" / "lib")
    (top / "srv" / "data").mkdir(parents=True)
    os.mknod(top / "srv" / "data" / "plain", stat.S_IFCHR, 0)
    (top / "srv" / "data" / "upper").write_text("from the top")
    os.chmod(top / "srv" / "data", 0o700)
    info = store.create(VolumeSpec(name="data"))
    inode = info.path.stat().st_ino
    store.populate("data", (top, base), "/var/lib")
    assert info.path.stat().st_ino == inode and stat.S_IMODE(info.path.stat().st_mode) == 0o700
    expected = snapshot(base / "srv" / "data")
    seen = snapshot(info.path)
    assert "plain" not in seen and (info.path / "upper").read_text() == "from the top"
    for name in set(expected) - {".", "plain", "sub/again"}:
        assert seen[name] == expected[name], name
    assert "copied" not in os.listdir(info.path.parent)
    (info.path / "sub" / "again").unlink()
    store.populate("data", (top, base), "/var/lib")
    assert not (info.path / "sub" / "again").exists()


def test_first_use_of_one_layer_and_of_none(store: VolumeStore, tmp_path: Path) -> None:
    layer = tmp_path / "layer"
    (layer / "d").mkdir(parents=True)
    (layer / "d" / "x").write_text("x")
    os.link(layer / "d" / "x", layer / "d" / "y")
    (layer / "file").touch()
    info = store.create(VolumeSpec(name="data"))
    for target in ("/nowhere", "/file"):
        store.populate("data", (layer,), target)
    store.populate("data", (), "/d")
    assert not list(info.path.iterdir())
    store.populate("data", (layer,), "/d")
    assert (info.path / "x").samefile(info.path / "y")
    assert store.size("data") == sum(p.stat().st_blocks * 512 for p in (info.path, info.path / "x"))


def test_recover_finishes_and_removes(store: VolumeStore, tmp_path: Path) -> None:
    info = store.create(VolumeSpec(name="data"))
    copied = info.path.parent / "copied"
    copied.mkdir(mode=0o751)
    (copied / "a").write_text("a")
    store.staging()
    store.recover()
    assert os.listdir(info.path) == ["a"] and os.listdir(info.path.parent.parent) == ["data"]
    assert stat.S_IMODE(info.path.stat().st_mode) == 0o751
