"""`version`: of this hawse, and of the agents when -H names hosts."""

from __future__ import annotations

import argparse
import json
import platform

from hawse.cli.context import Context
from hawse.cli.verb import Verb


def _version(context: Context, options: argparse.Namespace) -> int:
    from hawse_agent import __version__

    if context.options.hosts:
        from hawse.cli.hosts import ask

        answers, code = ask(context, context.places(), lambda agent: agent.version())
        if context.options.json:
            context.print(json.dumps(answers, indent=2))
        for name, answer in () if context.options.json else answers.items():
            context.print(f"{name}: hawse-agent {answer.get('version')} (API {answer.get('api_version')})")
        return code
    if context.options.json:
        context.print(json.dumps({"version": __version__, "python": platform.python_version()}))
    else:
        context.print(f"hawse {__version__} (Python {platform.python_version()})")
    return 0


VERBS = (Verb(name="version", help="show the version of hawse; with -H, of the agents", run=_version),)
