"""Modes as chmod(1) takes them."""

from __future__ import annotations

import pytest

from hawse_agent.errors import InputError
from hawse_agent.provision import modes


@pytest.mark.parametrize(
    ("text", "current", "directory", "expected"),
    [
        ("0644", 0o777, False, 0o644),
        ("755", 0, False, 0o755),
        ("0o640", 0, False, 0o640),
        ("02755", 0, True, 0o2755),
        ("u=rw,g=r,o=", 0o777, False, 0o640),
        ("a+x", 0o644, False, 0o755),
        ("+x", 0o600, False, 0o711),
        ("+w", 0o444, False, 0o644),  # the umask keeps the others out
        ("go-rwx", 0o777, False, 0o700),
        ("u=rwX,go=rX", 0o600, False, 0o644),
        ("u=rwX,go=rX", 0o700, False, 0o755),
        ("u=rwX,go=rX", 0o600, True, 0o755),
        ("g=u", 0o640, False, 0o660),
        ("u+s", 0o755, False, 0o4755),
        ("g+s,o+t", 0o755, True, 0o3755),
        ("u=rwx", 0o4755, False, 0o755),
        ("g=rx", 0o2775, True, 0o2755),  # chmod keeps it on directories
        ("u=rw-x+x", 0, False, 0o700),
        ("o=", 0o777, False, 0o770),
    ],
)
def test_a_mode_is_what_chmod_makes_of_it(text: str, current: int, directory: bool, expected: int) -> None:
    assert modes.show(modes.resolve(text, current, directory=directory, umask=0o022)) == modes.show(expected)


@pytest.mark.parametrize("text", ["rw-r--r--", "888", "u+rwz", "u", "", "77777"])
def test_what_is_no_mode_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="not a mode"):
        modes.check(text)
