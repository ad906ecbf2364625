"""Who somebody is to a registry. Kept for the time of one request; never shown, and never written
anywhere."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hawse_agent.distribution import reference
from hawse_agent.errors import InputError


@dataclass(frozen=True, kw_only=True, repr=False)
class Credentials:
    username: str = ""
    password: str = ""
    identity_token: str = ""
    """A refresh token of the registry's token service, instead of a password."""
    registry_token: str = ""
    """A bearer token, to be sent as it is."""
    address: str = ""
    """Of the registry, where it is told."""

    def __bool__(self) -> bool:
        return bool(self.username or self.identity_token or self.registry_token)

    def __repr__(self) -> str:
        return "Credentials(…)" if self else "Credentials()"

    @property
    def basic(self) -> str:
        """The Authorization header of Basic."""
        pair = f"{self.username}:{self.password}"
        return f"Basic {base64.b64encode(pair.encode()).decode()}"

    @property
    def fingerprint(self) -> str:
        """Tells them apart without holding them."""
        parts = (self.username, self.password, self.identity_token, self.registry_token)
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()


NOBODY = Credentials()


def of_json(data: Any, what: str) -> Credentials:
    """What Docker's clients call AuthConfig; the case of keys says nothing, as in Go. Raises InputError."""
    if not isinstance(data, Mapping):
        raise InputError(f"{what}: expected a JSON object")
    fields = {str(key).lower(): value for key, value in data.items() if value is not None}
    for key, value in fields.items():
        if not isinstance(value, str):
            raise InputError(f"{what}: {key} is not text")
    username, password = fields.get("username", ""), fields.get("password", "")
    if not username and fields.get("auth"):
        username, password = _pair(fields["auth"], what)
    return Credentials(
        username=username,
        password=password,
        identity_token=fields.get("identitytoken", ""),
        registry_token=fields.get("registrytoken", ""),
        address=fields.get("serveraddress", ""),
    )


def of_header(header: str) -> Credentials:
    """X-Registry-Auth: base64 of a JSON object, in either alphabet."""
    return of_json(_decoded(header, "X-Registry-Auth"), "X-Registry-Auth") if header else NOBODY


@dataclass(frozen=True, kw_only=True, repr=False)
class Keyring:
    """Credentials by registry: what X-Registry-Config brings for a build."""

    by_registry: Mapping[str, Credentials]

    def __repr__(self) -> str:
        return f"Keyring({', '.join(self.by_registry)})"

    def get(self, registry: str) -> Credentials:
        """`registry` as `reference` names it: docker.io, host:port."""
        return self.by_registry.get(registry, NOBODY)


NO_KEYS = Keyring(by_registry={})


def keyring_of_header(header: str) -> Keyring:
    """X-Registry-Config: base64 of a JSON object of AuthConfigs by address."""
    data = _decoded(header, "X-Registry-Config") if header else {}
    if not isinstance(data, Mapping):
        raise InputError("X-Registry-Config: expected a JSON object")
    return Keyring(
        by_registry={
            registry_of(str(address)): of_json(value, f"X-Registry-Config: {address}")
            for address, value in data.items()
        }
    )


def registry_of(address: str) -> str:
    """The registry that an address means: `https://index.docker.io/v1/` is docker.io, `https://a:5000/v2/`
    a:5000."""
    host = address.strip().partition("://")[2] or address.strip()
    host = host.partition("/")[0]
    return reference.DEFAULT_REGISTRY if host in ("", *reference.HUB_NAMES) else host


def _decoded(header: str, what: str) -> Any:
    text = header.strip().replace("+", "-").replace("/", "_")
    try:
        return json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    except ValueError:
        raise InputError(f"{what}: not base64 of a JSON object") from None


def _pair(auth: str, what: str) -> tuple[str, str]:
    try:
        username, _, password = base64.b64decode(auth, validate=True).decode().partition(":")
    except ValueError:
        raise InputError(f"{what}: auth is not base64 of user:password") from None
    return username, password.strip("\0")
