"""`hawse-agent`: daemon, dial, doctor, reset, version; `zygote` is for the daemon alone.

Dispatches before anything is imported: `dial` runs once for every connection of a controller.
"""

from __future__ import annotations

import sys

USAGE = """\
hawse-agent COMMAND

  daemon [--root DIR] [--socket PATH] [--ready-fd N]   serve the API until SIGTERM; containers stay
  dial [--root DIR]                                    join stdin and stdout with the daemon; starts it
  doctor [--json]                                      what this host has, and what it lacks
  doctor --rebuild [--root DIR]                        make a damaged state.db anew; containers run on
  reset [--root DIR] [--volumes]                       remove containers, networks and files of this instance
  version [--json]

--debug shows tracebacks.
"""
FLAGS = {
    "daemon": {"--root": True, "--socket": True, "--ready-fd": True},
    "dial": {"--root": True},
    "zygote": {"--fd": True},
    "doctor": {"--json": False, "--rebuild": False, "--root": True},
    "reset": {"--root": True, "--volumes": False},
    "version": {"--json": False},
}
"""Command → option → whether it takes a value."""


class Usage(Exception):
    pass


def run() -> int:
    """The entry point; returns the exit code."""
    arguments = sys.argv[1:]
    debug = "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"]
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(USAGE, end="")
        return 0 if arguments else 2
    try:
        return _dispatch(arguments[0], _options(arguments[0], arguments[1:]))
    except Usage as error:
        print(f"hawse-agent: {error}\n\n{USAGE}", end="", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        if debug:
            raise
        return _report(error)


def _options(command: str, arguments: list[str]) -> dict[str, str]:
    known = FLAGS.get(command)
    if known is None:
        raise Usage(f"unknown command {command!r}")
    options: dict[str, str] = {}
    rest = list(arguments)
    while rest:
        name, equals, value = rest.pop(0).partition("=")
        if name not in known:
            raise Usage(f"{command}: unknown option {name!r}")
        if not known[name]:
            value = "1"
        elif not equals:
            if not rest:
                raise Usage(f"{command}: {name} needs a value")
            value = rest.pop(0)
        options[name] = value
    return options


def _dispatch(command: str, options: dict[str, str]) -> int:
    root = options.get("--root", "")
    if command == "dial":
        from hawse_agent import dial

        return dial.main(root)
    if command in ("zygote", "daemon"):
        from hawse_agent.linux import sealed

        sealed.ensure()
    if command == "zygote":
        from hawse_agent import zygote_main

        return zygote_main.main(int(options["--fd"]))
    if command == "daemon":
        from hawse_agent import daemon

        return daemon.main(root, options.get("--socket", ""), int(options.get("--ready-fd", "-1")))
    if command == "doctor" and "--rebuild" in options:
        if "--json" in options:
            raise Usage("doctor: --rebuild and --json do not go together")
        from hawse_agent import rebuild

        return rebuild.main(root)
    if command == "doctor":
        from hawse_agent import doctor

        return doctor.main(root, as_json="--json" in options)
    if command == "reset":
        from hawse_agent import reset

        return reset.main(root, volumes="--volumes" in options)
    from hawse_agent import __version__, launch

    if "--json" in options:
        print(f'{{"version": "{__version__}", "bundle": "{launch.bundle()}"}}')
    else:
        print(f"hawse-agent {__version__}")
    return 0


def _report(error: Exception) -> int:
    from hawse_agent.errors import HawseError, InternalError

    if isinstance(error, OSError) and not isinstance(error, HawseError):
        print(f"hawse-agent: {error}", file=sys.stderr)
        return 1
    if not isinstance(error, HawseError):
        error = InternalError(f"{type(error).__name__}: {error}", hint="--debug shows where")
    print(f"hawse-agent: {error.message}", file=sys.stderr)
    if error.hint:
        print(f"  {error.hint}", file=sys.stderr)
    return error.exit_code


if __name__ == "__main__":
    sys.exit(run())
