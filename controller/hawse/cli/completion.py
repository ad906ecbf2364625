"""`completion`: a script for bash, zsh or fish that completes verbs and options.

    source <(hawse completion bash)

The script is a table of words, made of the same parsers that read the command line. Completing runs nothing.
"""

from __future__ import annotations

import argparse
import shlex

from hawse.cli.context import Context
from hawse.cli.verb import Verb


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shell", choices=tuple(SHELLS))


def _run(context: Context, options: argparse.Namespace) -> int:
    context.print(SHELLS[options.shell](_table(), _top()))
    return 0


def _table() -> dict[str, tuple[str, list[str]]]:
    """Verb → its help and its options."""
    from hawse.cli.main import all_verbs, verb_parser

    return {verb.name: (verb.help, _flags(verb_parser(verb))) for verb in all_verbs()}


def _top() -> tuple[list[str], list[str]]:
    """Options before the verb: all of them, and those that take a value."""
    from hawse.cli.main import top_parser

    parser = top_parser()
    valued = [flag for action in parser._actions if action.nargs != 0 for flag in action.option_strings]
    return _flags(parser), valued


def _flags(parser: argparse.ArgumentParser) -> list[str]:
    return [flag for action in parser._actions for flag in action.option_strings]


_BASH = """\
_hawse() {{
    local word=${{COMP_WORDS[COMP_CWORD]}} verb= i=1
    while (( i < COMP_CWORD )); do
        case ${{COMP_WORDS[i]}} in
            {valued}) (( i++ )) ;;
            -*) ;;
            {nouns}) [[ -z $verb ]] && verb=${{COMP_WORDS[i]}} || verb="$verb ${{COMP_WORDS[i]}}" ;;
            *) if [[ -z $verb ]]; then verb=${{COMP_WORDS[i]}}; break
               else verb="$verb ${{COMP_WORDS[i]}}"; break; fi ;;
        esac
        (( i++ ))
    done
    local words
    case $verb in
{cases}
        *) words= ;;
    esac
    COMPREPLY=( $(compgen -W "$words" -- "$word") )
    [[ ${{#COMPREPLY[@]}} -eq 0 ]] && COMPREPLY=( $(compgen -f -- "$word") )
}}
complete -o filenames -F _hawse hawse
"""


def _bash(table: dict[str, tuple[str, list[str]]], top: tuple[list[str], list[str]]) -> str:
    flags, valued = top
    verbs = list(dict.fromkeys(name.split()[0] for name in table))
    nouns = list(dict.fromkeys(name.split()[0] for name in table if " " in name))
    words = {"": [*verbs, *flags], **{name: options for name, (_, options) in table.items()}}
    for noun in nouns:
        words[noun] = [name.split()[1] for name in table if name.startswith(f"{noun} ")]
    cases = [f"        {name!r}) words={shlex.quote(' '.join(known))} ;;" for name, known in words.items()]
    return _BASH.format(valued="|".join(valued), nouns="|".join(nouns), cases="\n".join(cases)).rstrip()


def _zsh(table: dict[str, tuple[str, list[str]]], top: tuple[list[str], list[str]]) -> str:
    return f"autoload -U +X bashcompinit && bashcompinit\n{_bash(table, top)}"


def _fish(table: dict[str, tuple[str, list[str]]], top: tuple[list[str], list[str]]) -> str:
    verbs = list(dict.fromkeys(name.split()[0] for name in table))
    none = f"not __fish_seen_subcommand_from {' '.join(verbs)}"
    lines = [f"complete -c hawse -n {shlex.quote(none)} {_fish_flag(flag)}" for flag in top[0]]
    for name, (text, flags) in table.items():
        first, _, second = name.partition(" ")
        seen = f"__fish_seen_subcommand_from {first}"
        if second:
            lines.append(f"complete -c hawse -f -n {shlex.quote(none)} -a {first}")
            lines.append(f"complete -c hawse -n {shlex.quote(seen)} -a {second} -d {shlex.quote(text)}")
            seen += f"; and __fish_seen_subcommand_from {second}"
        else:
            lines.append(f"complete -c hawse -f -n {shlex.quote(none)} -a {first} -d {shlex.quote(text)}")
        lines += [f"complete -c hawse -n {shlex.quote(seen)} {_fish_flag(flag)}" for flag in flags]
    return "\n".join(dict.fromkeys(lines))


def _fish_flag(flag: str) -> str:
    return f"-l {flag[2:]}" if flag.startswith("--") else f"-s {flag[1:]}"


SHELLS = {"bash": _bash, "zsh": _zsh, "fish": _fish}

VERBS = (
    Verb(name="completion", help="print completion for bash, zsh or fish", arguments=_arguments, run=_run),
)
