"""Who we are at registries, as Docker's own clients keep it: `config.json`, and the helpers that it names.

    auths         registry → base64 of user:password, or an identity token
    credHelpers   registry → program docker-credential-NAME, which keeps what is said about it
    credsStore    the same for all others

Passwords pass through standard input and memory only. What else stands in the file is kept as it is.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import fcntl
import json
import os
import re
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hawse_agent.distribution.credentials import Credentials, registry_of
from hawse_agent.distribution.reference import DEFAULT_REGISTRY
from hawse_agent.errors import HostRefused, InputError

HUB_KEY = "https://index.docker.io/v1/"
"""What Docker Hub is called in config.json, by helpers, and in requests."""

_TOKEN_USER = "<token>"
"""The user's name of a helper's answer whose secret is an identity token."""
_NOT_FOUND = "credentials not found in native keychain"
_HELPER = re.compile(r"[A-Za-z0-9][\w.-]*", re.ASCII)
_PATIENCE = 60.0

Json = dict[str, Any]


class DockerConfig:
    """`config.json` in `$DOCKER_CONFIG`, else `~/.docker`. Raises InputError, which names the file, for what
    it cannot be, HostRefused for a helper that fails."""

    def __init__(self, path: Path, *, environment: Mapping[str, str] | None = None) -> None:
        self.path = path
        self._environment = os.environ if environment is None else environment

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> DockerConfig:
        named = environment.get("DOCKER_CONFIG", "")
        home = environment.get("HOME") or str(Path("~").expanduser())
        return cls(Path(named or Path(home) / ".docker") / "config.json", environment=environment)

    def get(self, registry: str) -> Credentials | None:
        """Of a registry: `docker.io`, `host:port`. None where nothing is known."""
        document, key = self._read(), server_key(registry)
        helper = self._helper(document, key)
        if helper:
            return self._ask(helper, key)
        for name, entry in _mapping(document, "auths", self.path).items():
            if name == key or registry_of(name) == registry_of(key):
                return self._of_entry(key, name, entry)
        return None

    def all(self) -> list[Credentials]:
        """Of every registry of which something is known: a build may pull from any of them."""
        document = self._read()
        named = [*_mapping(document, "auths", self.path), *_mapping(document, "credHelpers", self.path)]
        if store := self._checked(str(document.get("credsStore") or ""), "credsStore"):
            named += _parsed(self._run(store, "list", ""), store)
        found = map(self.get, dict.fromkeys(map(registry_of, named)))
        return [known for known in found if known is not None]

    def store(self, credentials: Credentials) -> str:
        """Keeps them; gives the helper that did, or "" where they stand in the file itself."""
        key = credentials.address
        with self._changing() as document:
            auths = _mapping(document, "auths", self.path)
            helper = self._helper(document, key)
            if helper:
                secret = {
                    "ServerURL": key,
                    "Username": _TOKEN_USER if credentials.identity_token else credentials.username,
                    "Secret": credentials.identity_token or credentials.password,
                }
                self._run(helper, "store", json.dumps(secret))
                entry: Json = {}
            else:
                pair = f"{credentials.username}:{credentials.password}"
                entry = {"auth": base64.b64encode(pair.encode()).decode()}
                if credentials.identity_token:
                    pair = f"{credentials.username}:"
                    entry["auth"] = base64.b64encode(pair.encode()).decode()
                    entry["identitytoken"] = credentials.identity_token
            document["auths"] = {
                **{name: known for name, known in auths.items() if registry_of(name) != registry_of(key)},
                key: entry,
            }
        return helper

    def erase(self, registry: str) -> bool:
        """Forgets what is known of a registry; whether there was anything."""
        key = server_key(registry)
        with self._changing() as document:
            auths = _mapping(document, "auths", self.path)
            kept = {name: entry for name, entry in auths.items() if registry_of(name) != registry_of(key)}
            known = len(kept) < len(auths)
            if helper := self._helper(document, key):
                known = self._ask(helper, key) is not None or known
                if known:
                    self._run(helper, "erase", key)
            if "auths" in document:
                document["auths"] = kept
        return known

    # -- the file --------------------------------------------------------------------------------

    def _read(self) -> Json:
        try:
            text = self.path.read_bytes()
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise InputError(f"cannot read {self.path}: {error.strerror}") from error
        try:
            document = json.loads(text or b"{}")
        except ValueError as error:
            raise InputError(f"{self.path} is not JSON: {error}") from None
        if not isinstance(document, dict):
            raise InputError(f"{self.path} is not a JSON object")
        return document

    @contextlib.contextmanager
    def _changing(self) -> Iterator[Json]:
        """What it says, written back when the block ends well: whole, and for its owner alone."""
        directory = self.path.parent
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise HostRefused(f"cannot write {self.path}: {error.strerror}") from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            document = self._read()
            before = json.dumps(document)
            yield document
            if json.dumps(document) != before:
                self._write(document)
        finally:
            os.close(lock)

    def _write(self, document: Json) -> None:
        path = self.path.resolve()  # a link stays one
        fresh = ""
        try:
            fd, fresh = tempfile.mkstemp(dir=path.parent, prefix=".config.json-")
            with os.fdopen(fd, "w") as file:  # mkstemp makes it 0600
                file.write(json.dumps(document, indent="\t") + "\n")
                file.flush()
                os.fsync(fd)
            Path(fresh).replace(path)
        except OSError as error:
            if fresh:
                Path(fresh).unlink(missing_ok=True)
            raise HostRefused(f"cannot write {self.path}: {error.strerror}") from error

    def _of_entry(self, key: str, name: str, entry: Any) -> Credentials | None:
        where = f"{self.path}: auths: {name}"
        if not isinstance(entry, dict):
            raise InputError("expected an object", where=where)
        username, password = str(entry.get("username") or ""), str(entry.get("password") or "")
        if text := entry.get("auth"):
            try:
                pair = base64.b64decode(str(text), validate=True).decode()
            except (binascii.Error, UnicodeDecodeError):
                raise InputError("auth is not base64 of USER:PASSWORD", where=where) from None
            username, colon, password = pair.partition(":")
            if not colon:
                raise InputError("auth is not base64 of USER:PASSWORD", where=where)
            password = password.strip("\0")
        token = str(entry.get("identitytoken") or "")
        if not username and not password and not token:
            return None  # what a helper's entry looks like
        return Credentials(address=key, username=username, password=password, identity_token=token)

    # -- helpers ---------------------------------------------------------------------------------

    def _helper(self, document: Json, key: str) -> str:
        """The helper that is asked about a registry, or ""."""
        for name, helper in _mapping(document, "credHelpers", self.path).items():
            if registry_of(name) == registry_of(key):
                return self._checked(str(helper), f"credHelpers: {name}")
        return self._checked(str(document.get("credsStore") or ""), "credsStore")

    def _checked(self, helper: str, place: str) -> str:
        if helper and not _HELPER.fullmatch(helper):
            raise InputError(f"not the name of a helper: {helper!r}", where=f"{self.path}: {place}")
        return helper

    def _ask(self, helper: str, key: str) -> Credentials | None:
        text = self._run(helper, "get", key, absent=True)
        if text is None:
            return None
        answer = _parsed(text, helper)
        username, secret = str(answer.get("Username") or ""), str(answer.get("Secret") or "")
        if username == _TOKEN_USER:
            return Credentials(address=key, identity_token=secret)
        return Credentials(address=key, username=username, password=secret)

    def _run(self, helper: str, verb: str, said: str, *, absent: bool = False) -> str | None:
        """What it answers; None for what it does not have, when it may be `absent`."""
        program = f"docker-credential-{helper}"
        try:
            done = subprocess.run(
                [program, verb],
                input=said,
                capture_output=True,
                text=True,
                timeout=_PATIENCE,
                env=dict(self._environment),
            )
        except FileNotFoundError:
            raise HostRefused(
                f"{program}, which {self.path} names, is not installed",
                hint="install it, or take credsStore and credHelpers out of the file",
            ) from None
        except (OSError, subprocess.TimeoutExpired) as error:
            reason = getattr(error, "strerror", None) or f"no answer within {_PATIENCE:g} s"
            raise HostRefused(f"{program} {verb}: {reason}") from None
        if done.returncode == 0:
            return done.stdout
        if absent and _NOT_FOUND in done.stdout:
            return None
        # A helper that fails says why on stdout; what it would have told in secret is not there then.
        reason = (done.stdout.strip() or done.stderr.strip()).partition("\n")[0]
        raise HostRefused(f"{program} {verb}: {reason or f'it ended with {done.returncode}'}")


def server_key(server: str) -> str:
    """What config.json calls a registry, whatever it is called: its host and port, but for Docker Hub's."""
    registry = registry_of(server)
    return HUB_KEY if registry == DEFAULT_REGISTRY else registry


def registry_auth(credentials: Credentials | None) -> dict[str, str]:
    """The header that hands them on for one request."""
    return {"X-Registry-Auth": _encoded(auth_json(credentials) if credentials is not None else {})}


def registry_config(known: list[Credentials]) -> dict[str, str]:
    """The same of all registries, for a build."""
    return {"X-Registry-Config": _encoded({entry.address: auth_json(entry) for entry in known})}


def auth_json(credentials: Credentials) -> Json:
    """As Docker's API takes them."""
    known = {
        "username": credentials.username,
        "password": credentials.password,
        "identitytoken": credentials.identity_token,
        "serveraddress": credentials.address,
    }
    return {key: value for key, value in known.items() if value}


def _encoded(document: Json) -> str:
    return base64.urlsafe_b64encode(json.dumps(document).encode()).decode()


def _mapping(document: Json, key: str, path: Path) -> Json:
    value = document.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InputError("expected an object", where=f"{path}: {key}")
    return value


def _parsed(text: str | None, helper: str) -> Json:
    try:
        answer = json.loads(text or "{}")
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        raise HostRefused(f"docker-credential-{helper} did not answer in JSON")
    return answer
