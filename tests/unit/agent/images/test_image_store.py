"""The store: commit, names, removal, and what is left when something goes wrong. No root needed."""

from __future__ import annotations

import errno
import gzip
import io
import json
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support import imagefiles
from tests.support.imagefiles import config, descriptor, files, manifest, put, sha256

from hawse_agent.engine.state import State
from hawse_agent.errors import Conflict, InputError, NotFound, OutOfSpace, ProtocolError
from hawse_agent.images import archive, layers, loading
from hawse_agent.images.store import Image, ImageStore
from hawse_agent.paths import Paths, paths_for

BASE = files({"etc/base": "base"})
TOP = files({"etc/top": "top"})


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return paths_for(tmp_path)


@pytest.fixture
def state(paths: Paths) -> Iterator[State]:
    state = State(paths)
    yield state
    state.close()


@pytest.fixture
def store(paths: Paths, state: State) -> ImageStore:
    return ImageStore(paths, state)


def commit(store: ImageStore, *tars: bytes, names: tuple[str, ...] = (), **settings: object) -> Image:
    """An image whose layers are sent gzipped."""
    blobs = [gzip.compress(data, mtime=0) for data in tars]
    configuration = config([sha256(data) for data in tars], **settings)
    document = manifest(configuration, blobs)
    put(store, *blobs, configuration, document)
    return store.commit_manifest(sha256(document), names)


def unused(image_id: str) -> list[str]:
    return []


def used(image_id: str) -> list[str]:
    return ["0123456789abcdef"]


def kept(paths: Paths) -> tuple[int, int, int]:
    """Numbers of blobs, layers and partial files."""
    return tuple(len(os.listdir(path)) for path in (paths.blobs, paths.layers, paths.incoming))  # type: ignore[return-value]


# -- commit --------------------------------------------------------------------------------------


def test_commit_unpacks_and_names(store: ImageStore, paths: Paths) -> None:
    image = commit(
        store,
        BASE,
        TOP,
        names=("app:1", "localhost:5000/app"),
        Env=["A=1"],
        Cmd=["run"],
        Healthcheck={"Test": ["CMD", "true"], "Interval": 2_000_000_000, "Retries": 0},
    )
    assert image.repo_tags == ("app:1", "localhost:5000/app:latest")
    assert (image.config.env, image.config.cmd, image.config.entrypoint) == (("A=1",), ("run",), None)
    assert image.config.healthcheck is not None
    assert (image.config.healthcheck.interval, image.config.healthcheck.retries) == (2.0, 3)
    assert image.size == len("base") + len("top")
    assert image.history_sizes == (len("base"),)
    top, base = store.layer_dirs(image)
    assert ((top / "etc/top").read_text(), (base / "etc/base").read_text()) == ("top", "base")
    assert sha256(image.raw) == image.id
    assert kept(paths) == (4, 2, 0)


def test_found_by_name_id_and_prefix(store: ImageStore) -> None:
    image = commit(store, BASE, names=("app",))
    for name in ("app", "app:latest", "docker.io/library/app", image.id, image.id[7:], image.id[7:19]):
        assert store.get(name).id == image.id
    for missing in ("nope", "app:2", "sha256:" + "0" * 64, "0" * 64):
        with pytest.raises(NotFound, match="No such image"):
            store.get(missing)
    with pytest.raises(NotFound, match=r"^No such image: nope:latest$"):
        store.get("nope")


def test_layers_are_shared_and_repeats_mounted_once(store: ImageStore, paths: Paths) -> None:
    commit(store, BASE, names=("a",))
    image = commit(store, BASE, TOP, BASE, names=("b",))
    assert len(os.listdir(paths.layers)) == 2
    assert [path.name for path in store.layer_dirs(image)] == [sha256(BASE)[7:], sha256(TOP)[7:]]


def test_image_without_layers_has_an_empty_directory(store: ImageStore) -> None:
    [directory] = store.layer_dirs(commit(store, names=("scratch",)))
    assert list(directory.iterdir()) == []


def test_index_stands_for_this_platform(store: ImageStore) -> None:
    image = commit(store, BASE)
    mine = store.blobs.read(image.manifest)
    index = json.dumps({"schemaVersion": 2, "manifests": [descriptor(mine, imagefiles.MANIFEST)]}).encode()
    put(store, index)
    assert store.commit_manifest(sha256(index), ["multi"]).id == image.id


def test_missing_blob_is_named(store: ImageStore) -> None:
    configuration = config([sha256(BASE)])
    document = manifest(configuration, [BASE])
    put(store, configuration, document)
    with pytest.raises(NotFound, match=sha256(BASE)):
        store.commit_manifest(sha256(document), ["a"])
    assert store.list() == []
    assert store.missing_blobs([sha256(BASE), sha256(document)]) == [sha256(BASE)]


def test_a_new_image_takes_the_name(store: ImageStore) -> None:
    old = commit(store, BASE, names=("app",))
    new = commit(store, TOP, names=("app",))
    assert store.get("app").id == new.id
    assert store.get(old.id).repo_tags == ()


# -- damage --------------------------------------------------------------------------------------


def test_damaged_upload_is_refused(store: ImageStore, paths: Paths) -> None:
    with (
        pytest.raises(ProtocolError, match=f"{sha256(BASE)} is damaged: its digest is {sha256(TOP)}"),
        store.blob_writer(sha256(BASE)) as writer,
    ):
        writer.write(TOP)
    with pytest.raises(ProtocolError, match="bytes"), store.blob_writer(sha256(BASE), 7) as writer:
        writer.write(BASE)
    with pytest.raises(KeyboardInterrupt), store.blob_writer(sha256(BASE)) as writer:
        writer.write(BASE[:100])
        raise KeyboardInterrupt
    assert kept(paths) == (0, 0, 0)


@pytest.mark.parametrize("digest", ["", "sha256:", "sha256:../../x", "md5:" + "0" * 32, "sha256:" + "A" * 64])
def test_what_is_no_digest_never_becomes_a_path(store: ImageStore, digest: str) -> None:
    with pytest.raises(InputError), store.blob_writer(digest):
        pass
    with pytest.raises(InputError):
        store.commit_manifest(digest)


def test_blob_that_went_bad_on_disk_is_removed(store: ImageStore, paths: Paths) -> None:
    configuration, blob = config([sha256(BASE)]), gzip.compress(BASE)
    document = manifest(configuration, [blob])
    put(store, blob, configuration, document)
    store.blobs.path(sha256(blob)).write_bytes(blob[:-20] + bytes(20))
    with pytest.raises(ProtocolError, match=f"{sha256(blob)} is damaged"):
        store.commit_manifest(sha256(document), ["a"])
    assert store.missing_blobs([sha256(blob)]) == [sha256(blob)]
    assert (kept(paths)[1:], store.list()) == ((0, 0), [])


def test_layer_of_another_content_is_refused(store: ImageStore, paths: Paths) -> None:
    configuration = config([sha256(TOP)])
    document = manifest(configuration, [BASE])
    put(store, BASE, configuration, document)
    with pytest.raises(InputError, match=f"holds {sha256(BASE)}, not {sha256(TOP)}"):
        store.commit_manifest(sha256(document))
    assert kept(paths)[1:] == (0, 0)


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (b"not json", "not JSON"),
        (b"[]", "not a JSON object"),
        (b"{}", "not the manifest"),
        (b'{"config": {"digest": 1}, "layers": []}', "damaged descriptor"),
        (b'{"schemaVersion": 1, "fsLayers": []}', "schema version 1"),
    ],
)
def test_what_is_no_manifest(store: ImageStore, document: bytes, message: str) -> None:
    put(store, document)
    with pytest.raises(InputError, match=message):
        store.commit_manifest(sha256(document))


@pytest.mark.parametrize(
    "configuration",
    [
        b'{"os": "windows", "rootfs": {"diff_ids": []}}',
        b'{"config": {}}',
        config([sha256(BASE)]),
        config([], Env="A=1"),
        config(["sha256:../../etc"]),
    ],
)
def test_what_is_no_container_image(store: ImageStore, configuration: bytes) -> None:
    document = manifest(configuration, [])
    put(store, configuration, document)
    with pytest.raises(InputError):
        store.commit_manifest(sha256(document))


def test_full_disk_leaves_no_half_layer(
    store: ImageStore, paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(blob: object, directory: Path) -> layers.Unpacked:
        (directory / "half").write_text("x")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(layers, "unpack", full)
        with pytest.raises(OutOfSpace):
            commit(store, BASE, names=("a",))
    assert (kept(paths)[1:], store.list()) == ((0, 0), [])
    assert commit(store, BASE, names=("a",)).repo_tags == ("a:latest",)


def test_litter_of_a_crash_is_swept(store: ImageStore, paths: Paths, state: State) -> None:
    image = commit(store, BASE, names=("a",))
    (paths.incoming / "blob-x").write_bytes(b"half")
    (paths.incoming / "layer-x").mkdir()
    (paths.layers / ("0" * 64) / "etc").mkdir(parents=True)
    put(store, b"fresh", b"old")
    os.utime(store.blobs.path(sha256(b"old")), (1, 1))
    os.utime(store.blobs.path(image.id), (1, 1))
    again = ImageStore(paths, state)
    assert kept(paths) == (4, 1, 0)
    assert again.missing_blobs([sha256(b"fresh"), sha256(b"old")]) == [sha256(b"old")]
    assert again.get("a").id == image.id


# -- removal -------------------------------------------------------------------------------------


def test_the_image_goes_with_its_last_name(store: ImageStore, paths: Paths) -> None:
    image = commit(store, BASE, TOP, names=("a:1", "a:2"))
    other = commit(store, BASE, names=("base",))
    assert store.remove("a:1", in_use=used) == [{"Untagged": "a:1"}]
    assert store.remove("a:2", in_use=unused) == [{"Untagged": "a:2"}, {"Deleted": image.id}]
    assert os.listdir(paths.layers) == [sha256(BASE)[7:]], "the other image's layer stays"
    assert store.remove(other.id, in_use=unused) == [{"Untagged": "base:latest"}, {"Deleted": other.id}]
    assert kept(paths) == (0, 0, 0)


def test_an_image_in_use_is_never_deleted(store: ImageStore, paths: Paths) -> None:
    image = commit(store, BASE, names=("a",))
    for name in ("a", image.id):
        with pytest.raises(Conflict, match="0123456789ab"):
            store.remove(name, in_use=used)
    assert store.remove("a", force=True, in_use=used) == [{"Untagged": "a:latest"}]
    with pytest.raises(Conflict, match="cannot be forced"):
        store.remove(image.id, force=True, in_use=used)
    assert store.layer_dirs(store.get(image.id))[0].is_dir()
    assert store.prune(in_use=used).removed == []
    pruned = store.prune(in_use=unused)
    assert (pruned.removed, pruned.reclaimed) == ([{"Deleted": image.id}], 4)
    assert kept(paths) == (0, 0, 0)


def test_several_repositories_need_force(store: ImageStore) -> None:
    image = commit(store, BASE, names=("a", "b"))
    with pytest.raises(Conflict, match="multiple repositories"):
        store.remove(image.id[7:19], in_use=unused)
    removed = store.remove(image.id, force=True, in_use=unused)
    assert removed == [{"Untagged": "a:latest"}, {"Untagged": "b:latest"}, {"Deleted": image.id}]


def test_prune_takes_unnamed_images_or_every_unused_one(store: ImageStore) -> None:
    named = commit(store, BASE, names=("a",))
    unnamed = commit(store, TOP)
    assert store.prune(in_use=unused).removed == [{"Deleted": unnamed.id}]
    pruned = store.prune(in_use=unused, every=True)
    assert pruned.removed == [{"Untagged": "a:latest"}, {"Deleted": named.id}]


def test_tag_and_untag(store: ImageStore) -> None:
    image = commit(store, BASE)
    store.tag(image.id[7:19], "x/y:1")
    assert store.get("x/y:1").id == image.id
    store.untag("x/y:1")
    with pytest.raises(NotFound):
        store.untag("x/y:1")
    with pytest.raises(InputError):
        store.tag(image.id, "x@" + image.id)
    store.note_digest(image.id, "x/y@" + image.manifest)
    assert store.get(image.id).repo_digests == (f"x/y@{image.manifest}",)
    assert store.get(f"x/y@{image.manifest}").id == image.id


# -- archives ------------------------------------------------------------------------------------


def test_load_docker_archive(store: ImageStore, paths: Paths) -> None:
    configuration = config([sha256(BASE), sha256(TOP)], Cmd=["x"])
    data = imagefiles.docker_archive([(configuration, [BASE, TOP], ["a:1", "b:2"])])
    assert [loading.told(image) for image in loading.load(io.BytesIO(gzip.compress(data)), store)] == [
        "Loaded image: a:1\nLoaded image: b:2"
    ]
    assert store.get("b:2").id == sha256(configuration)
    assert kept(paths) == (4, 2, 0), "manifest.json is not kept"
    assert [loading.told(image) for image in loading.load(io.BytesIO(data), store)] == [
        "Loaded image: a:1\nLoaded image: b:2"
    ]
    assert kept(paths) == (4, 2, 0)


def test_load_tells_of_the_archives_names_only(store: ImageStore) -> None:
    configuration = config([sha256(BASE)])
    image = commit(store, BASE, names=("elsewhere:1",))
    for names, told in (
        (["a:1"], "Loaded image: a:1"),
        ([], f"Loaded image ID: {sha256(configuration)}"),
        (["docker.io/library/b"], "Loaded image: b:latest"),
    ):
        data = imagefiles.docker_archive([(configuration, [BASE], names)])
        [loaded] = loading.load(io.BytesIO(data), store)
        assert (loaded.id, loading.told(loaded)) == (image.id, told)
    assert set(store.get("a:1").repo_tags) == {"a:1", "b:latest", "elsewhere:1"}


def test_load_reuses_a_layer_that_came_compressed(store: ImageStore, paths: Paths) -> None:
    commit(store, BASE, names=("base",))
    before = set(os.listdir(paths.blobs))
    configuration = config([sha256(BASE)], Cmd=["other"])
    loading.load(io.BytesIO(imagefiles.docker_archive([(configuration, [BASE], ["o"])])), store)
    assert sha256(BASE)[7:] not in os.listdir(paths.blobs)
    assert len(set(os.listdir(paths.blobs)) - before) == 2, "configuration and manifest"


def test_load_oci_with_nested_index_and_compressed_layers(store: ImageStore) -> None:
    layer = gzip.compress(BASE)
    configuration = config([sha256(BASE)])
    document = manifest(configuration, [layer])
    other = config([], Cmd=["arm"])
    foreign = manifest(other, [])
    nested = json.dumps(
        {
            "schemaVersion": 2,
            "manifests": [
                descriptor(foreign, imagefiles.MANIFEST, platform={"os": "linux", "architecture": "none"}),
                descriptor(document, imagefiles.MANIFEST),
            ],
        }
    ).encode()
    top = descriptor(nested, imagefiles.INDEX, annotations={"org.opencontainers.image.ref.name": "nested:1"})
    data = imagefiles.oci_archive([top], [layer, configuration, document, other, foreign, nested])
    assert [loading.told(image) for image in loading.load(io.BytesIO(data), store)] == [
        "Loaded image: nested:1"
    ]
    assert store.get("nested:1").id == sha256(configuration)
    assert not store.blobs.has(sha256(foreign))


def test_load_follows_links_between_layers(store: ImageStore) -> None:
    configuration = config([sha256(BASE), sha256(BASE)])
    data = imagefiles.tar(
        imagefiles.entry("c.json", configuration),
        imagefiles.entry("one/layer.tar", BASE),
        imagefiles.symlink("two/layer.tar", "../one/layer.tar"),
        imagefiles.entry(
            "manifest.json",
            json.dumps(
                [{"Config": "c.json", "RepoTags": None, "Layers": ["one/layer.tar", "two/layer.tar"]}]
            ).encode(),
        ),
    )
    assert [loading.told(image) for image in loading.load(io.BytesIO(data), store)] == [
        f"Loaded image ID: {sha256(configuration)}"
    ]


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        (b"", InputError, "neither manifest.json"),
        (b"x" * 5000, InputError, "not a tar"),
        (BASE, InputError, "neither manifest.json"),
        (imagefiles.docker_archive([(config([sha256(TOP)]), [BASE], ["a"])]), InputError, "damaged"),
        (imagefiles.docker_archive([(config([]), [], ["a"])])[:-9000], InputError, "ends too early"),
        (imagefiles.tar(imagefiles.entry("manifest.json", b"[]")), InputError, "names no image"),
        (
            imagefiles.tar(imagefiles.entry("manifest.json", b'[{"Config":"../../etc/passwd"}]')),
            InputError,
            "missing in the archive",
        ),
        (
            imagefiles.tar(imagefiles.entry("blobs/sha256/" + "0" * 64, b"x")),
            ProtocolError,
            "sha256:0000",
        ),
    ],
)
def test_archives_that_are_refused_leave_nothing(
    store: ImageStore, paths: Paths, data: bytes, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        loading.load(io.BytesIO(data), store)
    assert (kept(paths), store.list()) == ((0, 0, 0), [])


@pytest.mark.parametrize("name", ["nginx@sha256:" + "ab" * 32, "nginx:1@sha256:" + "ab" * 32])
def test_an_archive_cannot_say_what_a_registry_has(store: ImageStore, paths: Paths, name: str) -> None:
    configuration = config([sha256(BASE)])
    document = manifest(configuration, [BASE])
    entry = descriptor(document, imagefiles.MANIFEST, annotations={"io.containerd.image.name": name})
    for data in (
        imagefiles.docker_archive([(configuration, [BASE], [name])]),
        imagefiles.oci_archive([entry], [BASE, configuration, document]),
    ):
        with pytest.raises(InputError, match="never by a digest"):
            loading.load(io.BytesIO(data), store)
    assert (kept(paths), store.list()) == ((0, 0, 0), [])


@pytest.mark.parametrize("kind", ["symlink", "file"])
def test_names_of_an_archives_files_are_bounded(store: ImageStore, kind: str) -> None:
    def archive_of(count: int, size: int) -> bytes:
        names = [f"{number:0{size}}" for number in range(count)]
        entries = [
            imagefiles.symlink("x", name) if kind == "symlink" else imagefiles.entry(name, b"")
            for name in names
        ]
        return imagefiles.tar(*entries)

    with pytest.raises(InputError, match="names of more than 1024"):
        loading.load(io.BytesIO(archive_of(1, 1025)), store)
    with pytest.raises(InputError, match="MB of names"):
        loading.load(io.BytesIO(archive_of(8400, 1000)), store)


def test_a_blob_is_not_taken_for_a_layer_that_it_does_not_hold(store: ImageStore, paths: Paths) -> None:
    """Else who saves or pushes an image of his own sends that blob for its layer."""
    mine = commit(store, BASE, names=("mine",))
    before = kept(paths)
    wrong = gzip.compress(files({"etc/base": "evil"}), mtime=0)
    bomb = gzip.compress(bytes(1 << 24), mtime=0)
    for blob in (wrong, bomb):
        configuration = config([sha256(BASE)], Cmd=["evil"])
        document = manifest(configuration, [blob])
        entry = descriptor(document, imagefiles.MANIFEST, annotations={"io.containerd.image.name": "evil:1"})
        data = imagefiles.oci_archive([entry], [blob, configuration, document])
        with pytest.raises(InputError, match="is damaged: it holds"):
            loading.load(io.BytesIO(data), store)
        assert (kept(paths), len(store.list())) == (before, 1)
    assert [layer.digest for layer in store.get("mine").layers] == [layer.digest for layer in mine.layers]


def test_another_blob_of_a_layer_is_looked_into_once(
    store: ImageStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit(store, BASE, names=("a",))
    looked = []
    inflate = layers.inflate
    monkeypatch.setattr(layers, "inflate", lambda *a, **k: looked.append(1) or inflate(*a, **k))
    for command in ("one", "two"):
        blob = gzip.compress(BASE, 1, mtime=1)
        configuration = config([sha256(BASE)], Cmd=[command])
        document = manifest(configuration, [blob])
        put(store, blob, configuration, document)
        image = store.commit_manifest(sha256(document), [command])
        assert (image.layers[0].digest, image.size) == (sha256(blob), len("base"))
    assert looked == [1]


def test_a_layer_that_load_counts_on_is_not_removed_meanwhile(
    store: ImageStore, paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit(store, BASE, names=("base",))
    known = store.known_layer

    def and_then_removed(*args: Any) -> Any:
        found = known(*args)
        store.remove("base", in_use=unused)
        return found

    monkeypatch.setattr(store, "known_layer", and_then_removed)
    configuration = config([sha256(BASE)], Cmd=["other"])
    loading.load(io.BytesIO(imagefiles.docker_archive([(configuration, [BASE], ["o"])])), store)
    assert store.blobs.missing(layer.digest for layer in store.get("o").layers) == []
    store.remove("o", in_use=unused)
    assert kept(paths) == (0, 0, 0)


def test_a_held_blob_of_a_removed_image_goes_with_the_hold(store: ImageStore, paths: Paths) -> None:
    image = commit(store, BASE, names=("base",))
    with store.hold() as first, store.hold() as second:
        for hold in (first, second):
            hold.add_blobs([image.manifest, *(layer.digest for layer in image.layers)])
        store.remove("base", in_use=unused)
        assert kept(paths) == (2, 0, 0)
    assert kept(paths) == (0, 0, 0)


def test_save_holds_what_it_saves(store: ImageStore, paths: Paths) -> None:
    commit(store, BASE, TOP, names=("a:1",))
    whole = b"".join(archive.save(store, ["a"]))
    pieces = archive.save(store, ["a"])
    start = next(pieces)
    assert store.prune(in_use=unused, every=True).removed == []
    assert store.remove("a:1", in_use=unused, force=True) == [{"Untagged": "a:1"}]
    assert start + b"".join(pieces) == whole
    left = archive.save(store, [store.list()[0].id])
    left.close()  # type: ignore[attr-defined]
    assert len(store.prune(in_use=unused).removed) == 1
    assert kept(paths) == (0, 0, 0)


def test_save_is_docker_archive_and_oci_layout(store: ImageStore, tmp_path: Path) -> None:
    image = commit(store, BASE, TOP, names=("a:1", "a:2", "b:1"), Cmd=["x"])
    data = b"".join(archive.save(store, ["a", "b:1"]))
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        names = tar.getnames()
        [entry] = json.load(tar.extractfile("manifest.json"))  # type: ignore[arg-type]
    assert set(entry["RepoTags"]) == {"a:1", "a:2", "b:1"}
    assert entry["Layers"] == [f"blobs/sha256/{sha256(layer)[7:]}" for layer in (BASE, TOP)]
    assert {"index.json", "oci-layout", "repositories"} < set(names)

    other_paths = paths_for(tmp_path / "other")
    other_state = State(other_paths)
    try:
        other = ImageStore(other_paths, other_state)
        loading.load(io.BytesIO(data), other)
        assert other.get("b:1").id == image.id
        assert b"".join(archive.save(other, ["a", "b:1"])) == data, "the same image gives the same archive"
    finally:
        other_state.close()


def test_save_refuses_before_the_first_byte(store: ImageStore) -> None:
    with pytest.raises(NotFound):
        archive.save(store, ["nope"])
    with pytest.raises(InputError):
        archive.save(store, [])


def test_import_of_a_root_directory(store: ImageStore) -> None:
    image = archive.import_tarball(
        io.BytesIO(gzip.compress(BASE)),
        store,
        "root:1",
        ['CMD ["sh"]', "ENV A=1 B='two words'", "EXPOSE 80 53/udp", "WORKDIR /srv", "LABEL k=v"],
        "by hand",
    )
    assert image.repo_tags == ("root:1",)
    assert (image.config.cmd, image.config.env) == (("sh",), ("A=1", "B=two words"))
    assert image.config.exposed_ports == ("53/udp", "80/tcp")
    assert (image.config.working_dir, image.config.labels) == ("/srv", {"k": "v"})
    assert image.history[0].comment == "by hand"
    assert (store.layer_dirs(image)[0] / "etc/base").read_text() == "base"


def test_import_of_what_is_no_tar_leaves_nothing(store: ImageStore, paths: Paths) -> None:
    with pytest.raises(InputError, match="not a tar"):
        archive.import_tarball(io.BytesIO(b"x" * 2000), store, "root")
    with pytest.raises(InputError, match="RUN is not a valid change"):
        archive.import_tarball(io.BytesIO(BASE), store, "root", ["RUN ls"])
    assert kept(paths) == (0, 0, 0)


def test_import_notes_no_digest(store: ImageStore) -> None:
    with pytest.raises(InputError, match="digest reference"):
        archive.import_tarball(io.BytesIO(BASE), store, "root:1@sha256:" + "ab" * 32)
    assert store.list() == []


@pytest.mark.parametrize("which", ["config", "layers"])
@pytest.mark.parametrize("size", [-5, 5, 1 << 40])
def test_a_size_that_is_not_the_blobs_is_refused(store: ImageStore, which: str, size: int) -> None:
    """A push would announce it."""
    configuration = config([sha256(BASE)])
    document = json.loads(manifest(configuration, [BASE]))
    (document["config"] if which == "config" else document["layers"][0])["size"] = size
    data = json.dumps(document).encode()
    put(store, BASE, configuration, data)
    with pytest.raises(InputError, match=f"bytes, its manifest says {size}|damaged descriptor"):
        store.commit_manifest(sha256(data), ["a"])


def test_image_in_hand_is_not_removed(store: ImageStore) -> None:
    image = commit(store, BASE, names=("base:1", "base:2"))
    with store.using("base:1"):
        with pytest.raises(Conflict, match="something is being made of the image"):
            store.remove(image.id, force=True, in_use=unused)
        assert store.prune(in_use=unused, every=True).removed == []
        assert store.remove("base:1", in_use=unused) == [{"Untagged": "base:1"}]
        with pytest.raises(Conflict, match="something is being made of the image"):
            store.remove("base:2", in_use=unused)
        assert store.remove("base:2", force=True, in_use=unused) == [{"Untagged": "base:2"}]
        assert store.get(image.id).diff_ids == image.diff_ids
    assert store.remove(image.id, in_use=unused) == [{"Deleted": image.id}]
