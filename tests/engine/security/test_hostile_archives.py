"""Archives made to get out of the store, to fill or break it: each is refused by name or contained, and
leaves the store as it was."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import json
import lzma
import os
import resource
import shutil
import stat
import tarfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.support import imagefiles, isolation, linux
from tests.support.imagefiles import (
    config,
    descriptor,
    directory,
    docker_archive,
    entry,
    files,
    hardlink,
    manifest,
    oci_archive,
    sha256,
    symlink,
    tar,
)

from hawse_agent.engine.state import State
from hawse_agent.errors import HawseError, InputError, OutOfSpace, ProtocolError
from hawse_agent.images import archive, layers, loading
from hawse_agent.images.store import ImageStore
from hawse_agent.paths import Paths, paths_for

SESSION = isolation.current()
pytestmark = pytest.mark.skipif(SESSION is None, reason="needs a session: python -m tests.support.isolation")
BASE = files({"etc/base": "base"})


@dataclass(frozen=True, kw_only=True)
class Place:
    root: Path
    paths: Paths
    state: State
    store: ImageStore
    outside: Path


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    assert SESSION is not None
    root = SESSION.directory / "hostile-archives"
    outside = root / "outside"
    outside.mkdir(parents=True)
    (outside / "kept").write_text("precious")
    paths = paths_for(root / "agent")
    state = State(paths)
    store = ImageStore(paths, state)
    loading.load(io.BytesIO(docker_archive([(config([sha256(BASE)]), [BASE], ["base:1"])])), store)
    yield Place(root=root, paths=paths, state=state, store=store, outside=outside)
    state.close()
    shutil.rmtree(root)


def snapshot(place: Place) -> tuple[object, ...]:
    """All that there is, but for what is inside layers."""
    return (
        sorted(os.listdir(place.paths.blobs)),
        sorted(os.listdir(place.paths.layers)),
        sorted(os.listdir(place.paths.incoming)),
        sorted(place.state.list_images()),
        sorted(place.state.list_tags()),
        [(path.name, path.stat().st_mode, path.read_bytes()) for path in place.outside.iterdir()],
        sorted(os.listdir(place.root)),
    )


def of_layer(layer: bytes) -> bytes:
    """An archive of an image with that layer on top of a good one."""
    return docker_archive([(config([sha256(BASE), sha256(layer)]), [BASE, layer], ["hostile:1"])])


def header(name: str, *, size: bytes | None = None, letter: bytes = b"0", **fields: bytes) -> bytes:
    """A header block with fields that no writer would write."""
    block = bytearray(tarfile.TarInfo(name).tobuf(tarfile.USTAR_FORMAT))
    block[156:157] = letter
    for at, value in {
        124: size,
        108: fields.get("uid"),
        136: fields.get("mtime"),
        329: fields.get("major"),
    }.items():
        if value is not None:
            block[at : at + len(value)] = value
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def pax(records: Mapping[str, bytes], letter: bytes = b"x") -> bytes:
    data = b""
    for key, value in records.items():
        rest = len(key.encode()) + len(value) + 3
        length = rest + len(str(rest))
        length = rest + len(str(length))
        data += b"%d %b=%b\n" % (length, key.encode(), value)
    return header("pax", size=b"%011o\0" % len(data), letter=letter) + data + bytes(-len(data) % 512)


def base256(number: int, size: int = 12) -> bytes:
    raw = bytearray((number % (1 << 8 * size)).to_bytes(size, "big"))
    raw[0] |= 0x80
    return bytes(raw)


END = bytes(1024)
OUT = "/outside/kept"

ENTRIES: dict[str, tuple[Callable[[Place], bytes], str]] = {
    # A layer that is refused, and what the message must say.
    "climbing": (
        lambda place: tar(entry("../../../outside/kept", b"x")),
        r"leads out of it: '\.\./\.\./\.\.",
    ),
    "climbing within": (lambda place: tar(entry("a/../../b", b"x")), r"leads out of it: 'a/\.\./\.\./b'"),
    "climbing directory": (lambda place: tar(directory("..")), "leads out of it"),
    "hard link out": (lambda place: tar(hardlink("x", "../../../outside/kept")), "leads out of it"),
    "hard link to the host": (lambda place: tar(hardlink("x", str(place.outside / "kept"))), "not in it"),
    "hard link through a link": (
        lambda place: tar(symlink("d", str(place.outside)), hardlink("x", "d/kept")),
        "hard link 'x' to 'd/kept', which is not in it",
    ),
    "hard link to later": (lambda place: tar(hardlink("x", "y"), entry("y", b"")), "hard link 'x' to 'y'"),
    "file as directory": (
        lambda place: tar(entry("a", b""), entry("a/b", b"")),
        "below 'a', which is no dir",
    ),
    "link to itself": (lambda place: tar(symlink("l", "l"), entry("l/x", b"")), "below 'l', which is no dir"),
    "nameless file": (lambda place: tar(entry(".", b"x")), "without a name"),
    "whiteout of nothing": (lambda place: tar(entry(".wh.")), r"invalid whiteout: '\.wh\.'"),
    "whiteout of itself": (lambda place: tar(entry("a/.wh..")), r"invalid whiteout: 'a/\.wh\.\.'"),
    "whiteout of above": (lambda place: tar(entry("a/.wh...")), r"invalid whiteout: 'a/\.wh\.\.\.'"),
    "long component": (lambda place: tar(entry("n" * 300, b"")), "'nnn.* cannot be made: File name too long"),
    "negative size": (lambda place: header("f", size=base256(-512)) + END, "an entry of -512 bytes"),
    "huge size": (lambda place: header("f", size=base256(1 << 60)) + END, "ends too early"),
    "size that is no number": (
        lambda place: header("f", size=b"zzz") + END,
        "not a tar archive, or a damaged",
    ),
    "negative pax size": (lambda place: pax({"size": b"-1"}) + header("f") + END, "a negative number"),
    "pax size of many digits": (lambda place: pax({"size": b"9" * 9000}) + header("f") + END, "not a number"),
    "owner out of range": (
        lambda place: header("f", uid=base256(1 << 40, 8)) + END,
        "entry 'f' has a number",
    ),
    "negative owner": (lambda place: header("f", uid=base256(-5, 8)) + END, "entry 'f' has a number"),
    "time out of range": (
        lambda place: pax({"mtime": b"9" * 30}) + header("f") + END,
        "entry 'f' has a number",
    ),
    "time that is none": (lambda place: pax({"mtime": b"noon"}) + header("f") + END, "not a time"),
    "device out of range": (
        lambda place: header("d", letter=b"3", major=base256(1 << 50, 8)) + END,
        "a device of no number, 1125899906842624:0: 'd'",
    ),
    "NUL in a name": (lambda place: pax({"path": b"a\0b"}) + header("f") + END, "NUL in its name"),
    "NUL in a link": (lambda place: pax({"linkpath": b"a\0b"}) + header("f", letter=b"2") + END, "'f' has a"),
    "empty link": (lambda place: header("f", letter=b"2") + END, "entry 'f' cannot be made"),
    "capability that is none": (
        lambda place: pax({"SCHILY.xattr.security.capability": b"x"}) + header("f") + END,
        "entry 'f' cannot be made: Invalid argument",
    ),
    "huge attribute": (
        lambda place: pax({"SCHILY.xattr.user.x": b"x" * 70_000}) + header("f") + END,
        "entry 'f' cannot be made",
    ),
    "huge sparse file": (
        lambda place: (
            pax({"GNU.sparse.size": b"%d" % (1 << 62), "GNU.sparse.map": b"0,0"}) + header("f") + END
        ),
        "entry 'f' cannot be made: File too large",
    ),
    "sparse parts beyond the end": (
        lambda place: pax({"GNU.sparse.size": b"10", "GNU.sparse.map": b"0,20"}) + header("f") + END,
        "damaged map",
    ),
    "overlapping past the data": (
        lambda place: pax({"GNU.sparse.size": b"1000", "GNU.sparse.map": b"0,5,0,5"}) + header("f") + END,
        "damaged map",
    ),
    "map of many parts": (
        lambda place: (
            pax({"GNU.sparse.major": b"1", "GNU.sparse.realsize": b"5"})
            + header("f", size=b"%011o\0" % (1 << 30))
            + b"99999999\n".ljust(512, b"1")
        ),
        "damaged map of a sparse file, or one of more than",
    ),
    "map without lines": (
        lambda place: (
            pax({"GNU.sparse.major": b"1", "GNU.sparse.realsize": b"5"})
            + header("f", size=b"%011o\0" % (1 << 20))
            + b"1" * (1 << 20)
        ),
        "damaged map",
    ),
    "pax bomb": (
        lambda place: b"".join(pax({f"k{n}": b"v" * 500_000}) for n in range(3)) + header("f") + END,
        "extended headers of 1[0-9]+ bytes",
    ),
    "global pax bomb": (
        lambda place: b"".join(pax({f"k{n}": b"v" * 500_000}, b"g") for n in range(3)) + header("f") + END,
        "extended headers of 1[0-9]+ bytes",
    ),
    "long name bomb": (
        lambda place: header("n", size=b"%011o\0" % (1 << 30), letter=b"L") + bytes(512),
        "extended headers of 1073741824 bytes",
    ),
    "pax record without end": (
        lambda place: header("p", size=b"%011o\0" % 10, letter=b"x") + b"999 a=b\n".ljust(512, b"\0") + END,
        "damaged pax header",
    ),
    "truncated": (lambda place: tar(entry("f", b"x" * 5000))[:2000], "ends too early"),
    "rubbish": (lambda place: tar(entry("f", b"x"))[:1024] + b"rubbish" * 200, "not a tar archive"),
    "cut gzip": (lambda place: gzip.compress(tar(entry("f", os.urandom(5000))))[:-2000], "ends too early"),
}


@pytest.mark.parametrize("name", ENTRIES)
def test_a_hostile_layer_is_refused_by_name(place: Place, name: str) -> None:
    make, message = ENTRIES[name]
    before = snapshot(place)
    layer = make(place)
    plain_digest = sha256(layer)
    data = docker_archive([(config([sha256(BASE), plain_digest]), [BASE, layer], ["hostile:1"])])
    with pytest.raises((InputError, ProtocolError), match=message):
        loading.load(io.BytesIO(data), place.store)
    assert snapshot(place) == before


def test_what_is_contained(place: Place) -> None:
    """Absolute names, links out and then through, devices, attributes of overlayfs, names twice."""
    before = snapshot(place)
    out = str(place.outside)
    info, data = entry("redirect", b"x")
    info.pax_headers = {
        "SCHILY.xattr.trusted.overlay.opaque": "y",
        "SCHILY.xattr.trusted.overlay.redirect": "/etc",
        "SCHILY.xattr.trusted.overlay.metacopy": "",
        "SCHILY.xattr.user.overlay.whiteout": "y",
    }
    layer = tar(
        entry(f"{out}/planted", b"x"),
        symlink("through", out),
        entry("through/kept", b"overwritten"),
        symlink("up", "../" * 40 + out.lstrip("/")),
        entry("up/kept", b"overwritten"),
        directory("up", mode=0o777),
        symlink("chmod", f"{out}/kept"),
        entry("chmod", b"", mode=0o777),
        symlink("a", "b"),
        symlink("b", out),
        entry("a/.wh.kept"),
        entry("through/.wh..wh..opq"),
        entry("dev/sda", None, type=tarfile.BLKTYPE, devmajor=8, devminor=0, mode=0o666),
        entry("dev/mem", None, type=tarfile.CHRTYPE, devmajor=1, devminor=1, mode=0o666),
        entry("zero", None, type=tarfile.CHRTYPE, mode=0o666),
        *(entry(f"fifo{number}", None, type=tarfile.FIFOTYPE) for number in range(200)),
        entry("twice", b"1"),
        entry("twice", b"2"),
        directory("twice"),
        entry("twice/in", b"3"),
        (info, data),
        entry("setuid", b"x", mode=0o6777),
        entry("\r\x1b[2J", b""),
        entry("proc/self/fd/1", b"x"),
        symlink("etc", "/proc/self/root/etc"),
        entry("later/.wh..wh.orph/x", b""),
        entry(".wh..wh.aufs", b""),
    )
    [image] = loading.load(io.BytesIO(of_layer(layer)), place.store)
    assert snapshot(place)[5:] == before[5:]
    top = place.store.layer_dirs(image)[0]
    assert (top / out.lstrip("/") / "planted").read_text() == "x"
    assert (top / "twice/in").read_text() == "3"
    assert not os.listxattr(top / "redirect")
    assert stat.S_ISBLK((top / "dev/sda").stat().st_mode)
    assert not [path for path in top.rglob("*") if path.name.startswith(".wh.") and not path.is_dir()]
    for path in (place.paths.layers, *place.paths.layers.parents):
        if path == place.paths.lib:
            assert stat.S_IMODE(path.stat().st_mode) == 0o700, (
                "nobody else of the host comes to devices, setuid"
            )
    place.store.remove("hostile:1", in_use=lambda image_id: [])
    assert snapshot(place) == before


def _members() -> dict[str, tuple[bytes, str]]:
    """Archives whose outside is hostile, and what the message must say."""
    layer = files({"own": "layer"})
    good = config([sha256(layer)])

    def archive_of(manifest_json: object, *entries: Any) -> bytes:
        text = manifest_json if isinstance(manifest_json, bytes) else json.dumps(manifest_json).encode()
        return tar(*entries, entry("manifest.json", text))

    def described(**fields: Any) -> list[dict[str, Any]]:
        return [{"Config": "c.json", "RepoTags": ["hostile:1"], "Layers": ["l.tar"], **fields}]

    both = (entry("c.json", good), entry("l.tar", layer))
    deep = b"[" * 200_000 + b"]" * 200_000
    image = manifest(good, [layer])
    index = json.dumps({"schemaVersion": 2, "manifests": [descriptor(image, imagefiles.MANIFEST)]}).encode()
    for _ in range(4):
        index, inner = (
            json.dumps({"schemaVersion": 2, "manifests": [descriptor(index, imagefiles.INDEX)]}).encode(),
            index,
        )
    other = files({"x": "other"})
    return {
        "nothing": (b"", "neither manifest.json nor"),
        "no tar": (b"x" * 5000, "no whole archive of images"),
        "cut": (docker_archive([(good, [layer], ["a"])])[:3000], "no whole archive of images: .*too early"),
        "empty tar": (END, "neither manifest.json nor index.json"),
        "manifest is no JSON": (archive_of(b"{", *both), "manifest.json is not JSON"),
        "manifest is deep": (archive_of(deep, *both), "manifest.json is (nested too deeply|not JSON)"),
        "config is deep": (archive_of(described(), entry("c.json", b'{"a":' * 100_000), both[1]), "c.json"),
        "manifest is huge": (archive_of(b" " * (5 << 20), *both), "larger than any manifest"),
        "manifest of another kind": (archive_of({"a": 1}, *both), "names no image"),
        "manifest of numbers": (archive_of([1, 2], *both), "manifest.json is damaged"),
        "layers of another kind": (archive_of(described(Layers={"a": 1}), *both), "Layers and RepoTags"),
        "names of another kind": (archive_of(described(RepoTags=[1]), *both), "Layers and RepoTags"),
        "names that are none": (archive_of(described(RepoTags=["../../x:y:z"]), *both), "invalid reference"),
        "layer is missing": (archive_of(described(Layers=["m.tar"]), *both), "m.tar is missing"),
        "config is missing": (archive_of(described(Config="m.json"), *both), "m.json is missing"),
        "config leads out": (archive_of(described(Config="/etc/passwd"), *both), "missing in the archive"),
        "links in a circle": (
            archive_of(described(Layers=["a"]), *both, symlink("a", "b"), symlink("b", "a")),
            "a is missing|b is missing",
        ),
        "link out": (archive_of(described(Layers=["a"]), *both, symlink("a", "/etc/passwd")), "is missing"),
        "more layers than diff_ids": (archive_of(described(Layers=["l.tar"] * 3), *both), "has 1 layers"),
        "another layer": (
            archive_of(described(), entry("c.json", config([sha256(other)])), entry("l.tar", layer)),
            "is damaged: it holds sha256:",
        ),
        "diff_id that leads out": (
            archive_of(described(), entry("c.json", config(["sha256:../../../../outside"])), both[1]),
            "not a digest",
        ),
        "config is an array": (archive_of(described(), entry("c.json", b"[]"), both[1]), "not a JSON object"),
        "for Windows": (
            archive_of(described(), entry("c.json", good.replace(b'"linux"', b'"windows"')), both[1]),
            "for windows, not for Linux",
        ),
        "sparse layer": (
            pax({"GNU.sparse.size": b"10", "GNU.sparse.map": b"0,0"})
            + header("l.tar")
            + archive_of(described(), both[0]),
            "is a sparse file",
        ),
        "index in index in index": (
            oci_archive([descriptor(index, imagefiles.INDEX)], [index, inner, image, good, layer]),
            "index in an index|no such blob",
        ),
        "index of nothing": (oci_archive([], []), "no image for linux"),
        "index of another kind": (
            tar(entry("index.json", b'{"manifests": {"a": 1}}')),
            "manifests is no list|no image for",
        ),
        "wrong digest": (
            tar(
                entry(f"blobs/sha256/{'0' * 64}", good),
                entry("index.json", json.dumps({"manifests": []}).encode()),
            ),
            f"blob sha256:{'0' * 64} is damaged",
        ),
        "blob that leads out": (
            tar(entry("blobs/sha256/../../../outside/kept", b"x"), entry("index.json", b"{}")),
            "no image for|not a digest",
        ),
        "missing blob": (
            oci_archive([descriptor(image, imagefiles.MANIFEST)], [image, good]),
            "cannot be made: blob sha256:",
        ),
    }


MEMBERS = _members()


@pytest.mark.parametrize("name", MEMBERS)
def test_a_hostile_archive_is_refused_by_name(place: Place, name: str) -> None:
    data, message = MEMBERS[name]
    before = snapshot(place)
    with pytest.raises(HawseError, match=message):
        loading.load(io.BytesIO(data), place.store)
    assert snapshot(place) == before


def test_many_files(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "_MAX_FILES", 50)
    before = snapshot(place)
    data = tar(*(entry(f"f{number}", b"") for number in range(60)))
    with pytest.raises(InputError, match="more than 50 files"):
        loading.load(io.BytesIO(data), place.store)
    assert snapshot(place) == before


@pytest.mark.parametrize("kind", ["gzip", "bzip2", "xz"])
def test_a_decompression_bomb_does_not_fill_the_disk(place: Place, kind: str) -> None:
    """80 MB of one letter in a few kilobytes, on a disk of 24 MB: refused before it is full."""
    small = place.root / "small"
    small.mkdir()
    linux.mount("tmpfs", small, "tmpfs", 0, "size=24m,mode=755")
    try:
        paths = paths_for(small)
        state = State(paths)
        store = ImageStore(paths, state)
        compress = {"gzip": gzip.compress, "bzip2": bz2.compress, "xz": lzma.compress}[kind]
        bomb = compress(header("letters", size=b"%011o\0" % (80 << 20)) + b"x" * (80 << 20) + END)
        assert len(bomb) < 1 << 20
        data = docker_archive([(config([sha256(b"")]), [bomb], ["bomb"])])
        with pytest.raises(OutOfSpace):
            loading.load(io.BytesIO(data), store)
        with pytest.raises(OutOfSpace):
            archive.import_tarball(io.BytesIO(bomb), store, "bomb")
        assert not os.listdir(paths.layers) and not os.listdir(paths.incoming) and not os.listdir(paths.blobs)
        state.close()
    finally:
        linux.umount(small, linux.MNT_DETACH)
        small.rmdir()


def test_room_is_looked_at_in_the_middle(place: Place) -> None:
    full = place.root / "full"
    full.mkdir()
    linux.mount("tmpfs", full, "tmpfs", 0, "size=4m,nr_inodes=5000,mode=755")
    fd = os.open(full, os.O_RDONLY)
    try:
        room = layers.Room(fd)
        (full / "x").write_bytes(bytes((4 << 20) - 65536))
        room.check(1000)
        with pytest.raises(OutOfSpace, match="fit on the disk: after 2 MB and 2 entries 0 MB are left"):
            room.check(2 << 20)
        (full / "x").unlink()
        for number in range(4950):
            (full / f"{number}").touch()
        with pytest.raises(OutOfSpace):
            layers.Room(fd).check(2 << 20)
    finally:
        os.close(fd)
        linux.umount(full, linux.MNT_DETACH)
        full.rmdir()


def test_memory_does_not_grow_with_what_is_hostile(place: Place) -> None:
    """A map of a sparse file, headers and a manifest as large as they may be."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for name in ("map of many parts", "map without lines", "pax bomb", "global pax bomb", "long name bomb"):
        test_a_hostile_layer_is_refused_by_name(place, name)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak < 60_000


@pytest.mark.soak
def test_a_million_entries(place: Place) -> None:
    """Loaded, in bounded memory, and removed again."""
    before = snapshot(place)
    path = place.root / "million.tar"
    digest = hashlib.sha256()
    with gzip.open(path, "wb", compresslevel=1) as out:
        for number in range(1_000_000):
            block = header(f"d{number // 1000}/f{number}")
            digest.update(block)
            out.write(block)
        digest.update(END)
        out.write(END)
    blob = path.read_bytes()
    path.unlink()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    data = docker_archive([(config([f"sha256:{digest.hexdigest()}"]), [blob], ["hostile:1"])])
    loading.load(io.BytesIO(data), place.store)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak < 100_000
    place.store.remove("hostile:1", in_use=lambda image_id: [])
    assert snapshot(place) == before
