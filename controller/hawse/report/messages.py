"""What registries and builders say while they work: Docker's messages, as plain text.

    {"id": "1f2e…", "status": "Downloading", "progressDetail": {"current": 1, "total": 9}}    of a layer
{"status": "Digest: sha256:…"}    {"stream": "Step 1/3 : FROM …\\n"}                         of the whole
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Message = Mapping[str, Any]


def plain(message: Message) -> str:
    """Its text where nothing is redrawn, "" for one that only tells how far something has come."""
    if "stream" in message:
        return str(message["stream"])
    if detail(message) != (0, 0):
        return ""
    layer = f"{message['id']}: " if message.get("id") else ""
    status = str(message.get("status") or "")
    return f"{layer}{status}\n" if status or layer else ""


def detail(message: Message) -> tuple[int, int]:
    """How far it has come, and how far it is; zeros where it does not say."""
    detail = message.get("progressDetail") or {}
    return int(detail.get("current") or 0), int(detail.get("total") or 0)
