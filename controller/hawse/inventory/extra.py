"""Variables of the command line: `-e port=80`, `-e '{"ports": [80]}'`, `-e @file.yml`. They win over all."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from hawse import yamlmarks
from hawse.inventory.varsfiles import load_file
from hawse.variables import Variable, written
from hawse.yamlmarks import Marks
from hawse_agent.errors import InputError


def extra_variables(arguments: Sequence[str]) -> dict[str, Variable]:
    """All of the arguments, later ones winning. Values of `key=value` are text, as with Ansible."""
    variables: dict[str, Variable] = {}
    for argument in arguments:
        variables |= _one(argument)
    return variables


def _one(argument: str) -> dict[str, Variable]:
    if argument.startswith("@"):
        return load_file(Path(argument[1:]).expanduser())
    if argument.lstrip().startswith(("{", "[")):
        document = yamlmarks.load(argument, "-e")
        if not isinstance(document.value, dict):
            raise InputError("expected a mapping", where="-e")
        return written(document.value, document.marks)
    marks = Marks(file="-e", lines={})
    try:
        words = shlex.split(argument)
    except ValueError as error:
        raise InputError(f"not valid: {error}", where="-e") from None
    variables = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not name:
            raise InputError("expected key=value, a JSON object or @file", where="-e")
        variables[name] = Variable(value, marks, (name,))
    return variables
