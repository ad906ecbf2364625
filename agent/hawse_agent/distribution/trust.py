"""Whom to trust, and which way to go: certificates, registries without them, and proxies."""

from __future__ import annotations

import base64
import ipaddress
import socket
import ssl
import threading
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hawse_agent.distribution.settings import RegistrySettings
from hawse_agent.errors import HostRefused, InputError

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True, kw_only=True)
class Proxy:
    host: str
    port: int
    headers: Mapping[str, str]
    """What proves to it who we are."""

    def __repr__(self) -> str:
        return f"Proxy({self.host}:{self.port})"


class Trust:
    """Made once of settings and environment; asked for each connection. Used by many threads."""

    def __init__(self, settings: RegistrySettings, environment: Mapping[str, str]) -> None:
        self._settings = settings
        self._proxies = {
            "http": settings.http_proxy or _variable(environment, "HTTP_PROXY"),
            "https": settings.https_proxy or _variable(environment, "HTTPS_PROXY"),
        }
        self._no_proxy = _entries(settings.no_proxy or _variable(environment, "NO_PROXY"))
        self._lock = threading.Lock()
        self._contexts: dict[str, tuple[tuple[tuple[str, int], ...], ssl.SSLContext]] = {}

    def is_insecure(self, address: str) -> bool:
        """Whether HOST[:PORT] may be spoken to unchecked: loopback, and what the settings name."""
        host = host_of(address)
        if is_loopback(host) or address in self._settings.insecure:
            return True
        networks = [
            ipaddress.ip_network(entry, strict=False) for entry in self._settings.insecure if "/" in entry
        ]
        if not networks:
            return False
        return any(address in network for address in _resolved(host) for network in networks)

    def schemes(self, address: str) -> tuple[str, ...]:
        """What is tried to reach HOST[:PORT], in this order. Who has put a CA there wants it checked, also on
        loopback."""
        return ("https", "http") if self.is_insecure(address) and not self._files(address) else ("https",)

    def context(self, address: str) -> ssl.SSLContext:
        """TLS for HOST[:PORT]; files that are new there are taken up. Raises InputError for one that is
        damaged."""
        files = self._files(address)
        stamp = tuple((str(path), path.stat().st_mtime_ns) for path in files)
        with self._lock:
            known = self._contexts.get(address)
            if known is None or known[0] != stamp:
                known = self._contexts[address] = (stamp, self._made(address, files))
            return known[1]

    def proxy(self, scheme: str, address: str) -> Proxy | None:
        """The one between here and HOST[:PORT], if any. Raises InputError for one that is not supported."""
        text = self._proxies[scheme]
        if not text or self._is_direct(address, 443 if scheme == "https" else 80):
            return None
        url = urllib.parse.urlsplit(text if "://" in text else f"http://{text}")
        if url.scheme != "http" or not url.hostname:
            raise InputError(
                f"{scheme.upper()}_PROXY: expected http://HOST:PORT: no other proxy is supported"
            )
        headers = {}
        if url.username is not None:
            pair = f"{urllib.parse.unquote(url.username)}:{urllib.parse.unquote(url.password or '')}"
            headers["Proxy-Authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
        return Proxy(host=url.hostname, port=url.port or 80, headers=headers)

    # -- certificates ----------------------------------------------------------------------------

    def _files(self, address: str) -> list[Path]:
        """Docker's directory of a registry: `*.crt` are CAs; `x.cert` and `x.key` are ours."""
        files = [Path(path) for key, path in self._settings.ca.items() if key == address]
        for path in files:
            if not path.is_file():
                raise InputError(f"registries.ca.{address}: {path}: no such file")
        try:
            entries = sorted((Path(self._settings.certificates) / address).iterdir())
        except (FileNotFoundError, NotADirectoryError):
            return files
        except OSError as error:
            raise HostRefused(f"{self._settings.certificates}/{address}: {error.strerror}") from error
        return files + [path for path in entries if path.suffix in (".crt", ".cert", ".key")]

    def _made(self, address: str, files: list[Path]) -> ssl.SSLContext:
        context = ssl.create_default_context()
        for path in files:
            try:
                if path.suffix == ".cert":
                    if not path.with_suffix(".key").is_file():
                        raise InputError(f"{path}: its key, {path.with_suffix('.key').name}, is missing")
                    context.load_cert_chain(path, path.with_suffix(".key"))
                elif path.suffix != ".key":
                    context.load_verify_locations(path)
                elif not path.with_suffix(".cert").is_file():
                    raise InputError(f"{path}: its certificate, {path.with_suffix('.cert').name}, is missing")
            except (ssl.SSLError, OSError) as error:
                raise InputError(f"{path}: not a certificate that can be used: {error}") from error
        if self.is_insecure(address) and not files:
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        return context

    # -- proxies ---------------------------------------------------------------------------------

    def _is_direct(self, address: str, default_port: int) -> bool:
        host, port = host_of(address), port_of(address) or default_port
        if is_loopback(host):
            return True
        literal = _literal(host)
        for entry, entry_port in self._no_proxy:
            if entry_port is not None and entry_port != port:
                continue
            if entry == "*":
                return True
            if literal is not None:
                if _holds(entry, literal):
                    return True
            elif _is_below(host, entry.lower()):
                return True
        return False


def host_of(address: str) -> str:
    """Of HOST[:PORT]; in lower case, without the brackets of IPv6."""
    return urllib.parse.urlsplit(f"//{address}").hostname or ""


def port_of(address: str) -> int | None:
    return urllib.parse.urlsplit(f"//{address}").port


def is_loopback(host: str) -> bool:
    literal = _literal(host)
    return literal.is_loopback if literal is not None else host == "localhost" or host.endswith(".localhost")


def _literal(host: str) -> _Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _resolved(host: str) -> list[_Address]:
    """A name that nobody knows has no address; the connection will say so."""
    if (literal := _literal(host)) is not None:
        return [literal]
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError:
        return []
    return [ipaddress.ip_address(str(entry[4][0]).partition("%")[0]) for entry in found]


def _holds(entry: str, address: _Address) -> bool:
    try:
        return address in ipaddress.ip_network(entry.strip("[]"), strict=False)
    except ValueError:
        return False


def _is_below(host: str, entry: str) -> bool:
    """`lan` is itself and all below it, `.lan` and `*.lan` only what is below."""
    domain = entry.removeprefix("*").removeprefix(".")
    return host.endswith(f".{domain}") or host == entry


def _variable(environment: Mapping[str, str], name: str) -> str:
    return environment.get(name) or environment.get(name.lower()) or ""


def _entries(text: str) -> list[tuple[str, int | None]]:
    """Names, addresses and networks, each perhaps with a port."""
    found: list[tuple[str, int | None]] = []
    for entry in filter(None, (part.strip() for part in text.split(","))):
        name, colon, port = entry.rpartition(":")
        if colon and port.isdecimal() and (":" not in name or name.startswith("[")):
            found.append((name, int(port)))
        else:
            found.append((entry, None))
    return found
