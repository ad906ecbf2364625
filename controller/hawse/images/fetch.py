"""Fetches an image from an agent into the controller's store: layers that are not held here, each once.

What an agent has built or committed it keeps uncompressed; here it becomes zstd, since it is sent on.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hawse.fleet.client import AgentClient
from hawse.images.importer import ZstdLayer
from hawse.images.store import ImageStore, StoredImage
from hawse_agent.errors import ProtocolError

_PLAIN = ("application/vnd.oci.image.layer.v1.tar", "application/vnd.docker.image.rootfs.diff.tar")


def fetch(
    client: AgentClient,
    store: ImageStore,
    name: str,
    reference: str,
    *,
    progress: Callable[[int], None] = lambda size: None,
) -> StoredImage:
    """The image that the agent knows as `name` is held here as `reference`. `progress` hears of bytes."""
    identity, layers = client.image_layers(name)
    with client.download_blob(identity) as pieces:
        config = b"".join(pieces)
    held = store.layers()
    described = [held.get(layer["diff_id"]) or _fetched(client, store, layer, progress) for layer in layers]
    image = store.add([reference], config, described)
    if image.variants[0].id != identity:
        raise ProtocolError(f"{client.name}: the configuration of {name} came damaged")
    return image


def _fetched(
    client: AgentClient, store: ImageStore, layer: dict[str, Any], progress: Callable[[int], None]
) -> dict[str, Any]:
    digest, size = str(layer["digest"]), int(layer["size"])
    if layer["mediaType"] in _PLAIN:
        return _packed(client, store, digest, progress)
    with store.receiving(digest, size) as writer:
        if writer is not None:
            with client.download_blob(digest, offset=writer.size) as pieces:
                for piece in pieces:
                    writer.write(piece)
                    progress(len(piece))
    return {"mediaType": layer["mediaType"], "digest": digest, "size": size}


def _packed(
    client: AgentClient, store: ImageStore, digest: str, progress: Callable[[int], None]
) -> dict[str, Any]:
    """The digest of a plain layer's blob is its diff_id."""
    with store.writer() as writer, client.download_blob(digest) as pieces:
        packing = ZstdLayer(writer)
        for piece in pieces:
            packing.write(piece)
            progress(len(piece))
        packing.finish()
        if packing.diff_id != digest:
            raise ProtocolError(f"{client.name}: the layer {digest[:19]} came damaged")
    return packing.descriptor()
