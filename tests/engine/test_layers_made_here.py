"""Layers that this host makes, of what an overlay's upper directory has: commit and builds rest on them."""

from __future__ import annotations

import io
import json
import os
import shutil
import socket
import stat
import subprocess
import tarfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.support import isolation, linux
from tests.support.imagefiles import config, sha256
from tests.support.trees import CAPABILITY, listing, make_one_of_everything

from hawse_agent.engine.state import State
from hawse_agent.errors import HostRefused, NotFound
from hawse_agent.images import layers
from hawse_agent.images.pack import Packed
from hawse_agent.images.store import ImageStore
from hawse_agent.paths import Paths, paths_for

SESSION = isolation.current()
pytestmark = pytest.mark.skipif(SESSION is None, reason="needs a session: python -m tests.support.isolation")


@dataclass(frozen=True, kw_only=True)
class Place:
    root: Path
    paths: Paths
    state: State
    store: ImageStore


@pytest.fixture
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    assert SESSION is not None
    root = SESSION.directory / request.node.name.replace("/", "-")
    root.mkdir()
    paths = paths_for(root / "agent")
    state = State(paths)
    yield Place(root=root, paths=paths, state=state, store=ImageStore(paths, state))
    state.close()
    shutil.rmtree(root)


@pytest.fixture
def upper(place: Place) -> Path:
    """One of everything that a file system can hold."""
    upper = place.root / "upper"
    make_one_of_everything(upper)
    return upper


def create(place: Place, name: str, *, take: bool = False, upper: Path) -> str:
    with place.store.hold() as hold:
        layer = place.store.add_layer(upper, hold, take=take)
        image = place.store.create(config([layer.diff_id]), [layer.blob], [name])
    return image.id


def counts(place: Place) -> tuple[int, int, int]:
    """Numbers of blobs, layers and partial files."""
    blobs, directories, incoming = (
        len(os.listdir(path)) for path in (place.paths.blobs, place.paths.layers, place.paths.incoming)
    )
    return blobs, directories, incoming


@pytest.mark.parametrize("take", [False, True])
def test_the_layer_is_what_the_directory_was(place: Place, upper: Path, take: bool) -> None:
    before = listing(upper)
    image = place.store.get(create(place, "made", upper=upper, take=take))
    [directory] = place.store.layer_dirs(image)
    assert listing(directory) == before
    assert upper.exists() != take
    assert (directory / "sparse").stat().st_blocks < 1000, "holes stay holes"
    assert os.getxattr(directory / "bin/ping", "security.capability") == CAPABILITY
    [layer] = image.layers
    assert (layer.digest, layer.media_type) == (layer.diff_id, "application/vnd.oci.image.layer.v1.tar")
    assert layer.size == layer.tar_size == place.store.blobs.size(layer.digest)
    assert layer.content_size == image.size == 9_000_000 + 3000 + len("x" + "long" + "not UTF-8")
    assert counts(place) == (3, 1, 0)


def test_a_second_unpack_gives_the_same(place: Place, upper: Path) -> None:
    """Its tar and its directory do not differ, wherever it is sent."""
    image = place.store.get(create(place, "made", upper=upper, take=True))
    other = place.root / "other"
    other.mkdir()
    with place.store.blobs.open(image.layers[0].digest) as blob:
        assert layers.unpack(blob, other).diff_id == image.diff_ids[0]
    assert listing(other) == listing(place.store.layer_dirs(image)[0])


def test_gnu_tar_unpacks_it(place: Place, upper: Path) -> None:
    data = b"".join(Packed(upper))
    theirs = place.root / "theirs"
    theirs.mkdir()
    subprocess.run(
        ["tar", "-xp", "--xattrs", "--xattrs-include=*", "--numeric-owner", "-C", str(theirs)],
        input=data,
        check=True,
    )
    for name in ("gone", "bin/gone-too", "opaque/.wh..wh..opq"):
        path = upper / name if "opq" in name else upper / os.path.dirname(name) / f".wh.{Path(name).name}"
        marker = theirs / path.relative_to(upper)
        assert marker.stat().st_size == 0 and stat.S_ISREG(marker.stat().st_mode)
        times = marker.parent.stat()
        marker.unlink()
        if "opq" not in name:
            os.mknod(theirs / name, stat.S_IFCHR)
        else:
            os.setxattr(marker.parent, "trusted.overlay.opaque", b"y")
        os.utime(marker.parent, ns=(times.st_atime_ns, times.st_mtime_ns))
    (theirs / "gone").unlink()
    (theirs / "bin/gone-too").unlink()
    os.mknod(theirs / "gone", stat.S_IFCHR)
    os.link(theirs / "gone", theirs / "bin/gone-too")
    ours, wanted = ({row[0]: row for row in listing(root, times=False)} for root in (theirs, upper))
    assert ours == wanted
    assert (theirs / "bin/ping").stat().st_mtime_ns == 1_700_000_000_123_456_789


def test_the_same_tree_gives_the_same_bytes(place: Place, upper: Path) -> None:
    first = b"".join(Packed(upper))
    copy = place.root / "copy"
    subprocess.run(["cp", "-a", "--sparse=auto", upper, copy], check=True)
    assert sha256(b"".join(Packed(copy))) == sha256(first)
    with tarfile.open(fileobj=io.BytesIO(first)) as tar:
        names = [entry.name for entry in tar]
        assert names[0] == "." and "opaque/.wh..wh..opq" in names and ".wh.gone" in names
        assert names.index("opaque/.wh..wh..opq") < names.index("opaque/.hidden")
    assert b"trusted.overlay" not in first


def test_what_no_layer_can_say_is_refused_by_name(place: Place) -> None:
    upper = place.root / "upper"
    (upper / "etc").mkdir(parents=True)
    (upper / "etc/.wh.passwd").touch()
    with (
        place.store.hold() as hold,
        pytest.raises(HostRefused, match=r"/etc/\.wh\.passwd cannot be in a layer"),
    ):
        place.store.add_layer(upper, hold)
    assert counts(place) == (0, 0, 0) and upper.exists()


def test_a_socket_is_left_out(place: Place) -> None:
    upper = place.root / "upper"
    upper.mkdir()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(upper / "s"))
        packed = Packed(upper)
        with tarfile.open(fileobj=io.BytesIO(b"".join(packed))) as tar:
            assert tar.getnames() == ["."]
    assert packed.left_out == ["s: socket ignored"]


def test_what_nobody_takes_goes_with_the_hold(place: Place, upper: Path) -> None:
    with place.store.hold() as hold:
        layer = place.store.add_layer(upper, hold)
        assert place.store.known_layer(layer.diff_id, hold) == layer
        assert counts(place) == (1, 1, 0)
    assert counts(place) == (0, 0, 0)
    with pytest.raises(NotFound):
        place.store.create(config([layer.diff_id]), [layer.blob])
    assert counts(place) == (0, 0, 0)


def test_kept_layers_outlive_restarts_and_images(place: Place, upper: Path) -> None:
    with place.store.hold() as hold:
        layer = place.store.add_layer(upper, hold)
        place.store.keep_layers("cache:1", [layer])
        place.store.keep_layers("cache:2", [layer])
        place.store.create(config([layer.diff_id]), [layer.blob], ["made"])
    place.store.remove("made", in_use=lambda image_id: [])
    again = ImageStore(place.paths, place.state)
    assert again.kept_layers() == {"cache:1": [layer], "cache:2": [layer]}
    with again.hold() as hold:
        assert again.known_layer(layer.diff_id, hold) == layer
    again.drop_layers("cache:1")
    assert counts(place) == (1, 1, 0)
    image = again.create(config([layer.diff_id]), [layer.blob])
    again.drop_layers("cache:2")
    assert counts(place) == (3, 1, 0)
    again.remove(image.id, in_use=lambda image_id: [])
    assert counts(place) == (0, 0, 0)


def test_parent_and_history(place: Place, upper: Path) -> None:
    base = create(place, "base", upper=upper)
    document = json.loads(place.store.get(base).raw)
    document["history"] = [{"created_by": "one"}, {"created_by": "two", "empty_layer": True}]
    image = place.store.create(
        json.dumps(document).encode(),
        [layer.blob for layer in place.store.get(base).layers],
        ["made"],
        parent=base,
    )
    assert ImageStore(place.paths, place.state).get("made").parent == base
    assert image.history_sizes == (image.size, 0)
    assert len(os.listdir(place.paths.layers)) == 1


def test_it_is_quick(place: Place) -> None:
    upper = place.root / "upper"
    for number in range(400):
        path = upper / f"d{number % 20}" / f"f{number}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(os.urandom(50_000))
    before = time.process_time()
    with place.store.hold() as hold:
        place.store.add_layer(upper, hold, take=True)
    assert time.process_time() - before < 1.0, "20 MB"


def test_overlayfs_shows_what_the_container_saw(place: Place, upper: Path) -> None:
    """The layer on top of another: what was removed stays removed."""
    below = place.root / "below"
    for name in ("gone", "bin/gone-too", "opaque/old", "kept"):
        (below / name).parent.mkdir(parents=True, exist_ok=True)
        (below / name).touch()
    with place.store.hold() as hold:
        made = [place.store.add_layer(directory, hold) for directory in (below, upper)]
        image = place.store.create(config([layer.diff_id for layer in made]), [layer.blob for layer in made])
    merged = place.root / "merged"
    merged.mkdir()
    lower = ":".join(str(path) for path in place.store.layer_dirs(image))
    linux.mount("overlay", merged, "overlay", 0, f"lowerdir={lower}")
    try:
        assert os.listdir(merged / "opaque") == [".hidden"]
        assert (merged / "kept").exists() and not (merged / "gone").exists()
        assert sorted(os.listdir(merged / "bin")) == ["linked", "ping"]
    finally:
        linux.umount(merged, linux.MNT_DETACH)


def test_large_holes_are_not_written(place: Place) -> None:
    """A file of 1 TB with nothing in it, as lastlog may be one."""
    upper = place.root / "upper"
    upper.mkdir()
    with (upper / "lastlog").open("wb") as file:
        file.write(b"x")
        file.truncate(1 << 40)
    image = place.store.get(create(place, "made", upper=upper))
    assert image.layers[0].size < 1 << 20
    status = (place.store.layer_dirs(image)[0] / "lastlog").stat()
    assert (status.st_size, status.st_blocks <= 8) == (1 << 40, True)
