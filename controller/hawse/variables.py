"""A variable: its value, where it was written, and whether the value may hold templates.

What people write (inventory, vars files, playbooks, `-e`) is templated when it is used. What a host reports
(facts, results) and what is already rendered is data: it is never taken for a template.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hawse.yamlmarks import Marks, Place

_NOWHERE = Marks(file="", lines={})


@dataclass(frozen=True, slots=True)
class Variable:
    value: Any
    marks: Marks = _NOWHERE
    place: Place = ()
    templated: bool = True

    def where(self, *inner: str | int) -> str:
        """`file:line` of the value, or of the part of it at `inner`; "" when nobody wrote it."""
        return self.marks.where((*self.place, *inner)) if self.marks.file else ""


Variables = Mapping[str, Variable]


def data(value: Any) -> Variable:
    """A value that is used to the letter."""
    return Variable(value, templated=False)


def written(values: Mapping[Any, Any], marks: Marks, place: Place = ()) -> dict[str, Variable]:
    """The variables of a mapping that stands at `place` of a file. Raises InputError for `yes:` as a name."""
    for name in values:
        if not isinstance(name, str):
            raise marks.error((*place, name), f"a variable's name is text, not {name!r}", hint="quote it")
    return {name: Variable(value, marks, (*place, name)) for name, value in values.items()}
