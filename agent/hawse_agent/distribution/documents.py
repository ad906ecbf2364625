"""JSON documents of images: manifests, indexes, configurations. Read with care, since anybody may have made
them."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from hawse_agent.errors import InputError

MAX_JSON = 4 << 20
"""Bytes of one document. Registries refuse larger manifests too."""


def parse_json(data: bytes, what: str) -> dict[str, Any]:
    """A JSON object; raises InputError."""
    try:
        value = json.loads(data)
        if (
            b"\\ud" in data.lower()
        ):  # half a character, perhaps, which no answer and no system call could hold
            json.dumps(value, ensure_ascii=False).encode()
    except ValueError as error:
        raise InputError(f"{what} is not JSON: {error}") from error
    except RecursionError as error:
        raise InputError(f"{what} is nested too deeply") from error
    if not isinstance(value, dict):
        raise InputError(f"{what} is not a JSON object")
    return value


def sha256(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"
