"""What a connection needs to know about a host, as plain values; reads no file, resolves no name."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

HostKeyPolicy = Literal["strict", "accept-new", "off"]


@dataclass(frozen=True, kw_only=True)
class Timeouts:
    """Seconds that each stage of a connection may take; nothing hangs longer than the sum."""

    resolve: float = 10.0
    connect: float = 10.0
    banner: float = 15.0
    auth: float = 30.0
    channel: float = 15.0
    sudo: float = 20.0
    agent: float = 30.0


@dataclass(frozen=True, kw_only=True)
class Target:
    """A host as the inventory describes it. Empty values are filled from ssh_config, then by defaults."""

    name: str
    """Inventory name; what messages call the host."""
    connection: Literal["ssh", "local"] = "ssh"
    address: str = ""
    """Name or address to connect to; "" means `name`."""
    port: int = 0
    user: str = ""
    password: str = field(default="", repr=False)
    private_key: Path | None = None
    private_key_passphrase: str = field(default="", repr=False)
    ssh_args: tuple[str, ...] = ()
    """Further arguments in the words of OpenSSH, as in `ansible_ssh_common_args`: `-J bastion`, `-o …`."""
    host_key: str = ""
    """Pinned by the inventory: `ssh-ed25519 AAAA…`; then known_hosts is not asked."""
    host_key_policy: HostKeyPolicy = "strict"
    known_hosts: tuple[Path, ...] = ()
    """Instead of the user's and the system's files; new keys go to the first."""
    use_agent: bool = True
    become_password: str = field(default="", repr=False)
    become_method: Literal["sudo"] = "sudo"
    python: str = ""
    """`ansible_python_interpreter`; "" lets bootstrap choose."""
    timeouts: Timeouts = Timeouts()

    @property
    def host(self) -> str:
        return self.address or self.name
