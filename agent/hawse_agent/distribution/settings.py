"""How registries are reached: the `[registries]` of agent.toml, and the file of the same keys on a
controller.

[registries]
insecure = ["registry.lan:5000", "10.1.0.0/16"]       # https unchecked, or plain http; loopback always is
parallel = 3                                          # layers of one image that are under way at a time
certificates = "/etc/docker/certs.d"                  # HOST:PORT/*.crt, and client certificates with keys
http_proxy = "http://proxy.lan:3128"                  # these three stand before the environment's
https_proxy = "http://proxy.lan:3128"
no_proxy = "10.0.0.0/8,.lan"

[registries.ca]
"registry.lan:5000" = "/etc/ssl/lan.crt"              # trusted for this registry, besides the system's

[registries.mirrors]
"docker.io" = ["https://mirror.lan", "second.lan"]    # asked in this order, then the registry itself
"""

from __future__ import annotations

import ipaddress
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass, field

from hawse_agent.distribution import reference
from hawse_agent.errors import InputError

MOST_PARALLEL = 32


@dataclass(frozen=True, kw_only=True)
class RegistrySettings:
    insecure: tuple[str, ...] = ()
    parallel: int = 3
    certificates: str = "/etc/docker/certs.d"
    http_proxy: str = field(default="", repr=False)
    """May hold a password, as the next may."""
    https_proxy: str = field(default="", repr=False)
    no_proxy: str = ""
    ca: Mapping[str, str] = field(default_factory=dict)
    mirrors: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def check(self) -> None:
        """Raises InputError that names the key of a value that says nothing."""
        if not 1 <= self.parallel <= MOST_PARALLEL:
            raise InputError(f"expected 1 to {MOST_PARALLEL}", where="registries.parallel")
        for entry in self.insecure:
            _check_insecure(entry)
        for registry in (*self.ca, *self.mirrors):
            if not _is_address(registry):
                raise InputError(
                    "expected HOST or HOST:PORT, the address of a registry", where=f'registries."{registry}"'
                )
        for registry, mirrors in self.mirrors.items():
            for mirror in mirrors:
                _check_mirror(registry, mirror)
        for key in ("http_proxy", "https_proxy"):
            proxy = getattr(self, key)
            if proxy and urllib.parse.urlsplit(proxy).scheme != "http":
                raise InputError(
                    "expected http://HOST:PORT: no other proxy is supported", where=f"registries.{key}"
                )


def mirror_url(mirror: str) -> urllib.parse.SplitResult:
    """`mirror.lan` is https://mirror.lan."""
    return urllib.parse.urlsplit(mirror if "://" in mirror else f"https://{mirror}")


def _check_insecure(entry: str) -> None:
    if "/" in entry:
        try:
            ipaddress.ip_network(entry, strict=False)
        except ValueError:
            raise InputError(
                f"expected HOST, HOST:PORT or a network, not {entry!r}", where="registries.insecure"
            ) from None
    elif not _is_address(entry):
        raise InputError(f"expected HOST, HOST:PORT or a network, not {entry!r}", where="registries.insecure")


def _check_mirror(registry: str, mirror: str) -> None:
    where = f'registries.mirrors."{registry}"'
    url = mirror_url(mirror)
    if url.scheme not in ("http", "https") or not _is_address(url.netloc) or url.query or url.fragment:
        raise InputError(f"expected http(s)://HOST[:PORT][/PATH], not {mirror!r}", where=where)


def _is_address(text: str) -> bool:
    """HOST or HOST:PORT and nothing else."""
    return bool(reference.REGISTRY.fullmatch(text)) and not text.endswith(":0")
