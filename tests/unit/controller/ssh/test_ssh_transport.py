"""Answers to a login that come at once, or never."""

from __future__ import annotations

import threading
from typing import Any

import paramiko
import pytest

from hawse.ssh.transport import Login


class FakeTransport:
    """Answers a message from within the call that sends it."""

    def __init__(self, answer: bytes | None) -> None:
        self.lock = threading.Lock()
        self.auth_timeout = 0.05
        self.saved: Exception | None = None
        self.answer = answer
        self.handler: Any = Login(self)
        self.sent: list[bytes] = []

    def _send_message(self, message: paramiko.Message) -> None:
        self.sent.append(message.asbytes())
        if self.answer is not None:
            kind = self.answer[0]
            answer = paramiko.Message(self.answer[1:])
            self.handler._client_handler_table[kind](answer)

    def _auth_trigger(self) -> None:
        """Compression would begin here."""

    def is_active(self) -> bool:
        return True

    def get_exception(self) -> Exception | None:
        return None

    def get_log_channel(self) -> str:
        return "paramiko"

    def _log(self, *_: object) -> None:
        """Nobody reads it."""


def refusal() -> bytes:
    message = paramiko.Message()
    message.add_byte(bytes([paramiko.common.MSG_USERAUTH_FAILURE]))
    message.add_list(["publickey", "password"])
    message.add_boolean(False)
    return message.asbytes()


def test_an_answer_that_is_there_at_once() -> None:
    transport = FakeTransport(bytes([paramiko.common.MSG_USERAUTH_SUCCESS]))
    assert transport.handler.auth_password("alice", "secret") == []
    assert transport.handler.is_authenticated() and len(transport.sent) == 1


def test_a_refusal_that_is_there_at_once() -> None:
    transport = FakeTransport(refusal())
    with pytest.raises(paramiko.AuthenticationException, match="Authentication failed"):
        transport.handler.auth_password("alice", "wrong")


def test_no_answer_is_not_taken_for_a_refusal() -> None:
    transport = FakeTransport(None)
    with pytest.raises(paramiko.SSHException, match=r"no answer to the login within 0\.05 s") as caught:
        transport.handler.auth_password("alice", "secret")
    assert not isinstance(caught.value, paramiko.AuthenticationException)
