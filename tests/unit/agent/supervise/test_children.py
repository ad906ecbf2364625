"""Ends of children are heard, whoever made them and whenever that is known.."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import os
from hawse_agent.supervise.children import Children
from hawse_agent.supervise.loop import Loop

loop = Loop()
children = Children(loop)

def child(code):
    pid = os.fork()
    if pid == 0:
        os._exit(code)
    return pid

def reaped(pid):
    while os.path.exists(f"/proc/{pid}"):
        loop.run_once()

codes = []
children.announce()
children.announce()
early, orphan, late = child(7), child(8), child(9)
children.arrived(late, codes.append)
for pid in (early, orphan, late):
    reaped(pid)
assert codes == [9], codes
children.arrived(early, codes.append)
assert codes == [9, 7], codes
assert not children._unclaimed and not children._waiting
reaped(child(1))
assert not children._unclaimed
"""


def test_end_of_a_child_that_was_reaped_before_its_number_was_known_is_heard() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
