"""Of images that a controller holds for several platforms, the one for this host."""

from __future__ import annotations

from dataclasses import replace

from hawse_agent.distribution import manifest
from hawse_agent.distribution.manifest import Platform
from hawse_agent.distribution.platforms import choose
from hawse_agent.spec import codec
from hawse_agent.spec.host import HostSpec, ImageSource, Item

_SOURCE = ("reference", "id", "manifest", "blobs", "size", "platform", "others")


def suited(spec: HostSpec, host: Platform | None = None) -> HostSpec:
    """The same program with each image as this host can run it. Raises InputError where there is none."""
    host = host or manifest.host_platform()
    return replace(spec, items=tuple(_item(item, host) for item in spec.items))


def _item(item: Item, host: Platform) -> Item:
    if item.stack is not None and item.stack.state == "present":
        return replace(
            item,
            stack=replace(item.stack, images=tuple(choose(source, host) for source in item.stack.images)),
        )
    if item.task is not None and item.task.module == "image" and item.task.args.get("platform"):
        source = codec.from_json(
            ImageSource, {key: value for key, value in item.task.args.items() if key in _SOURCE}, item.name
        )
        kept = {key: value for key, value in item.task.args.items() if key not in _SOURCE}
        chosen = codec.to_json(choose(source, host))
        return replace(item, task=replace(item.task, args={**kept, **chosen}))
    return item
