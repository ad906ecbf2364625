"""A zygote that replaces a dead one: executed by the daemon, never forked from it."""

from __future__ import annotations

import socket

from hawse_agent.network import dns
from hawse_agent.runtime import preload
from hawse_agent.supervise import shim, zygote


def main(fd: int) -> int:
    preload()
    shim.rehearse()
    zygote.main(socket.socket(fileno=fd), shim.main, dns.serve)
    return 0
