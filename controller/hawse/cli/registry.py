"""`pull`, `push`, `search`, `login`, `logout`: images of registries, by this machine's agent or by hosts.

Credentials are read from Docker's config.json here and go along with the one request that needs them.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from hawse.cli import lists
from hawse.cli.context import Context, Place
from hawse.cli.hosts import Output, ask, each
from hawse.cli.verb import Verb
from hawse.docker.flags import Given
from hawse.docker.images import LOGIN, PULL, PUSH, SEARCH, operands, split
from hawse.fleet.client import DOCKER, LONG, AgentClient
from hawse.format.registry import SEARCHED, search_rows
from hawse.report.messages import plain
from hawse_agent.distribution.credentials import Credentials, registry_of
from hawse_agent.distribution.reference import canonical
from hawse_agent.errors import HawseError, HostRefused, InputError

Messages = Iterable[Mapping[str, Any]]


@dataclass(frozen=True, kw_only=True)
class _Asked:
    """What `pull` and `push` have in common."""

    repository: str
    tag: str
    """Empty for all of them."""
    shown: str
    """What a quiet one says at its end."""
    quiet: bool
    headers: Mapping[str, str]


def _asked(context: Context, given: Given, name: str) -> _Asked:
    repository, tag = split(name)
    every, quiet = given.options.get("all-tags", False), given.options.get("quiet", False)
    if every and tag:
        raise InputError("tag can't be used with --all-tags/-a")
    if not tag and not every:
        tag = "latest"
        if not quiet:
            context.print(f"Using default tag: {tag}")
    full = canonical(name)
    return _Asked(
        repository=repository,
        tag=tag,
        shown=full.rpartition(":")[0] if every else full,
        quiet=quiet,
        headers=authorization(context, full),
    )


def _pull(context: Context, options: argparse.Namespace) -> int:
    given: Given = options.given
    asked = _asked(context, given, operands(given, "pull", "NAME[:TAG|@DIGEST]")[0])
    platform = given.options.get("platform", "")
    return follow(
        context,
        lambda agent: agent.pull_image(asked.repository, asked.tag, platform=platform, headers=asked.headers),
        quiet=asked.quiet,
        ended=asked.shown,
    )


def _push(context: Context, options: argparse.Namespace) -> int:
    given: Given = options.given
    asked = _asked(context, given, operands(given, "push", "NAME[:TAG]")[0])
    path, query = f"{DOCKER}/images/{asked.repository}/push", {"tag": asked.tag} if asked.tag else {}
    return follow(
        context,
        lambda agent: agent.messages("POST", path, query=query, headers=asked.headers),
        quiet=asked.quiet,
        ended=asked.shown if asked.quiet else "",
    )


def follow(context: Context, begin: Callable[[AgentClient], Messages], *, quiet: bool, ended: str) -> int:
    """Shows what each host says while it works; then, if any, the one line `ended`."""
    places = context.places()
    output = Output(context, [place.name for place in places])
    with context.console.layers([place.name for place in places]) as board:

        def work(place: Place) -> None:
            with output.of(place.name) as writer:
                for message in begin(context.at(place)):
                    if quiet:
                        continue
                    if board is not None:
                        board.message(place.name, message)
                    else:
                        writer.write(1, plain(message).encode())
                if board is not None:
                    board.over(place.name)
                if ended:
                    writer.write(1, f"{ended}\n".encode())

        return each(context, places, work)[1]


def authorization(context: Context, name: str) -> dict[str, str]:
    """The header that says who asks for an image of this name."""
    from hawse.docker.credentials import registry_auth

    return registry_auth(context.registries.get(canonical(name).partition("/")[0]))


def _search(context: Context, options: argparse.Namespace) -> int:
    given: Given = options.given
    [term] = operands(given, "search", "TERM")
    form, whole = given.options.get("format", ""), given.options.get("no-trunc", False)
    SEARCHED.template(form)
    query: dict[str, Any] = {
        "term": term,
        **lists.encoded(lists.parsed_filters(given.options.get("filter", []))),
    }
    if given.options.get("limit"):
        query["limit"] = given.options["limit"]
    registry = term.partition("/")[0] if "/" in term else "docker.io"
    headers = authorization(context, f"{registry}/name") if "." in registry or ":" in registry else {}
    places = context.places()
    found, code = ask(
        context,
        places,
        lambda agent: agent.json(
            "GET", f"{DOCKER}/images/search", query=query, headers=headers, timeout=LONG
        ),
    )
    if context.options.json:
        lists.show_json(context, found)
        return code
    rows = {name: search_rows(results, cut=not whole, form=form) for name, results in found.items()}
    width = None if whole else lists.terminal_width(context)
    lists.write(context, SEARCHED.render(rows, form, several=len(places) > 1, width=width))
    return code


def _login(context: Context, options: argparse.Namespace) -> int:
    from hawse.docker.credentials import HUB_KEY, server_key

    given: Given = options.given
    named = operands(given, "login", "[SERVER]", 0)
    server = server_key(named[0] if named else "")
    username, password = given.options.get("username", ""), _password(context, given)
    known = context.registries.get(server) if not username and not password else None
    if known is not None:
        context.print(f"Authenticating with existing credentials... [Username: {known.username}]")
        try:
            return _logged_in(context, known)
        except HawseError as error:
            context.warn(f"Login did not succeed, error: {error.message}")
    if not username or not password:
        if not context.stdin.isatty():
            raise InputError(
                "cannot perform an interactive login from a non TTY device",
                hint="--username NAME --password-stdin",
            )
        if server == HUB_KEY:
            context.print("Log in with your Docker ID; an access token does instead of the password.")
        username = username or context.ask_line(
            f"Username ({known.username}): " if known is not None else "Username: "
        )
        username = username or (known.username if known is not None else "")
        password = password or context.ask("Password: ")
        if not username or not password:
            raise InputError("username and password are needed")
    return _logged_in(context, Credentials(address=server, username=username, password=password))


def _password(context: Context, given: Given) -> str:
    """Of -p, or from stdin; "" when there is none yet."""
    password = str(given.options.get("password", ""))
    if password:
        context.warn("WARNING! Using --password via the CLI is insecure. Use --password-stdin.")
    if not given.options.get("password-stdin"):
        return password
    if password:
        raise InputError("--password and --password-stdin are mutually exclusive")
    if not given.options.get("username"):
        raise InputError("must provide --username with --password-stdin")
    password = context.stdin.read().decode().removesuffix("\n").removesuffix("\r")
    if not password:
        raise InputError("password is empty")
    return password


def _logged_in(context: Context, credentials: Credentials) -> int:
    """Asks the registry from here, or from each host that -H names, and keeps them when it says yes."""
    if context.options.hosts:
        token = _asked_by_hosts(context, credentials)
    else:
        token = context.registry_client.log_in(registry_of(credentials.address), credentials)
    if token:
        credentials = replace(credentials, password="", identity_token=token)
    if not context.registries.store(credentials):
        context.warn(
            f"WARNING! Your credentials are stored unencrypted in {context.registries.path}.\n"
            "Configure a credential helper to remove this warning: credsStore in that file."
        )
    context.print("Login Succeeded")
    return 0


def _asked_by_hosts(context: Context, credentials: Credentials) -> str:
    """The token that the registry gave instead of the password, if any."""
    from hawse.docker.credentials import auth_json

    answers, code = ask(
        context,
        context.places(),
        lambda agent: agent.json("POST", f"{DOCKER}/auth", data=auth_json(credentials), timeout=LONG),
    )
    if code:
        raise HostRefused(f"not every host could log in to {credentials.address}")
    return next((str(found) for answer in answers.values() if (found := answer.get("IdentityToken"))), "")


def _logout_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "server", nargs="?", default="", metavar="SERVER", help="Docker Hub's, if none is named"
    )


def _logout(context: Context, options: argparse.Namespace) -> int:
    from hawse.docker.credentials import server_key

    server = server_key(options.server)
    if context.registries.erase(server):
        context.print(f"Removing login credentials for {server}")
    else:
        context.print(f"Not logged in to {server}")
    return 0


VERBS = (
    Verb(
        name="pull",
        help="fetch an image from a registry",
        flags=PULL,
        operands="NAME[:TAG|@DIGEST]",
        interspersed=True,
        run=_pull,
    ),
    Verb(
        name="push",
        help="bring an image to a registry",
        flags=PUSH,
        operands="NAME[:TAG]",
        interspersed=True,
        run=_push,
    ),
    Verb(
        name="search",
        help="look for images in a registry's index",
        flags=SEARCH,
        operands="TERM",
        interspersed=True,
        run=_search,
    ),
    Verb(
        name="login",
        help="log in to a registry, and remember it here",
        flags=LOGIN,
        operands="[SERVER]",
        interspersed=True,
        run=_login,
    ),
    Verb(
        name="logout",
        help="forget a registry's credentials",
        arguments=_logout_arguments,
        run=_logout,
    ),
)
