"""The id of a run, for audit logs and the history. Cheap to import: every command has one."""

from __future__ import annotations

import secrets
import time


def new_run_id(now: float | None = None) -> str:
    """Sorts by time, and two runs of one second differ: 20260130-142501-9f3a."""
    stamp = time.strftime("%Y%m%d-%H%M%S", time.localtime(now))
    return f"{stamp}-{secrets.token_hex(2)}"
