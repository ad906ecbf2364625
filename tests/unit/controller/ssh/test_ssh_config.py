import shutil
from pathlib import Path

import pytest

from hawse.ssh.client import _parse_hop
from hawse.ssh.config import settings
from hawse.ssh.target import Target
from hawse_agent.errors import InputError

needs_ssh = pytest.mark.skipif(shutil.which("ssh") is None, reason="no ssh program")


@needs_ssh
def test_configuration_fills_what_the_inventory_leaves_open(tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text(
        "Host web1\n HostName 10.0.0.7\n Port 2200\n User deploy\n IdentityFile ~/k1\n IdentitiesOnly yes\n"
        " ProxyJump ops@hop:23\n UserKnownHostsFile /a /b\n"
    )
    chosen = settings(Target(name="web1", ssh_args=("-F", str(config))))
    assert (chosen.host, chosen.port, chosen.user) == ("10.0.0.7", 2200, "deploy")
    assert chosen.identities == (Path.home() / "k1",) and chosen.identities_only
    assert chosen.jumps == ("ops@hop:23",) and chosen.known_hosts[:2] == (Path("/a"), Path("/b"))


@needs_ssh
def test_the_inventory_wins(tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text("Host *\n Port 2200\n User deploy\n")
    target = Target(
        name="web1",
        address="10.0.0.8",
        port=22,
        user="root",
        private_key=tmp_path / "key",
        ssh_args=("-F", str(config), "-o", "ProxyCommand=nc %h %p"),
    )
    chosen = settings(target)
    assert (chosen.host, chosen.port, chosen.user) == ("10.0.0.8", 22, "root")
    assert chosen.identities == (tmp_path / "key",) and chosen.identities_only
    assert chosen.proxy_command == "nc 10.0.0.8 22"


@needs_ssh
def test_a_wrong_argument_is_the_persons_mistake() -> None:
    with pytest.raises(InputError, match=r"web1: .*Bad configuration option"):
        settings(Target(name="web1", ssh_args=("-o", "NoSuchOption=1")))


@pytest.mark.parametrize(
    ("text", "hop"),
    [
        ("hop", ("", "hop", 0)),
        ("me@hop:23", ("me", "hop", 23)),
        ("ssh://me@hop", ("me", "hop", 0)),
        ("[fd00::1]:23", ("", "fd00::1", 23)),
    ],
)
def test_jump_hosts(text: str, hop: tuple[str, str, int]) -> None:
    assert _parse_hop(text) == hop


def test_broken_jump_host() -> None:
    with pytest.raises(InputError, match="jump host"):
        _parse_hop("hop:x")
