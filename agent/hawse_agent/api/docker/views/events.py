"""Events in Docker's JSON. Pure."""

from __future__ import annotations

from typing import Any

from hawse_agent.api.docker.views.times import NANO
from hawse_agent.engine.views import Event


def event_json(happened: Event) -> dict[str, Any]:
    attributes = dict(happened.attributes)
    old_names = {"status": happened.action, "id": happened.id}
    if happened.kind == "container":
        old_names["from"] = attributes.get("image", "")
    return {
        **(old_names if happened.kind in ("container", "image") else {}),
        "Type": happened.kind,
        "Action": happened.action,
        "Actor": {"ID": happened.id, "Attributes": attributes},
        "scope": "local",
        "time": int(happened.time),
        "timeNano": int(happened.time * NANO),
    }
