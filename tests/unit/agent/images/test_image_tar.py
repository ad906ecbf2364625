"""Reading tars and compressed streams, against tarfile and GNU tar."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest
from tests.support import imagefiles

from hawse_agent.errors import ProtocolError
from hawse_agent.images.compression import plain
from hawse_agent.images.tar import Entry, TarError, TarReader
from hawse_agent.linux import zstd


def read(data: bytes) -> list[tuple[Entry, bytes]]:
    reader = TarReader(io.BytesIO(data))
    return [(entry, b"".join(reader.data())) for entry in reader]


@pytest.mark.parametrize("format", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_fields_and_long_names(format: int) -> None:
    long, target = "d/" * 90 + "ä" * 60, "t" * 300
    data = imagefiles.tar(
        imagefiles.entry(long, b"hello", uid=3_000_000, gid=7, mode=0o4755, mtime=1_700_000_000),
        imagefiles.symlink("link", target),
        imagefiles.entry("dev", None, type=tarfile.CHRTYPE, devmajor=1, devminor=3),
        imagefiles.directory("dir/"),
        format=format,
    )
    (file, content), (link, _), (device, _), (folder, _) = read(data)
    assert (file.name, content, file.uid, file.gid, file.mode) == (long, b"hello", 3_000_000, 7, 0o4755)
    assert (link.kind, link.link) == ("symlink", target)
    assert (device.kind, device.device) == ("character", os.makedev(1, 3))
    assert (folder.kind, folder.name.rstrip("/")) == ("directory", "dir")


def test_pax_times_and_xattrs() -> None:
    info, data = imagefiles.entry("f", b"x")
    info.pax_headers = {"mtime": "1700000000.123456789", "SCHILY.xattr.user.a": "b=c\n"}
    [(entry, _)] = read(imagefiles.tar((info, data)))
    assert entry.mtime_ns == 1_700_000_000_123_456_789
    assert entry.xattrs == {"user.a": b"b=c\n"}


def test_unread_data_is_skipped() -> None:
    data = imagefiles.tar(imagefiles.entry("a", b"x" * 3_000_000), imagefiles.entry("b", b"y"))
    assert [entry.name for entry in TarReader(io.BytesIO(data))] == ["a", "b"]


@pytest.mark.skipif(shutil.which("tar") is None, reason="needs GNU tar")
@pytest.mark.parametrize(
    "options",
    [
        ["--format=gnu", "-S"],
        ["--format=posix", "-S"],
        ["--format=posix", "-S", "--sparse-version=0.0"],
        ["--format=posix", "-S", "--sparse-version=0.1"],
    ],
)
def test_sparse_files(tmp_path: Path, options: list[str]) -> None:
    with (tmp_path / "f").open("wb") as file:
        for number in range(30):
            file.seek(number * 100_000)
            file.write(b"%d" % number * 2000)
        file.truncate(5_000_000)
    command = ["tar", "-c", *options, "-C", str(tmp_path), "f"]
    [(entry, data)] = read(subprocess.run(command, check=True, capture_output=True).stdout)
    assert entry.segments is not None
    whole = bytearray(entry.size)
    at = 0
    for offset, size in entry.segments:
        whole[offset : offset + size] = data[at : at + size]
        at += size
    assert (entry.name, bytes(whole)) == ("f", (tmp_path / "f").read_bytes())


def test_damage_is_told() -> None:
    data = imagefiles.tar(imagefiles.entry("a", b"x" * 2000))
    with pytest.raises(EOFError):
        read(data[:1500])
    with pytest.raises(EOFError):
        read(data[:300])
    with pytest.raises(TarError, match="checksum"):
        read(b"y" + data[1:])
    with pytest.raises(TarError):
        read(os.urandom(2048))


def test_hostile_headers_are_refused() -> None:
    huge = tarfile.TarInfo("x")
    huge.type, huge.size = tarfile.XHDTYPE, 1 << 40
    with pytest.raises(TarError, match="extended header"):
        read(huge.tobuf(tarfile.GNU_FORMAT) + bytes(4096))
    for record in (b"5 a=b\n", b"99 a=b\n", b"-3 a=b\n", b"x a=b\n", b"6 size\n", b"11 size=-5\n"):
        header = tarfile.TarInfo("x")
        header.type, header.size = tarfile.XHDTYPE, len(record)
        block = header.tobuf(tarfile.GNU_FORMAT) + record.ljust(512, b"\0")
        with pytest.raises(TarError):
            read(block + imagefiles.tar(imagefiles.entry("a", b"")))


def compress_zstd(data: bytes) -> bytes:
    out = io.BytesIO()
    with zstd.ZstdWriter(out) as writer:
        writer.write(data)
    return out.getvalue()


PLAIN = os.urandom(200_000) + b"abc" * 300_000
COMPRESSORS = {"gzip": gzip.compress, "bzip2": bz2.compress, "xz": lzma.compress, "zstd": compress_zstd}


@pytest.mark.parametrize("name", COMPRESSORS)
def test_compressed_streams(name: str) -> None:
    if name == "zstd" and not zstd.available():
        pytest.skip("this host has no libzstd")
    data = COMPRESSORS[name](PLAIN)

    def unpack(compressed: bytes, size: int = 1 << 16) -> bytes:
        stream = plain(io.BytesIO(compressed))
        pieces = []
        while piece := stream.read(size):
            assert len(piece) <= size
            pieces.append(piece)
        return b"".join(pieces)

    assert unpack(data) == PLAIN
    assert unpack(data, 1000) == PLAIN
    assert unpack(data + data) == PLAIN + PLAIN, "streams one after another are one"
    if name == "gzip":
        assert unpack(data + bytes(1000)) == PLAIN, "padding after the end"
    for cut in (10, len(data) // 2, len(data) - 1):
        with pytest.raises(ProtocolError):
            unpack(data[:cut])
    with pytest.raises(ProtocolError):
        unpack(data[:5000] + b"damage" + data[5006:])


def test_what_is_not_compressed_stays() -> None:
    for data in (b"", b"a", b"BZ", PLAIN[:1000] + b"x"):
        stream = plain(io.BytesIO(data))
        got = b""
        while piece := stream.read(7):
            got += piece
        assert got == data
