"""The keys that let go of a terminal: `ctrl-p,ctrl-q` and what else Docker's clients ask for. Pure."""

from __future__ import annotations

from hawse_agent.errors import InputError

DEFAULT = "ctrl-p,ctrl-q"


def parse(keys: str) -> bytes:
    """`ctrl-x,a,ctrl-@` as the bytes that a terminal sends; raises InputError."""
    return bytes(_key(key) for key in (keys or DEFAULT).split(","))


def _key(key: str) -> int:
    if len(key) == 1 and key.isascii():
        return ord(key)
    if key.startswith("ctrl-") and len(key) == 6 and "@" <= key[5].upper() <= "_":
        return ord(key[5].upper()) - ord("@")
    raise InputError(f"Invalid detach keys ({key}) provided: a letter, or ctrl- with one of a-z @ [ \\ ] ^ _")


class Detector:
    """Finds the sequence in what is typed, however it is cut into pieces."""

    def __init__(self, sequence: bytes) -> None:
        self._sequence = sequence
        self._matched = 0

    def feed(self, data: bytes) -> tuple[bytes, bool]:
        """What goes on to the container, and whether the keys were typed: what follows them is dropped."""
        passed = bytearray()
        for byte in data:
            if byte == self._sequence[self._matched]:
                self._matched += 1
                if self._matched == len(self._sequence):
                    return bytes(passed), True
                continue
            passed += self._sequence[: self._matched]  # it was not the sequence after all
            self._matched = 0
            if byte == self._sequence[0]:
                self._matched = 1
            else:
                passed.append(byte)
        return bytes(passed), False
