"""Pulling, from a registry in this process that can be told to misbehave."""

from __future__ import annotations

import functools
import gzip
import json
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from tests.support import fakeregistry, imagefiles
from tests.support.fakeregistry import Fake
from tests.support.imagefiles import config, descriptor, files, manifest, sha256
from tests.support.registries import PASSWORD, USER, basic

from hawse_agent.distribution import endpoint, reference
from hawse_agent.distribution.cancel import Cancel, Stopped
from hawse_agent.distribution.credentials import NOBODY, Credentials
from hawse_agent.distribution.manifest import host_platform
from hawse_agent.distribution.registry import Client
from hawse_agent.distribution.settings import RegistrySettings
from hawse_agent.engine.state import State
from hawse_agent.errors import HostRefused, InputError, NotFound, NotSupported, ProtocolError
from hawse_agent.images.pull import Progress, Pulls
from hawse_agent.images.store import Image, ImageStore
from hawse_agent.linux import zstd
from hawse_agent.paths import Paths, paths_for

DEFAULTS = RegistrySettings()
LAYER = files({"etc/x": "content"})
BLOB = gzip.compress(LAYER, mtime=0)
NOISE = files({"noise": os.urandom(3_000_000).hex()})
CONFIG = config([sha256(LAYER), sha256(NOISE)], Cmd=["run"])
MANIFEST = manifest(CONFIG, [BLOB, NOISE])


@pytest.fixture
def serve() -> Iterator[Callable[[Fake], Fake]]:
    """Starts fakes; gives them their port."""
    with ExitStack() as servers:

        def start(fake: Fake) -> Fake:
            servers.enter_context(fakeregistry.serve(fake))
            return fake

        yield start


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return paths_for(tmp_path)


@pytest.fixture
def store(paths: Paths) -> Iterator[ImageStore]:
    state = State(paths)
    yield ImageStore(paths, state)
    state.close()


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "_pause", lambda failures: 0.0)


def a_fake(**behaviour: Any) -> Fake:
    return Fake(
        documents={"1": MANIFEST, sha256(MANIFEST): MANIFEST},
        blobs={sha256(data): data for data in (CONFIG, BLOB, NOISE)},
        **behaviour,
    )


def pull(fake: Fake, store: ImageStore, tag: str = ":1", **auth: str) -> tuple[Image, list[dict[str, Any]]]:
    events: list[dict[str, Any]] = []
    name = f"127.0.0.1:{fake.port}/team/app{tag}"
    return pull_by_name(name, store, events.append, Credentials(**auth)), events


def pull_by_name(
    name: str,
    store: ImageStore,
    progress: Progress = lambda event: None,
    credentials: Credentials = NOBODY,
    *,
    platform: str = "",
    settings: RegistrySettings = DEFAULTS,
) -> Image:
    pulls = Pulls(Client(settings, {}), store)
    return pulls.pull(reference.parse(name), progress, credentials, platform=platform)


def test_pull_and_pull_again(serve: Any, store: ImageStore) -> None:
    fake = serve(a_fake())
    image, events = pull(fake, store)
    name = f"127.0.0.1:{fake.port}/team/app"
    assert (image.id, image.repo_tags) == (sha256(CONFIG), (f"{name}:1",))
    assert image.repo_digests == (f"{name}@{sha256(MANIFEST)}",)
    assert events[0] == {"status": "Pulling from team/app", "id": "1"}
    assert events[-1]["status"] == f"Status: Downloaded newer image for {name}:1"
    assert {"Pulling fs layer", "Download complete", "Pull complete"} <= {e["status"] for e in events}
    fake.requests.clear()
    _, events = pull(fake, store)
    assert events[-1]["status"] == f"Status: Image is up to date for {name}:1"
    assert fake.paths == ["/v2/team/app/manifests/1"], "nothing is fetched twice"


def test_by_digest(serve: Any, store: ImageStore) -> None:
    fake = serve(a_fake())
    image, _ = pull(fake, store, f"@{sha256(MANIFEST)}")
    assert image.repo_tags == ()
    assert store.get(f"127.0.0.1:{fake.port}/team/app@{sha256(MANIFEST)}").id == image.id
    fake.documents[sha256(b"other")] = MANIFEST
    with pytest.raises(ProtocolError, match="instead of"):
        pull(fake, store, f"@{sha256(b'other')}")


def test_index_gives_this_hosts_platform(serve: Any, store: ImageStore) -> None:
    mine = {"os": "linux", "architecture": host_platform().architecture}
    index = json.dumps(
        {
            "schemaVersion": 2,
            "manifests": [
                descriptor(b"other", imagefiles.MANIFEST, platform={"os": "linux", "architecture": "none"}),
                descriptor(MANIFEST, imagefiles.MANIFEST, platform=mine),
            ],
        }
    ).encode()
    fake = serve(a_fake())
    fake.documents["1"] = index
    image, _ = pull(fake, store)
    assert image.id == sha256(CONFIG)
    assert image.repo_digests == (f"127.0.0.1:{fake.port}/team/app@{sha256(index)}",)
    with pytest.raises(NotFound, match="no matching manifest for linux/s390x"):
        pull_by_name(f"127.0.0.1:{fake.port}/team/app:1", store, platform="linux/s390x")


@pytest.mark.parametrize("ranges", [True, False])
def test_a_cut_download_goes_on(serve: Any, store: ImageStore, ranges: bool) -> None:
    fake = serve(a_fake(ranges=ranges, cuts=4))
    image, _ = pull(fake, store)
    assert (store.layer_dirs(image)[0] / "noise").stat().st_size == 6_000_000
    resumed = [
        headers["range"]
        for _, path, headers in fake.requests
        if path.endswith(sha256(NOISE)) and "range" in headers
    ]
    assert len(resumed) == 4


def test_a_server_that_always_cuts_is_given_up_and_whole_blobs_stay(
    serve: Any, store: ImageStore, paths: Paths
) -> None:
    fake = serve(a_fake(ranges=False, cuts=100))
    with pytest.raises(HostRefused, match="cannot reach the registry"):
        pull(fake, store)
    assert list(paths.incoming.iterdir()) == []
    assert store.list() == []
    fake.cuts = 0
    fake.requests.clear()
    pull(fake, store)
    assert len(fake.of_blobs()) <= 3


def test_damaged_blob_is_refused_and_nothing_stays(serve: Any, store: ImageStore, paths: Paths) -> None:
    fake = serve(a_fake())
    fake.blobs[sha256(BLOB)] = BLOB[:-1] + b"!"
    with pytest.raises(ProtocolError, match=f"{sha256(BLOB)} is damaged"):
        pull(fake, store)
    fake.blobs[sha256(BLOB)] = BLOB + b"more"
    with pytest.raises(ProtocolError, match="more of"):
        pull(fake, store)
    assert (list(paths.incoming.iterdir()), list(paths.blobs.iterdir())) == ([], [])


def test_bearer_token_without_and_with_credentials(serve: Any, store: ImageStore) -> None:
    fake = serve(a_fake(auth="bearer"))
    pull(fake, store)
    assert fake.tokens == 1, "one token serves the whole pull"
    pull(fake, store, username=USER, password=PASSWORD)
    assert basic() in fake.authorizations("/token")
    with pytest.raises(NotFound, match=r"pull access denied for .*team/app, repository does not exist"):
        pull(fake, store, username=USER, password="wrong")


def test_basic(serve: Any, store: ImageStore) -> None:
    fake = serve(a_fake(auth="basic"))
    pull(fake, store, username=USER, password=PASSWORD)
    with pytest.raises(NotFound, match="no basic auth credentials"):
        pull(fake, store)
    with pytest.raises(NotFound, match="unauthorized") as caught:
        pull(fake, store, username=USER, password="wrong-one")
    assert "wrong-one" not in str(caught.value)


def test_credentials_do_not_follow_to_another_host(serve: Any, store: ImageStore) -> None:
    other = serve(a_fake())
    fake = serve(a_fake(auth="basic", redirect_to=f"http://localhost:{other.port}"))
    pull(fake, store, username=USER, password=PASSWORD)
    assert other.authorizations() == {""}


def test_what_the_registry_does_not_have(serve: Any, store: ImageStore) -> None:
    fake = serve(a_fake())
    with pytest.raises(NotFound, match=r"manifest for 127.0.0.1:\d+/team/app:2 not found: manifest unknown"):
        pull(fake, store, ":2")


def test_server_errors_are_tried_again_and_then_told(serve: Any, store: ImageStore) -> None:
    fake = serve(a_fake(statuses=[(503, {})], broken=True))
    with pytest.raises(HostRefused, match="answers 503"):
        pull(fake, store)
    assert len(fake.requests) == 5


def test_no_registry_there_fails_at_once(store: ImageStore) -> None:
    with pytest.raises(HostRefused, match=r"cannot reach the registry 127\.0\.0\.1:1: "):
        pull_by_name("127.0.0.1:1/a", store)


def test_a_client_that_goes_away_stops_the_pull(serve: Any, store: ImageStore, paths: Paths) -> None:
    def gone(event: dict[str, Any]) -> None:
        if event["status"] == "Download complete":
            raise BrokenPipeError

    fake = serve(a_fake())
    with pytest.raises(BrokenPipeError):
        pull_by_name(f"127.0.0.1:{fake.port}/team/app:1", store, gone)
    assert (store.list(), list(paths.incoming.iterdir())) == ([], [])


def test_a_platform_that_was_asked_for_is_checked(serve: Any, store: ImageStore) -> None:
    fake = serve(a_fake())
    name = f"{fake.address}/team/app:1"
    with pytest.raises(
        NotFound, match="does not match the specified platform: wanted linux/s390x, actual: linux/amd64"
    ):
        pull_by_name(name, store, platform="linux/s390x")
    assert store.list() == []
    assert pull_by_name(name, store, platform="linux/amd64").id == sha256(CONFIG)


# -- several at a time ----------------------------------------------------------------------------


def in_background(work: Callable[[], object]) -> Callable[[], object]:
    """Starts it; what is returned waits for it, and raises what it has raised."""
    pool = ThreadPoolExecutor(max_workers=1)
    future = pool.submit(work)
    pool.shutdown(wait=False)
    return lambda: future.result(20)


def a_pull(
    pulls: Pulls,
    fake: Fake,
    tag: str = "1",
    progress: Progress = lambda event: None,
    cancel: Cancel | None = None,
) -> Callable[[], object]:
    name = reference.parse(f"127.0.0.1:{fake.port}/team/app:{tag}")
    return in_background(lambda: pulls.pull(name, progress, cancel=cancel))


def test_a_blob_comes_once_however_many_want_it(serve: Any, store: ImageStore) -> None:
    fake, pulls = serve(a_fake(gate=threading.Event())), Pulls(Client(DEFAULTS, {}), store)
    fake.documents["2"] = MANIFEST
    heard: list[list[dict[str, Any]]] = [[], [], []]
    waiting = threading.Semaphore(0)

    def hear(number: int, event: dict[str, Any]) -> None:
        heard[number].append(event)
        if event["status"] == "Pulling fs layer" and event["id"] == sha256(NOISE)[7:19]:
            waiting.release()

    running = [
        a_pull(pulls, fake, tag, functools.partial(hear, number))
        for number, tag in enumerate(("1", "1", "2"))
    ]
    for _ in running:
        assert waiting.acquire(timeout=10)
    assert fake.reached.wait(10)
    fake.gate.set()
    for wait in running:
        wait()
    assert sorted(fake.of_blobs()).count(f"/v2/team/app/blobs/{sha256(NOISE)}") == 1
    for events in heard:
        told = [event["status"] for event in events if event.get("id") == sha256(NOISE)[7:19]]
        assert told[-1] == "Pull complete"
    assert len(store.list()) == 1


def test_who_waits_for_a_pull_that_is_cancelled_goes_on_where_it_stopped(
    serve: Any, store: ImageStore
) -> None:
    fake, pulls, cancel = serve(a_fake(gate=threading.Event())), Pulls(Client(DEFAULTS, {}), store), Cancel()
    other, follows = serve(a_fake()), threading.Event()
    first = a_pull(pulls, fake, cancel=cancel)
    assert fake.reached.wait(10)

    def hear(event: dict[str, Any]) -> None:
        if event["status"] == "Pulling fs layer" and event["id"] == sha256(NOISE)[7:19]:
            follows.set()

    second = a_pull(pulls, other, progress=hear)
    assert follows.wait(10)
    cancel()
    with pytest.raises(Stopped):
        first()
    second()
    fake.gate.set()
    assert (store.layer_dirs(store.list()[0])[0] / "noise").stat().st_size == 6_000_000


def test_different_pulls_do_not_wait_for_each_other(serve: Any, store: ImageStore) -> None:
    slow, fast = serve(a_fake(gate=threading.Event())), serve(a_fake())
    layer = files({"etc/other": "x"})
    configuration = config([sha256(layer)])
    document = manifest(configuration, [layer])
    fast.documents["1"] = document
    fast.blobs = {sha256(data): data for data in (configuration, layer)}
    pulls = Pulls(Client(DEFAULTS, {}), store)
    first = a_pull(pulls, slow)
    assert slow.reached.wait(10)
    a_pull(pulls, fast)()
    assert [image.id for image in store.list()] == [sha256(configuration)]
    slow.gate.set()
    first()


def test_a_pull_goes_on_after_the_daemon_was_restarted(serve: Any, paths: Paths) -> None:
    fake = serve(a_fake(cuts=1, lost=True))
    name = f"{fake.address}/team/app:1"
    state = State(paths)
    with pytest.raises(HostRefused, match="answers 404"):
        pull_by_name(name, ImageStore(paths, state))
    state.close()
    fake.requests.clear()
    fake.lost = False
    state = State(paths)
    pull_by_name(name, ImageStore(paths, state))
    state.close()
    ranges = [headers["range"] for _, path, headers in fake.requests if path.endswith(sha256(NOISE))]
    assert ranges and int(ranges[0].removeprefix("bytes=").rstrip("-")) >= 1_000_000


def test_what_was_here_and_is_wrong_is_fetched_anew(serve: Any, store: ImageStore, paths: Paths) -> None:
    fake = serve(a_fake())
    (paths.partial / sha256(NOISE)[7:]).write_bytes(b"not the start of it")
    pull(fake, store)
    assert len([path for path in fake.of_blobs() if path.endswith(sha256(NOISE))]) == 2


def test_wrong_bytes_of_a_mirror_are_fetched_from_the_registry(serve: Any, store: ImageStore) -> None:
    fake, mirror = serve(a_fake()), serve(a_fake())
    mirror.blobs[sha256(NOISE)] = NOISE[:-1] + b"!"
    settings = RegistrySettings(mirrors={fake.address: (f"http://{mirror.address}",)})
    pull_by_name(f"{fake.address}/team/app:1", store, settings=settings)
    assert fake.of_blobs() == [f"/v2/team/app/blobs/{sha256(NOISE)}"]


# -- what is no image for us ----------------------------------------------------------------------


def altered(**changes: Any) -> bytes:
    return json.dumps({**json.loads(MANIFEST), **changes}).encode()


DOCKER = "application/vnd.docker"
LAYER_ENTRY = json.loads(MANIFEST)["layers"][0]


@pytest.mark.parametrize(
    ("document", "problem"),
    [
        (b'{"schemaVersion": 1, "fsLayers": []}', "schema version 1"),
        (altered(layers=[{**LAYER_ENTRY, "urls": ["http://x/y"]}]), "foreign layer"),
        (
            altered(
                layers=[{**LAYER_ENTRY, "mediaType": "application/vnd.docker.image.rootfs.foreign.diff.tar"}]
            ),
            "foreign layer",
        ),
        (
            altered(config={**LAYER_ENTRY, "mediaType": "application/vnd.cncf.helm.config.v1+json"}),
            "not a container image, but an artifact of type application/vnd.cncf.helm",
        ),
        (
            altered(artifactType="application/x", config={**LAYER_ENTRY, "mediaType": "x/y"}),
            "type application/x",
        ),
        (altered(layers=[LAYER_ENTRY]), "its configuration has 2 layers, its manifest 1"),
    ],
)
def test_what_is_refused_by_name(serve: Any, store: ImageStore, document: bytes, problem: str) -> None:
    fake = serve(a_fake())
    fake.documents["1"] = document
    with pytest.raises(InputError, match=problem):
        pull(fake, store)
    assert store.list() == [] and list(store.blobs.digests()) == []


def test_zstd_without_a_libzstd(serve: Any, store: ImageStore, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = serve(a_fake())
    fake.documents["1"] = altered(
        layers=[
            {**layer, "mediaType": f"{imagefiles.LAYER}+zstd"} for layer in json.loads(MANIFEST)["layers"]
        ]
    )
    monkeypatch.setattr(zstd, "available", lambda: False)
    with pytest.raises(NotSupported, match="is compressed with zstd, and this host has no libzstd"):
        pull(fake, store)


def test_progress_is_told_as_docker_does(serve: Any, store: ImageStore) -> None:
    fake = serve(a_fake())
    _, events = pull(fake, store)
    one = [event["status"] for event in events if event.get("id") == sha256(BLOB)[7:19]]
    steps = [
        "Pulling fs layer",
        "Downloading",
        "Verifying Checksum",
        "Download complete",
        "Extracting",
        "Pull complete",
    ]
    assert [step for step in steps if step in one] == list(dict.fromkeys(one))
    assert {"Pulling fs layer", "Verifying Checksum", "Download complete", "Pull complete"} <= set(one)


def test_a_blob_that_went_bad_here_is_fetched_anew(serve: Any, store: ImageStore, paths: Paths) -> None:
    """A power cut leaves a file without its end, which no record names."""
    fake = serve(a_fake())
    store.blobs.path(sha256(NOISE)).write_bytes(NOISE[:1_000_000])
    image, _ = pull(fake, store)
    assert store.blobs.path(sha256(NOISE)).read_bytes() == NOISE and len(image.layers) == 2
