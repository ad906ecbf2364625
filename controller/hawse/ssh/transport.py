"""paramiko's Transport with our algorithms and without its waits.

AES-GCM comes first (no separate MAC pass); CBC, 3DES, MD5 and SHA-1 are not offered at all. The service
request is awaited by an event where paramiko polls every 100 ms, and the read loop wakes rarely. An answer to
a login is never missed, however fast it comes.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
from collections.abc import Callable, Sequence
from typing import Any

import paramiko

# The transport's thread logs what its caller gets as an exception anyway; without a handler Python prints it.
logging.getLogger("paramiko").addHandler(logging.NullHandler())

_WAKE = 2.0
"""Seconds between wake-ups of an idle read loop."""


# The published stubs know neither it nor the members that are overridden here.
_Base: Any = vars(paramiko)["ServiceRequestingTransport"]
_BaseHandler: Any = vars(paramiko.auth_handler)["AuthOnlyHandler"]


class Transport(_Base):  # type: ignore[misc]
    _active_check_timeout = _WAKE
    _preferred_ciphers = (
        "aes128-gcm@openssh.com",
        "aes256-gcm@openssh.com",
        "aes128-ctr",
        "aes192-ctr",
        "aes256-ctr",
    )
    _preferred_macs = (
        "hmac-sha2-256-etm@openssh.com",
        "hmac-sha2-512-etm@openssh.com",
        "hmac-sha2-256",
        "hmac-sha2-512",
    )

    def __init__(
        self, sock: socket.socket | paramiko.Channel, *, key_kinds: Sequence[str], banner: float
    ) -> None:
        super().__init__(sock, disabled_algorithms=None)
        self.daemon = True
        self.banner_timeout = banner
        self._service_answer = threading.Event()
        offered: tuple[str, ...] = _Base._preferred_keys
        known = [kind for name in key_kinds for kind in _signatures(name) if kind in offered]
        self._preferred_keys = (*known, *(kind for kind in offered if kind not in known))

    def _parse_service_accept(self, m: paramiko.Message) -> None:
        super()._parse_service_accept(m)
        self._service_answer.set()

    def ensure_session(self) -> None:
        if not self.active or not self.initial_kex_done:
            raise paramiko.SSHException("the connection has ended")
        if not self._service_answer.is_set():
            request = paramiko.Message()
            request.add_byte(paramiko.common.cMSG_SERVICE_REQUEST)
            request.add_string("ssh-userauth")
            self._send_message(request)
            if not self._service_answer.wait(self.auth_timeout) or not self.is_active():
                raise paramiko.SSHException("no answer to the request for authentication")
        self.auth_handler: Any = self.get_auth_handler()

    def get_auth_handler(self) -> Login:
        return Login(self)

    def close(self) -> None:
        """Wakes the read loop too: asleep in recv, it would keep the connection open until it next looks."""
        with contextlib.suppress(OSError, EOFError):  # it is gone already
            self.sock.shutdown(socket.SHUT_RDWR)
        super().close()

    def run(self) -> None:
        try:
            super().run()
        finally:
            self._service_answer.set()  # nobody waits for a connection that is gone


class Login(_BaseHandler):  # type: ignore[misc]
    """Makes its event before it asks. paramiko makes it after, and an answer that came between is lost."""

    def send_auth_request(
        self, username: str, method: str, finish_message: Callable[[paramiko.Message], None]
    ) -> list[str]:
        self.auth_method: str = method
        self.username: str = username
        message = paramiko.Message()
        message.add_byte(paramiko.common.cMSG_USERAUTH_REQUEST)
        for text in (username, "ssh-connection", method):
            message.add_string(text)
        finish_message(message)
        event = self.auth_event = threading.Event()
        with self.transport.lock:
            self.transport._send_message(message)
        timeout = self.transport.auth_timeout
        if not event.wait(timeout):
            raise paramiko.SSHException(f"no answer to the login within {timeout:g} s")
        further: list[str] = self.wait_for_response(event)
        return further


def _signatures(kind: str) -> tuple[str, ...]:
    """Algorithms that a key of a known_hosts type can sign with."""
    return ("rsa-sha2-512", "rsa-sha2-256") if kind == "ssh-rsa" else (kind,)
