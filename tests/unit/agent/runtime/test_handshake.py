"""What the shim's end makes of a child that ends."""

from __future__ import annotations

import pytest

from hawse_agent.errors import StartFailed
from hawse_agent.runtime import handshake


def test_who_is_killed_while_it_waits_for_go_runs_no_program() -> None:
    ours, theirs = handshake.pair()
    handshake.ChildEnd(theirs).ready(None, [])
    theirs.close()
    parent = handshake.ParentEnd(ours)
    assert parent.wait_until_ready().console is None
    with pytest.raises(StartFailed, match="ended before its program"):
        parent.go()
    parent.close()
