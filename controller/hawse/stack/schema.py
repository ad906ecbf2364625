"""JSON Schema of the Compose files that Hawse takes, for editors (`yaml-language-server: $schema=…`)."""

from __future__ import annotations

from typing import Any

from hawse.stack.model import ComposeFile


def compose_schema() -> dict[str, Any]:
    schema = ComposeFile.model_json_schema(by_alias=True, mode="validation")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **schema,
        "title": "Hawse stack",
        "description": "A Compose file as `hawse up` and the stack module take it",
    }
