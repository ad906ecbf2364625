"""One of everything that a layer can hold, to other tools and back: nothing is lost on the way."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.support import isolation
from tests.support.agent import BUSYBOX, AgentUnderTest
from tests.support.dockerd import Dockerd
from tests.support.imagefiles import config, docker_archive, entry, files, sha256, symlink, tar
from tests.support.trees import is_whiteout, listing, make_one_of_everything

from hawse_agent.engine.state import State
from hawse_agent.images import archive, loading
from hawse_agent.images.store import Image, ImageStore
from hawse_agent.linux import zstd
from hawse_agent.paths import Paths, paths_for

SESSION = isolation.current()
pytestmark = pytest.mark.skipif(SESSION is None, reason="needs a session: python -m tests.support.isolation")
BASE = files({"gone": "1", "bin/gone-too": "2", "opaque/old": "3", "kept": "4"})


def needs(*programs: str) -> pytest.MarkDecorator:
    missing = [name for name in programs if shutil.which(name) is None]
    return pytest.mark.skipif(bool(missing), reason=f"needs {', '.join(missing)}")


@dataclass(frozen=True, kw_only=True)
class Place:
    root: Path
    paths: Paths
    store: ImageStore
    upper: Path
    image: Image


@pytest.fixture
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    """An image of two layers, the upper one with one of everything."""
    assert SESSION is not None
    root = SESSION.directory / "round-trips"
    upper = root / "upper"
    root.mkdir()
    make_one_of_everything(upper)
    paths = paths_for(root / "agent")
    state = State(paths)
    store = ImageStore(paths, state)
    loading.load(io.BytesIO(docker_archive([(config([sha256(BASE)]), [BASE], ["base"])])), store)
    with store.hold() as hold:
        layer = store.add_layer(upper, hold)
        base = store.get("base").layers[0]
        document = config([base.diff_id, layer.diff_id], Cmd=["sh"], Env=["A=1"])
        image = store.create(document, [base.blob, layer.blob], ["team/app:1"])
    yield Place(root=root, paths=paths, store=store, upper=upper, image=image)
    state.close()
    shutil.rmtree(root)


def saved(place: Place) -> Path:
    path = place.root / "saved.tar"
    with path.open("wb") as file:
        file.writelines(archive.save(place.store, ["team/app:1"]))
    return path


def back(place: Place, path: Path) -> None:
    """Loaded into another store it is the same, down to the last attribute."""
    paths = paths_for(place.root / "other")
    state = State(paths)
    store = ImageStore(paths, state)
    with path.open("rb") as stream:
        [image] = loading.load(stream, store)
    top, base = store.layer_dirs(image)
    assert listing(top) == listing(place.upper)
    assert (base / "kept").read_text() == "4"
    assert image.diff_ids == place.image.diff_ids
    assert (image.config.cmd, image.config.env) == (("sh",), ("A=1",))
    state.close()
    shutil.rmtree(place.root / "other")


def run(*words: object) -> None:
    subprocess.run(list(map(str, words)), check=True, capture_output=True, timeout=120)


@needs("skopeo")
@pytest.mark.parametrize(
    "way",
    [
        ("docker-archive:{0}.tar:team/app:1",),
        ("oci-archive:{0}.tar:team/app:1",),
        ("oci:{0}:one", "docker-archive:{1}.tar:team/app:1"),
        ("dir:{0}", "oci-archive:{1}.tar:team/app:1"),
    ],
)
def test_through_skopeo(place: Place, way: tuple[str, ...]) -> None:
    source = f"docker-archive:{saved(place)}"
    for number, target in enumerate(way):
        target = target.format(*(place.root / f"hop{number}" for number in range(len(way))))
        run("skopeo", "copy", "--insecure-policy", source, target)
        source = target
    back(place, Path(source.split(":")[1]))


@needs("skopeo")
def test_skopeo_reads_the_oci_layout(place: Place) -> None:
    """`save` is both kinds of archive in one."""
    layout = place.root / "layout"
    layout.mkdir()
    run("tar", "-xf", saved(place), "-C", layout)
    target = place.root / "hop.tar"
    run("skopeo", "copy", "--insecure-policy", f"oci:{layout}:1", f"docker-archive:{target}:team/app:1")
    back(place, target)


@needs("umoci", "skopeo")
def test_through_umoci(place: Place) -> None:
    """umoci unpacks both layers, whiteouts applied; what it packs again comes back as it has it."""
    layout, bundle = place.root / "layout", place.root / "bundle"
    run("skopeo", "copy", "--insecure-policy", f"docker-archive:{saved(place)}", f"oci:{layout}:one")
    run("umoci", "unpack", "--image", f"{layout}:one", bundle)
    seen = {row[0]: row for row in listing(bundle / "rootfs", times=False)}
    for name in (b"gone", b"bin/gone-too", b"opaque/old"):
        assert name not in seen
    for row in listing(place.upper, times=False):
        status = os.lstat(os.fsencode(place.upper) + b"/" + bytes(row[0]))  # type: ignore[call-overload]
        if is_whiteout(status):
            continue
        attributes = [pair for pair in row[10] if not pair[0].startswith("trusted.overlay.")]  # type: ignore
        assert seen[row[0]][:10] == row[:10], row[0]
        assert seen[row[0]][10] == attributes
    ping = bundle / "rootfs/bin/ping"
    assert ping.stat().st_mtime_ns == (place.upper / "bin/ping").stat().st_mtime_ns
    (bundle / "rootfs/kept").unlink()
    (bundle / "rootfs/opaque/.hidden").write_text("changed")
    run("umoci", "repack", "--image", f"{layout}:one", bundle)
    target = place.root / "again.tar"
    run("skopeo", "copy", "--insecure-policy", f"oci:{layout}:one", f"oci-archive:{target}:again:1")
    with target.open("rb") as stream:
        [image] = loading.load(stream, place.store)
    top = place.store.layer_dirs(image)[0]
    assert is_whiteout((top / "kept").lstat())
    assert (top / "opaque/.hidden").read_text() == "changed"
    assert image.diff_ids[:2] == place.image.diff_ids


COMPRESSIONS: dict[str, Callable[[bytes], bytes]] = {
    "plain": lambda data: data,
    "gzip": gzip.compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
}


@pytest.mark.parametrize("inner", COMPRESSIONS)
@pytest.mark.parametrize("outer", COMPRESSIONS)
def test_compressed_layers_in_compressed_archives(place: Place, outer: str, inner: str) -> None:
    """As dockerd takes them. What comes out again is of a kind that everybody knows."""
    layers = [COMPRESSIONS[inner](files({"x": inner})), COMPRESSIONS[inner](files({"y": outer}))]
    document = config([sha256(files({"x": inner})), sha256(files({"y": outer}))])
    data = COMPRESSIONS[outer](docker_archive([(document, layers, ["packed"])]))
    [image] = loading.load(io.BytesIO(data), place.store)
    top, bottom = place.store.layer_dirs(image)
    assert ((top / "y").read_text(), (bottom / "x").read_text()) == (outer, inner)
    kind = "application/vnd.oci.image.layer.v1.tar"
    assert {layer.media_type for layer in image.layers} == {f"{kind}+gzip" if inner == "gzip" else kind}


def test_a_zstd_archive(place: Place) -> None:
    out = io.BytesIO()
    with zstd.ZstdWriter(out) as writer:
        writer.write(docker_archive([(config([sha256(BASE)]), [BASE], ["packed"])]))
    [image] = loading.load(io.BytesIO(out.getvalue()), place.store)
    assert image.repo_tags == ("packed:latest",)
    assert place.store.get(image.id).repo_tags == ("base:latest", "packed:latest")


def test_entries_in_any_order_and_links(place: Place) -> None:
    """manifest.json first or last; a layer that repeats is a link, as Docker of old wrote it."""
    one, two = files({"1": "x"}), files({"2": "x"})
    document = config([sha256(one), sha256(two), sha256(one)])
    described = entry(
        "manifest.json",
        b'[{"Config":"c.json","RepoTags":["any"],"Layers":["a/layer.tar","b/layer.tar","c/layer.tar"]}]',
    )
    members = [
        described,
        symlink("c/layer.tar", "../a/layer.tar"),
        entry("b/layer.tar", two),
        entry("a/layer.tar", one),
        entry("c.json", document),
        entry("a/VERSION", b"1.0"),
        entry("a/json", b"{}"),
    ]
    for order in (members, members[::-1], members[3:] + members[:3]):
        [image] = loading.load(io.BytesIO(tar(*order)), place.store)
        assert image.diff_ids == (sha256(one), sha256(two), sha256(one))
        place.store.remove("any", in_use=lambda image_id: [])


def test_many_layers(daemon: AgentUnderTest) -> None:
    """130 run, 300 too, and more than a page of mount options could name."""
    base = daemon.client.images.get(BUSYBOX)
    saved = b"".join(base.save())
    with tarfile.open(fileobj=io.BytesIO(saved)) as tar_file:
        layer = max(tar_file, key=lambda member: member.size)
        content = tar_file.extractfile(layer)
        assert content is not None
        bottom = content.read()
    for count in (130, 300):
        layers = [bottom, *(files({f"n/{number}": str(number)}) for number in range(count - 1))]
        document = config([sha256(one) for one in layers], Cmd=["sh", "-c", "ls /n | wc -l; cat /n/7"])
        daemon.client.images.load(docker_archive([(document, layers, [f"many:{count}"])]))
        try:
            told = daemon.client.containers.run(f"many:{count}", network_mode="none", remove=True)
            assert told.decode() == f"{count - 1}\n7"
        finally:
            daemon.client.images.remove(f"many:{count}")


@pytest.fixture(scope="module")
def dockerd() -> Iterator[Dockerd]:
    assert SESSION is not None
    # As deep as the check for leaks does not look: what dockerd leaves until later is not ours.
    top = SESSION.directory / "peer-of-round-trips"
    peer = Dockerd(top / "of/the/agent/d")
    yield peer
    peer.close()
    shutil.rmtree(top)


@pytest.mark.peers
@needs("dockerd")
def test_through_dockerd(dockerd: Dockerd, place: Place) -> None:
    """dockerd has the same files on its disk, and gives back the same layers."""
    done = dockerd.docker("load", "-i", str(saved(place)))
    assert done.returncode == 0, done.stderr
    upper = dockerd.docker("inspect", "-f", "{{.GraphDriver.Data.UpperDir}}", "team/app:1").stdout.strip()
    theirs = {row[0]: row for row in listing(Path(upper), times=False)}
    for row in listing(place.upper, times=False)[1:]:  # of the root dockerd keeps nothing
        assert theirs[row[0]] == row
    again = place.root / "again.tar"
    assert dockerd.docker("save", "-o", str(again), "team/app:1").returncode == 0
    back(place, again)
