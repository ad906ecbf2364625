"""Ctrl-C: the hosts at work are cut, what they were at is said, and the rest is not begun."""

from __future__ import annotations

import os
import signal
import threading

from tests.support.fakefleet import Scene

PLAY = """\
- hosts: w2
  tasks: [command: short]
- hosts: [w1, w3]
  serial: 1
  tasks:
    - copy: {dest: /a, content: new}
    - name: the long one
      command: long
    - command: after
"""


def test_ctrl_c_says_what_was_done_where(scene: Scene) -> None:
    agent = scene["w1"]
    agent.hold = "long"

    def press() -> None:
        assert agent.holding.wait(10)
        os.kill(os.getpid(), signal.SIGINT)

    presser = threading.Thread(target=press)
    presser.start()
    finished = scene.play(PLAY)
    presser.join()

    assert finished.exit_code == 130 and finished.interrupted
    assert finished.stopped == "interrupted; nothing was done on w3"
    first, second = finished.report.hosts
    assert (first.host, first.outcome) == ("w2", "changed")
    assert second.message == "interrupted at: run command the long one"
    assert [result.name for result in second.results] == ["/a"] and second.changed == 1
    assert scene.ran() == {"w2": ["short"], "w1": ["long"]}
    assert scene["w3"].asked == []
