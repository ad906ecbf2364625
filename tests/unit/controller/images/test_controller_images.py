import gzip
import hashlib
import io
import json
import os
import platform
import tarfile
from pathlib import Path
from typing import Any, cast

import pytest
import zstandard

from hawse.fleet.client import AgentClient
from hawse.images import archive, importer, send
from hawse.images.config import apply_changes
from hawse.images.store import ImageStore
from hawse_agent.distribution.manifest import Platform, host_platform
from hawse_agent.errors import Conflict, HostRefused, InputError, NotFound, ProtocolError, Unreachable
from hawse_agent.spec.host import ImageSource


def tar_of(files: dict[str, bytes]) -> bytes:
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w") as tar:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return output.getvalue()


def digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


ROOT = tar_of({"bin/sh": b"#!" * 5000, "etc/passwd": b"root"})


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    return ImageStore(tmp_path / "store")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    path = tmp_path / "root.tar"
    path.write_bytes(ROOT)
    os.utime(path, (1_700_000_000, 1_700_000_000))
    return path


def config_of(store: ImageStore, image_id: str) -> Any:
    with store.open_blob(image_id) as file:
        return json.load(file)


@pytest.mark.parametrize("pack", [lambda data: data, gzip.compress, zstandard.compress])
def test_a_root_becomes_an_image(store: ImageStore, root: Path, pack: Any) -> None:
    root.write_bytes(pack(ROOT))
    [image] = importer.import_file(store, root, reference="guestbook", changes=['CMD ["sh"]', "USER app"])
    [variant] = image.variants
    source = store.get("docker.io/library/guestbook:latest")
    assert (source.id, source.manifest, source.blobs) == (variant.id, variant.manifest, variant.blobs)
    assert source.reference == "docker.io/library/guestbook:latest" and len(source.blobs) == 3
    config = config_of(store, variant.id)
    assert config["rootfs"]["diff_ids"] == [digest(ROOT)] and config["config"] == {
        "Cmd": ["sh"],
        "User": "app",
    }
    for blob in source.blobs:
        assert digest(b"".join(store.chunks(blob))) == blob
    assert source.size == sum(store.size(blob) for blob in source.blobs)


def test_the_same_file_gives_the_same_image(store: ImageStore, root: Path) -> None:
    first = importer.import_file(store, root, reference="a")
    again = importer.import_file(store, root, reference="a")
    assert first == again and [image.reference for image in store.images()] == ["docker.io/library/a:latest"]


@pytest.mark.parametrize(
    "damage",
    [gzip.compress(ROOT)[:-9], zstandard.compress(ROOT)[:-9], b"no tar", zstandard.compress(ROOT)[:40]],
)
def test_a_broken_file(store: ImageStore, root: Path, damage: bytes) -> None:
    root.write_bytes(damage)
    with pytest.raises(InputError, match=r"root\.tar"):
        importer.import_file(store, root, reference="a")
    assert store.images() == []
    assert not list(store.directory.glob("blobs/sha256/.incoming*"))


def test_a_name_is_needed(store: ImageStore, root: Path) -> None:
    with pytest.raises(InputError, match="needs a name"):
        importer.import_file(store, root)


def test_docker_archive(store: ImageStore, tmp_path: Path) -> None:
    config = json.dumps({"architecture": "amd64", "rootfs": {"diff_ids": [digest(ROOT)]}}).encode()
    manifest = [{"Config": "c.json", "RepoTags": ["app:1", "app:2"], "Layers": ["l/layer.tar"]}]
    path = tmp_path / "saved.tar"
    files = {"c.json": config, "l/layer.tar": ROOT, "manifest.json": json.dumps(manifest).encode()}
    path.write_bytes(tar_of(files))
    [image] = importer.import_file(store, path)
    assert image.variants[0].id == digest(config)
    assert [entry.reference for entry in store.images()] == [
        "docker.io/library/app:1",
        "docker.io/library/app:2",
    ]
    path.write_bytes(tar_of({**files, "l/layer.tar": ROOT + b"\0"}))
    with pytest.raises(InputError, match="damaged"):
        importer.import_file(store, path)


def test_oci_archive(store: ImageStore, tmp_path: Path) -> None:
    layer = gzip.compress(ROOT)
    config = json.dumps({"architecture": "arm64", "rootfs": {"diff_ids": [digest(ROOT)]}}).encode()
    manifest = json.dumps(
        {"config": {"digest": digest(config), "size": 1}, "layers": [{"digest": digest(layer), "size": 1}]}
    ).encode()
    platform = {"architecture": "arm64", "os": "linux"}
    index = json.dumps({"manifests": [{"digest": digest(manifest), "platform": platform}]}).encode()
    blobs = {f"blobs/{digest(data).replace(':', '/')}": data for data in (layer, config, manifest, index)}
    top = json.dumps({"manifests": [{"digest": digest(index)}]}).encode()
    path = tmp_path / "oci.tar"
    path.write_bytes(tar_of({"oci-layout": b"{}", "index.json": top, **blobs}))
    [image] = importer.import_file(store, path, reference="app", architecture="arm64")
    [variant] = image.variants
    assert (variant.id, variant.platform) == (digest(config), "linux/arm64")
    assert digest(layer) in variant.blobs
    with pytest.raises(InputError, match="no image for riscv64"):
        importer.import_file(store, path, reference="app", architecture="riscv64")


def test_remove_deletes_what_nobody_needs(store: ImageStore, root: Path) -> None:
    importer.import_file(store, root, reference="a")
    importer.import_file(store, root, reference="b", changes=["USER b"])
    store.remove("a")
    assert len(list(store.directory.glob("blobs/sha256/*"))) == 3
    with pytest.raises(NotFound):
        store.get("a")
    with pytest.raises(NotFound):
        store.remove("a")
    assert store.get("b").size


def test_a_damaged_store_says_what_to_do(store: ImageStore, tmp_path: Path) -> None:
    root = tmp_path / "root.tar"
    with tarfile.open(root, "w") as tar:
        tar.add(__file__, "etc/file")
    image = importer.import_file(store, root, reference="x:1")[0]
    for digest in (image.variants[0].id, image.variants[0].manifest):
        blob = store.directory / "blobs" / digest.replace(":", "/")
        whole = blob.read_bytes()
        for text in (b"", whole[:10], whole.replace(b"sha256", b"sha257")):
            blob.write_bytes(text)
            with pytest.raises(ProtocolError, match="damaged") as caught:
                store.images()
            assert caught.value.hint == "import the image again"
        assert importer.import_file(store, root, reference="x:1") == [image]
        assert blob.read_bytes() == whole
        blob.unlink()
        with pytest.raises(NotFound, match="no such blob here"):
            store.images()
        blob.write_bytes(whole)
    index = store.directory / "index.json"
    for text in (b"", b"{", b"[]", b"{}"):
        index.write_bytes(text)
        with pytest.raises(HostRefused, match=r"index\.json is damaged"):
            store.find("x:1")


def test_a_cut_root_tar_is_no_image(store: ImageStore, tmp_path: Path) -> None:
    root = tmp_path / "root.tar"
    with tarfile.open(root, "w") as tar:
        tar.add(__file__, "etc/file")
    whole = root.read_bytes()
    for length in (len(whole) // 2, len(whole) - 10240, 700):
        root.write_bytes(whole[:length])
        with pytest.raises(InputError, match="not a whole tar archive"):
            importer.import_file(store, root, reference="x:1")
    assert store.images() == []


def test_a_damaged_blob_is_not_sent_whole(store: ImageStore) -> None:
    name = store.put(b"good")
    (store.directory / "blobs/sha256" / name[7:]).write_bytes(b"evil")
    with pytest.raises(ProtocolError, match="damaged"):
        list(store.chunks(name))


def test_send_uploads_what_is_missing(store: ImageStore, root: Path) -> None:
    importer.import_file(store, root, reference="a")
    source = store.get("a")
    host = FakeHost(has=source.blobs[:1])
    heard: list[tuple[int, int]] = []
    image_id = host.receive(store, source, lambda sent, total: heard.append((sent, total)))
    assert image_id == source.id and list(host.blobs) == list(source.blobs)
    total = sum(store.size(blob) for blob in source.blobs[1:])
    assert heard[-1] == (total, total)


def test_a_cut_transfer_goes_on_where_it_stopped(store: ImageStore, tmp_path: Path) -> None:
    """Over several connections, as long as each brings it further."""
    source = image_of_noise(store, tmp_path)
    host = FakeHost(cut_after=400_000)
    heard: list[tuple[int, int]] = []
    assert host.receive(store, source, lambda sent, total: heard.append((sent, total))) == source.id
    assert host.connections > 4
    assert sum(host.received) == source.size and heard[-1] == (source.size, source.size)
    assert [sent for sent, _ in heard] == sorted(sent for sent, _ in heard)


def test_a_host_that_stays_away_is_given_up(store: ImageStore, tmp_path: Path) -> None:
    source, host = image_of_noise(store, tmp_path), FakeHost(cut_after=0)
    with pytest.raises(Unreachable):
        host.receive(store, source)
    assert host.connections == 4 and host.pauses == [1, 2, 4]


def test_what_another_controller_sends_meanwhile_is_not_sent(store: ImageStore, tmp_path: Path) -> None:
    source = image_of_noise(store, tmp_path)
    largest = max(source.blobs, key=store.size)
    host = FakeHost(other=(largest, b"".join(store.chunks(largest))))
    assert host.receive(store, source) == source.id
    assert sum(host.received) == source.size - store.size(largest)
    host.blobs.clear()
    assert host.receive(store, source) == source.id and not host.blobs  # it has the image: nothing is asked


def test_a_part_that_came_damaged_before_is_sent_again(store: ImageStore, tmp_path: Path) -> None:
    source, host = image_of_noise(store, tmp_path), FakeHost()
    largest = max(source.blobs, key=store.size)
    host.parts[largest] = b"wrong"
    assert host.receive(store, source) == source.id
    assert sum(host.received) == source.size + store.size(largest) - len(b"wrong")


def test_a_blob_that_is_damaged_here_is_sent_once(store: ImageStore, tmp_path: Path) -> None:
    source, host = image_of_noise(store, tmp_path), FakeHost()
    largest = max(source.blobs, key=store.size)
    host.parts[largest] = b"wrong"
    data = b"wrong" + b"".join(store.chunks(largest, 5))
    (store.directory / "blobs/sha256" / largest.removeprefix("sha256:")).write_bytes(data)
    with pytest.raises(ProtocolError, match="the stored blob"):
        host.receive(store, source)
    assert sum(host.received) <= source.size


def test_blobs_that_a_prune_took_are_sent_again(store: ImageStore, tmp_path: Path) -> None:
    source, host = image_of_noise(store, tmp_path), FakeHost(pruned=1)
    assert host.receive(store, source) == source.id
    assert sum(host.received) == 2 * source.size


def test_a_host_gets_the_image_of_its_platform(store: ImageStore, tmp_path: Path) -> None:
    manifests = {}
    for architecture in (host_platform().architecture, "riscv64"):
        noise = tmp_path / f"{architecture}.tar"
        noise.write_bytes(tar_of({"noise": os.urandom(1000)}))
        importer.import_file(store, noise, reference="app", architecture=architecture)
        manifests[store.get("app").manifest] = Platform(architecture=architecture)
    image = store.add_index(["app"], manifests)
    mine, foreign = image.variants
    assert [image.reference for image in store.images()] == [image.reference]
    host = FakeHost()
    assert host.receive(store, store.get("app")) == mine.id
    assert set(host.blobs) == set(mine.blobs)
    alone = store.tag(["foreign"], foreign.manifest)
    with pytest.raises(InputError, match="is for linux/riscv64, and this host is linux/"):
        host.receive(store, alone.source())
    store.remove("app")
    assert store.find(mine.id) is None and not store.has(mine.manifest) and store.has(foreign.manifest)


def test_what_came_of_a_blob_waits_for_the_rest(store: ImageStore) -> None:
    data = os.urandom(5000)
    name = digest(data)
    with pytest.raises(KeyError), store.receiving(name, len(data)) as writer:
        assert writer is not None and writer.size == 0
        writer.write(data[:2000])
        raise KeyError
    assert not store.has(name)
    with store.receiving(name, len(data)) as writer:
        assert writer is not None and writer.size == 2000
        writer.write(data[2000:])
    assert b"".join(store.chunks(name)) == data
    with store.receiving(name, len(data)) as writer:
        assert writer is None
    other = digest(b"other")
    with pytest.raises(ProtocolError, match="came damaged"), store.receiving(other, 5) as writer:
        assert writer is not None
        writer.write(b"wrong")
    with store.receiving(other, 5) as writer:
        assert writer is not None and writer.size == 0
        writer.write(b"other")


def test_prune_takes_what_no_name_needs_once_it_is_old(store: ImageStore, root: Path) -> None:
    importer.import_file(store, root, reference="a")
    importer.import_file(store, root, reference="a", changes=["USER b"])
    with pytest.raises(KeyError), store.receiving(digest(b"x"), 1):
        raise KeyError
    assert store.prune() == 0
    for path in (*store.directory.glob("blobs/sha256/*"), *store.directory.glob("partial/*")):
        os.utime(path, (1, 1))
    assert store.prune() > 0 and store.get("a").size
    assert len(list(store.directory.glob("blobs/sha256/*"))) == 3
    assert not list(store.directory.glob("partial/*"))


def test_what_is_saved_can_be_imported_again(store: ImageStore, root: Path, tmp_path: Path) -> None:
    for pack in (gzip.compress, zstandard.compress):
        root.write_bytes(pack(ROOT))
        importer.import_file(store, root, reference=f"{pack.__module__.strip('_')}:1", changes=["USER x"])
    held = store.images()
    path = tmp_path / "saved.tar"
    with path.open("wb") as file:
        file.writelines(archive.save(store, [(image.reference, image.variants[0]) for image in held]))
    other = ImageStore(tmp_path / "other")
    importer.import_archive(other, path)
    assert [(image.reference, image.variants[0].id) for image in other.images()] == [
        (image.reference, image.variants[0].id) for image in held
    ]
    with pytest.raises(InputError, match="no archive of images"):
        importer.import_archive(other, root)


def image_of_noise(store: ImageStore, tmp_path: Path) -> ImageSource:
    (tmp_path / "noise.tar").write_bytes(tar_of({"noise": os.urandom(3_000_000)}))
    importer.import_file(store, tmp_path / "noise.tar", reference="noise")
    return store.get("noise")


class FakeHost:
    """Takes blobs as an agent does; each connection is cut after so many bytes."""

    def __init__(
        self,
        *,
        has: tuple[str, ...] = (),
        cut_after: int | None = None,
        other: tuple[str, bytes] | None = None,
        pruned: int = 0,
    ) -> None:
        self.blobs: dict[str, bytes] = dict.fromkeys(has, b"")
        self.parts: dict[str, bytes] = {}
        self.received: list[int] = []
        self.pauses: list[float] = []
        self.connections = 0
        self.named: dict[str, str] = {}
        self.other, self.pruned = other, pruned
        self._cut_after = cut_after
        self._left = 0

    def receive(
        self, store: ImageStore, source: ImageSource, progress: send.Progress = lambda sent, total: None
    ) -> str:
        before = sum(self.received)
        sent = send.send(
            lambda: cast(AgentClient, self), store, source, progress=progress, pause=self.pauses.append
        )
        assert self._cut_after is not None or sent.bytes == sum(self.received) - before
        return sent.id

    def machine(self) -> str:
        return platform.machine()

    def image_id(self, name: str) -> str | None:
        return self.named.get(name)

    def second(self) -> "FakeHost":
        self.connections += 1
        self._left = self._cut_after if self._cut_after is not None else 1 << 60
        return self

    def __enter__(self) -> "FakeHost":
        return self

    def __exit__(self, *_: object) -> None: ...

    def missing_blobs(self, digests: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(name for name in digests if name not in self.blobs)

    def blob_offset(self, name: str) -> int | None:
        return None if name in self.blobs else len(self.parts.get(name, b""))

    def upload_blob(self, name: str, pieces: Any, size: int, *, offset: int) -> None:
        if self.other is not None and self.other[0] == name:
            self.blobs[name] = self.other[1]
            raise Conflict("sent by another")
        part = self.parts.get(name, b"")[:offset]
        for piece in pieces:
            came = piece[: self._left]
            self._left -= len(came)
            self.received.append(len(came))
            self.parts[name] = part = part + came
            if came != piece:
                raise Unreachable("cut", stage="tcp")
        if digest(part) != name:
            del self.parts[name]
            raise ProtocolError("damaged")
        assert len(part) == size
        self.blobs[name] = self.parts.pop(name)

    def commit_image(self, manifest: str, references: tuple[str, ...]) -> str:
        if self.pruned:
            self.pruned -= 1
            self.blobs.clear()
            raise NotFound("no such blob")
        configs = [data for data in self.blobs.values() if b"diff_ids" in data]
        self.named |= dict.fromkeys(references, digest(configs[0]))
        return digest(configs[0])


def test_changes() -> None:
    assert apply_changes(
        [
            "ENTRYPOINT run.sh --x",
            'ENV A=1 B="2 3"',
            "ENV C=4",
            "EXPOSE 80 53/udp",
            "LABEL a=b",
            "VOLUME /data",
        ]
        + ["WORKDIR /srv", "STOPSIGNAL SIGQUIT"]
    ) == {
        "Entrypoint": ["/bin/sh", "-c", "run.sh --x"],
        "Env": ["A=1", "B=2 3", "C=4"],
        "ExposedPorts": {"80/tcp": {}, "53/udp": {}},
        "Labels": {"a": "b"},
        "Volumes": {"/data": {}},
        "WorkingDir": "/srv",
        "StopSignal": "SIGQUIT",
    }


@pytest.mark.parametrize("line", ["RUN ls", "CMD", "CMD [1]", 'CMD ["x"', "ENV A", 'LABEL "x'])
def test_wrong_changes(line: str) -> None:
    with pytest.raises(InputError):
        apply_changes([line])
