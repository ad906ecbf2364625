"""Layers in the real kernel, and images to and from tools that we did not write: skopeo, umoci, GNU tar, a
registry."""

from __future__ import annotations

import gzip
import io
import json
import os
import shutil
import stat
import subprocess
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.support import busybox, imagefiles, isolation, linux
from tests.support.imagefiles import config, directory, entry, files, hardlink, manifest, put, sha256, symlink
from tests.support.registries import DebianRegistry

from hawse_agent.distribution import reference
from hawse_agent.distribution.registry import Client
from hawse_agent.distribution.settings import RegistrySettings
from hawse_agent.engine.state import State
from hawse_agent.errors import HawseError, InputError, NotFound, OutOfSpace
from hawse_agent.images import archive, layers, loading
from hawse_agent.images.pull import Pulls
from hawse_agent.images.store import Image, ImageStore
from hawse_agent.linux import zstd
from hawse_agent.paths import Paths, paths_for

CLIENT = Client(RegistrySettings(), {})
SESSION = isolation.current()
pytestmark = pytest.mark.skipif(SESSION is None, reason="needs a session: python -m tests.support.isolation")


def needs(program: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(shutil.which(program) is None, reason=f"needs {program}")


@dataclass(frozen=True, kw_only=True)
class Place:
    root: Path
    paths: Paths
    store: ImageStore


@pytest.fixture
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    """A store on a real file system: overlayfs does not stack on every other."""
    assert SESSION is not None
    root = SESSION.directory / request.node.name.replace("/", "-")
    root.mkdir()
    paths = paths_for(root / "agent")
    state = State(paths)
    yield Place(root=root, paths=paths, store=ImageStore(paths, state))
    state.close()
    shutil.rmtree(root)


def commit(store: ImageStore, *tars: bytes, name: str = "") -> Image:
    configuration = config([sha256(data) for data in tars])
    document = manifest(configuration, tars)
    put(store, *tars, configuration, document)
    return store.commit_manifest(sha256(document), [name] if name else [])


def unpack(place: Place, data: bytes) -> Path:
    target = Path(os.path.join(place.root, f"layer-{len(os.listdir(place.root))}"))
    target.mkdir()
    assert layers.unpack(io.BytesIO(data), target).diff_id == sha256(data)
    return target


@pytest.fixture
def overlay(place: Place) -> Iterator[Path]:
    """Where images are mounted."""
    target = place.root / "merged"
    target.mkdir()
    yield target
    linux.umount(target, linux.MNT_DETACH)


def mount(place: Place, image: Image, target: Path) -> None:
    for name in ("upper", "work"):
        (place.root / name).mkdir()
    lower = ":".join(str(path) for path in place.store.layer_dirs(image))
    options = f"lowerdir={lower},upperdir={place.root}/upper,workdir={place.root}/work,index=off"
    linux.mount("overlay", target, "overlay", 0, options)


# -- what a layer is made of ---------------------------------------------------------------------


def test_owners_modes_devices_times_and_xattrs(place: Place) -> None:
    capability = bytes.fromhex("0100000200040000000000000000000000000000")
    info, data = entry("bin/ping", b"elf", mode=0o4755, uid=1000, gid=2000)
    info.pax_headers = {
        f"SCHILY.xattr.{name}": value.decode("utf-8", "surrogateescape")
        for name, value in {
            "security.capability": capability,
            "user.note": b"kept",
            "trusted.overlay.redirect": b"/etc",
            "trusted.overlay.opaque": b"y",
            "user.overlay.opaque": b"y",
        }.items()
    }
    layer = unpack(
        place,
        imagefiles.tar(
            directory("bin", uid=5, gid=6, mode=0o1777, mtime=1_000_000_000),
            (info, data),
            entry("dev/null", None, type=tarfile.CHRTYPE, devmajor=1, devminor=3, mode=0o666),
            entry("dev/sda", None, type=tarfile.BLKTYPE, devmajor=8, devminor=0, mode=0o640, gid=6),
            entry("run/fifo", None, type=tarfile.FIFOTYPE, mode=0o620, uid=9),
            symlink("sbin", "bin"),
            hardlink("usr/ping", "bin/ping"),
        ),
    )
    ping = (layer / "bin/ping").stat()
    assert (stat.S_IMODE(ping.st_mode), ping.st_uid, ping.st_gid) == (0o4755, 1000, 2000)
    assert (ping.st_mtime, ping.st_nlink) == (1_700_000_000, 2)
    assert os.getxattr(layer / "bin/ping", "security.capability") == capability
    assert set(os.listxattr(layer / "bin/ping")) == {"security.capability", "user.note"}
    folder = (layer / "bin").stat()
    assert (stat.S_IMODE(folder.st_mode), folder.st_uid, folder.st_mtime) == (0o1777, 5, 1_000_000_000)
    null, disk, fifo = ((layer / name).stat() for name in ("dev/null", "dev/sda", "run/fifo"))
    assert (stat.S_ISCHR(null.st_mode), null.st_rdev) == (True, os.makedev(1, 3))
    assert stat.S_IMODE(null.st_mode) == 0o666
    assert (stat.S_ISBLK(disk.st_mode), disk.st_rdev, disk.st_gid) == (True, os.makedev(8, 0), 6)
    assert (stat.S_ISFIFO(fifo.st_mode), stat.S_IMODE(fifo.st_mode), fifo.st_uid) == (True, 0o620, 9)
    assert stat.S_IMODE((layer / "dev").stat().st_mode) == 0o755, "a parent that the tar does not have"


@needs("tar")
@pytest.mark.parametrize("options", [["--format=posix", "--xattrs", "--acls"], ["--format=gnu", "-S"]])
def test_a_tree_comes_out_as_gnu_tar_has_it(place: Place, options: list[str]) -> None:
    tree = place.root / "tree"
    busybox.make_layer(tree)
    (tree / "a" / ("n" * 120)).mkdir(parents=True)
    (tree / "a" / ("n" * 120) / ("m" * 150)).write_text("long")
    (tree / "ünïcode\udcff").write_text("name")
    with (tree / "sparse").open("wb") as file:
        file.seek(5_000_000)
        file.write(b"end")
        file.truncate(9_000_000)
    os.link(tree / "sparse", tree / "linked")
    os.chown(tree / "home/bob", 1000, 1000)
    os.setxattr(tree / "etc/passwd", "user.x", b"1")
    data = subprocess.run(
        ["tar", "-c", *options, "-C", str(tree), "."], check=True, capture_output=True
    ).stdout
    layer = unpack(place, data)
    theirs = place.root / "theirs"
    theirs.mkdir()
    subprocess.run(
        ["tar", "-xp", *options[1:], "--xattrs-include=*", "--numeric-owner", "-C", str(theirs)],
        input=data,
        check=True,
    )
    assert listing(layer) == listing(theirs)
    if "-S" in options:
        assert (layer / "sparse").stat().st_blocks < 100, "holes stay holes"
    subprocess.run(["diff", "-r", "--no-dereference", str(layer), str(theirs)], check=True)


def listing(root: Path) -> list[tuple[object, ...]]:
    found = []
    for path in sorted([root, *root.rglob("*")]):
        status = path.lstat()
        found.append(
            (
                os.fsencode(path.relative_to(root)),
                status.st_mode,
                status.st_uid,
                status.st_gid,
                status.st_nlink,
                status.st_mtime_ns,
                status.st_size if path.is_file() else 0,
                os.readlink(path) if path.is_symlink() else "",
                sorted(os.listxattr(path, follow_symlinks=False)),
            )
        )
    return found


# -- whiteouts -----------------------------------------------------------------------------------


def test_whiteouts_hide_what_lies_below(place: Place, overlay: Path) -> None:
    below = files(
        {"gone": "", "stays": "", "dir/a": "", "dir/b": "", "swap/old": "", "late/old": "", "f/x": ""}
    )
    above = imagefiles.tar(
        entry(".wh.gone"),
        directory("dir"),
        entry("dir/new"),
        entry("dir/.wh..wh..opq"),
        entry(".wh.swap"),
        directory("swap"),
        entry("swap/new"),
        directory("late"),
        entry("late/new"),
        entry(".wh.late"),
        entry(".wh.f"),
        entry("f", b"now a file"),
        entry(".wh..wh.plnk"),
        entry(".wh.never-there"),
    )
    mount(place, commit(place.store, below, above), overlay)
    assert sorted(str(path.relative_to(overlay)) for path in overlay.rglob("*")) == [
        "dir", "dir/new", "f", "late", "late/new", "stays", "swap", "swap/new",
    ]  # fmt: skip
    assert (overlay / "f").read_text() == "now a file"


def test_a_layer_that_repeats_still_mounts(place: Place, overlay: Path) -> None:
    one, two = files({"a": "1"}), files({"a": "2"})
    mount(place, commit(place.store, one, two, one), overlay)
    assert (overlay / "a").read_text() == "1"


# -- attacks -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "entries",
    [
        [entry("../escaped", b"x")],
        [entry("a/../../escaped", b"x")],
        [hardlink("passwd", "../../../../etc/passwd")],
        [hardlink("passwd", "/etc/passwd")],
        [symlink("d", "/etc"), hardlink("passwd", "d/passwd")],
        [entry(".wh..", b"")],
        [entry("a", b""), entry("a/b", b"")],
        [symlink("loop", "loop"), entry("loop/x", b"")],
    ],
)
def test_entries_that_lead_out_are_refused(
    place: Place, entries: Sequence[tuple[tarfile.TarInfo, bytes]]
) -> None:
    data = imagefiles.tar(*entries)
    with pytest.raises(InputError):
        commit(place.store, data)
    assert os.listdir(place.paths.incoming) == os.listdir(place.paths.layers) == []
    assert not list(place.root.rglob("escaped"))


def test_links_are_followed_inside_the_layer_only(place: Place) -> None:
    outside = place.root / "outside"
    outside.mkdir()
    (outside / "kept").write_text("precious")
    ups = "../" * 12
    layer = unpack(
        place,
        imagefiles.tar(
            symlink("absolute", str(outside)),
            entry("absolute/planted", b"x"),
            symlink("relative", f"{ups}{outside}"),
            entry("relative/kept", b"overwritten"),
            symlink("file", f"{outside}/kept"),
            entry("file", b"replaces the link"),
            symlink("mode", f"{outside}/kept"),
            symlink("dir", str(outside)),
            directory("dir", mode=0o777),
            entry("dir/.wh.kept"),
            entry("/slash", b"x"),
            symlink("root", "/"),
            entry("root/in-root", b"x"),
        ),
    )
    assert os.listdir(outside) == ["kept"]
    assert (outside / "kept").read_text() == "precious"
    assert stat.S_IMODE(outside.stat().st_mode) == 0o755
    assert (layer / str(outside).lstrip("/") / "planted").read_text() == "x"
    assert not (layer / "file").is_symlink() and (layer / "file").read_text() == "replaces the link"
    assert not (layer / "dir").is_symlink()
    assert (layer / "slash").exists() and (layer / "in-root").exists()


def test_later_entries_replace_earlier_ones(place: Place) -> None:
    layer = unpack(
        place,
        imagefiles.tar(
            directory("a"),
            entry("a/b", b"x"),
            entry("a", b"a file now"),
            entry("f", b"1"),
            hardlink("g", "f"),
            entry("f", b"2"),
            symlink("l", "f"),
            directory("l"),
            entry("l/x", b"x"),
            hardlink("f", "f"),
        ),
    )
    assert (layer / "a").read_text() == "a file now"
    assert ((layer / "f").read_text(), (layer / "g").read_text()) == ("2", "1")
    assert (layer / "l/x").read_text() == "x"


# -- a full disk ---------------------------------------------------------------------------------


def test_full_disk_loses_nothing(place: Place) -> None:
    small = place.root / "small"
    small.mkdir()
    linux.mount("tmpfs", small, "tmpfs", 0, "size=8m,mode=755")
    paths = paths_for(small)
    try:
        state = State(paths)
        store = ImageStore(paths, state)
        kept = commit(store, files({"a": "kept"}), name="kept")
        big = files({f"f{number}": os.urandom(250_000).hex() for number in range(12)})
        compressed = io.BytesIO()
        with zstd.ZstdWriter(compressed) as writer:
            writer.write(big)
        with pytest.raises(OutOfSpace, match="disk is full"):
            archive.import_tarball(io.BytesIO(compressed.getvalue()), store, "big")
        with pytest.raises(OutOfSpace), store.blob_writer() as blob:
            for _ in range(100):
                blob.write(os.urandom(100_000))
        assert os.listdir(paths.incoming) == []
        assert len(os.listdir(paths.layers)) == 1 and len(os.listdir(paths.blobs)) == 3
        assert [image.id for image in store.list()] == [kept.id]
        store.remove("kept", in_use=lambda image_id: [])
        state.close()
    finally:
        linux.umount(small)


# -- other tools ---------------------------------------------------------------------------------


@pytest.fixture
def oci(place: Place) -> Path:
    """An image layout that umoci made: two layers, the second one deletes, changes and adds."""
    layout, bundle = place.root / "oci", place.root / "bundle"
    umoci("init", "--layout", layout)
    umoci("new", "--image", f"{layout}:one")
    umoci("unpack", "--image", f"{layout}:one", bundle)
    busybox.make_layer(bundle / "rootfs")
    os.chown(bundle / "rootfs/home/bob", 1000, 1000)
    umoci("repack", "--image", f"{layout}:one", bundle)
    (bundle / "rootfs/bin/vi").unlink()
    (bundle / "rootfs/etc/group").write_text("changed")
    (bundle / "rootfs/srv").mkdir()
    shutil.rmtree(bundle / "rootfs/root")
    umoci("repack", "--image", f"{layout}:one", "--refresh-bundle", bundle)
    umoci("config", "--image", f"{layout}:one", "--config.cmd", "sh", "--config.env", "A=1")
    return layout


def umoci(command: str, *args: object) -> None:
    subprocess.run(["umoci", command, *map(str, args)], check=True, capture_output=True)


def skopeo(*args: object) -> bytes:
    return subprocess.run(["skopeo", *map(str, args)], check=True, capture_output=True, timeout=60).stdout


def check_rootfs(place: Place, image: Image, overlay: Path, bundle: Path) -> None:
    """What overlayfs shows is what umoci unpacked."""
    mount(place, image, overlay)
    subprocess.run(["diff", "-r", "--no-dereference", str(overlay), str(bundle / "rootfs")], check=True)
    assert (overlay / "home/bob").stat().st_uid == 1000
    assert not (overlay / "bin/vi").is_symlink() and not (overlay / "root").exists()
    assert (image.config.cmd, image.config.env[-1]) == (("sh",), "A=1")


@needs("skopeo")
@needs("umoci")
@pytest.mark.parametrize("kind", ["docker-archive", "oci-archive", "oci-zstd"])
def test_load_what_skopeo_made(place: Place, oci: Path, overlay: Path, kind: str) -> None:
    target = place.root / "image.tar"
    more = ["--dest-compress-format", "zstd"] if kind == "oci-zstd" else []
    kind = kind.replace("oci-zstd", "oci-archive")
    skopeo("copy", *more, f"oci:{oci}:one", f"{kind}:{target}:team/app:1")
    with target.open("rb") as stream:
        assert [loading.told(image) for image in loading.load(stream, place.store)] == [
            "Loaded image: team/app:1"
        ]
    image = place.store.get("team/app:1")
    check_rootfs(place, image, overlay, place.root / "bundle")


@needs("skopeo")
@needs("umoci")
@pytest.mark.parametrize("kind", ["docker-archive", "oci-archive"])
def test_skopeo_and_umoci_read_what_we_save(place: Place, oci: Path, kind: str) -> None:
    with (place.root / "in.tar").open("wb+") as file:
        skopeo("copy", f"oci:{oci}:one", f"docker-archive:{file.name}:app:1")
        loading.load(file, place.store)
    saved = place.root / "saved.tar"
    saved.write_bytes(b"".join(archive.save(place.store, ["app:1"])))
    name = ":app:1" if kind == "docker-archive" else ":1"
    seen = json.loads(skopeo("inspect", "--config", f"{kind}:{saved}{name}"))
    assert seen == json.loads(place.store.get("app:1").raw)
    again = place.root / "again"
    skopeo("copy", f"{kind}:{saved}{name}", f"oci:{again}:x")
    umoci("unpack", "--image", f"{again}:x", place.root / "rebundle")
    subprocess.run(
        ["diff", "-r", "--no-dereference", place.root / "rebundle/rootfs", place.root / "bundle/rootfs"],
        check=True,
    )


@pytest.fixture
def docker_registry(place: Place) -> Iterator[str]:
    """Debian's docker-registry on loopback; gives host:port."""
    with DebianRegistry(place.root / "registry") as registry:
        yield registry.address


@needs("skopeo")
@needs("umoci")
@needs("docker-registry")
@pytest.mark.parametrize("format", ["oci", "v2s2"])
def test_pull_from_a_real_registry(
    place: Place, oci: Path, overlay: Path, docker_registry: str, format: str
) -> None:
    name = f"{docker_registry}/team/app:1"
    skopeo("copy", "--format", format, "--dest-tls-verify=false", f"oci:{oci}:one", f"docker://{name}")
    events: list[dict[str, object]] = []
    image = Pulls(CLIENT, place.store).pull(reference.parse(name), events.append)
    digest = skopeo("inspect", "--tls-verify=false", "--format", "{{.Digest}}", f"docker://{name}").decode()
    assert image.repo_digests == (f"{docker_registry}/team/app@{digest.strip()}",)
    assert events[-1]["status"] == f"Status: Downloaded newer image for {name}"
    check_rootfs(place, image, overlay, place.root / "bundle")
    with pytest.raises(NotFound, match="manifest unknown"):
        Pulls(CLIENT, place.store).pull(reference.parse(f"{docker_registry}/team/app:2"), events.append)
    with pytest.raises(HawseError):
        Pulls(CLIENT, place.store).pull(reference.parse(f"{docker_registry}/nothing"), events.append)


# -- speed ---------------------------------------------------------------------------------------


def test_ten_thousand_files_unpack(place: Place) -> None:
    names = [f"usr/d{number // 50}/f{number}" for number in range(10_000)]
    data = imagefiles.tar(*(entry(name, name.encode() * 200) for name in names), format=tarfile.GNU_FORMAT)
    archive.import_tarball(io.BytesIO(gzip.compress(data, 1)), place.store, "many")
    (top,) = place.store.layer_dirs(place.store.get("many"))
    assert sum(1 for path in top.rglob("f*") if path.is_file()) == 10_000
