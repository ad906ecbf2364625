"""What a registry or a host calls a digest names no file outside of the store."""

from __future__ import annotations

from pathlib import Path

import pytest

from hawse.images.store import ImageStore
from hawse_agent.distribution.manifest import descriptor
from hawse_agent.errors import InputError, ProtocolError

HEX = "0123456789abcdef" * 4
HOSTILE = (
    "sha256:../../victim",
    "sha256:/etc/victim",
    f"sha256:{HEX}/../x",
    f"sha512:{HEX}",
    HEX,
    "",
    f"sha256:{HEX}\n",
)


@pytest.mark.parametrize("digest", HOSTILE)
def test_no_path_is_taken_for_a_digest(tmp_path: Path, digest: str) -> None:
    store = ImageStore(tmp_path / "store")
    store.put(b"{}")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(InputError, match="damaged descriptor"):
        descriptor({"digest": digest, "size": 3}, "nginx")
    with pytest.raises(ProtocolError, match="is no digest"), store.receiving(digest, 3):
        pass
    for ask in (store.has, store.size, store.open_blob, store.read_json):
        with pytest.raises(ProtocolError, match="is no digest"):
            ask(digest)  # type: ignore[operator]
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("size", [-1, True, "3", None])
def test_a_size_is_a_number_of_bytes(size: object) -> None:
    with pytest.raises(InputError, match="damaged descriptor"):
        descriptor({"digest": f"sha256:{HEX}", "size": size}, "nginx")
