"""What is wrong with a Dockerfile, collected: a person sees all of it at once, before anything is built."""

from __future__ import annotations

from hawse_agent.build.instructions import Place
from hawse_agent.errors import InputError, NotSupported

_SHOWN = 50


class Problems:
    def __init__(self) -> None:
        self._found: list[tuple[tuple[str, int], InputError]] = []

    def add(self, place: Place, error: InputError) -> None:
        self._found.append(((place.file, place.line), error.at(str(place))))

    def __bool__(self) -> bool:
        return bool(self._found)

    def raise_any(self) -> None:
        """One problem as it is, several as one error with a line each, in the file's order."""
        errors = [error for _, error in sorted(self._found, key=lambda one: one[0])]
        if not errors:
            return
        if len(errors) == 1:
            raise errors[0]
        kind = NotSupported if all(isinstance(error, NotSupported) for error in errors) else InputError
        hints = [error.hint for error in errors if error.hint]
        lines = [error.message for error in errors[:_SHOWN]]
        if len(errors) > _SHOWN:
            lines.append(f"and {len(errors) - _SHOWN} more")
        raise kind("\n".join(lines), hint=hints[0] if hints else "")
