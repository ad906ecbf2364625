import base64
import hashlib
import hmac
from pathlib import Path

import pytest

from hawse.ssh.known_hosts import HostKey, KnownHosts, append, host_name, parse_key


def key(seed: int, kind: str = "ssh-ed25519") -> HostKey:
    name = kind.encode()
    return HostKey(
        kind=kind, blob=len(name).to_bytes(4, "big") + name + bytes([0, 0, 0, 32]) + bytes([seed]) * 32
    )


A, B = key(1), key(2)


def hashed(name: str) -> str:
    salt = b"0123456789abcdefghij"
    digest = hmac.new(salt, name.encode(), hashlib.sha1).digest()
    return f"|1|{base64.b64encode(salt).decode()}|{base64.b64encode(digest).decode()}"


@pytest.mark.parametrize(
    ("line", "host", "port", "verdict"),
    [
        (f"web1 {A.text}", "web1", 22, "match"),
        (f"web1,10.0.0.1 {A.text} comment here", "10.0.0.1", 22, "match"),
        (f"WEB1 {A.text}", "web1", 22, "match"),
        (f"web1 {B.text}", "web1", 22, "mismatch"),
        (f"web1 {A.text}", "web2", 22, "unknown"),
        (f"web1 {A.text}", "web1", 2222, "unknown"),
        (f"[web1]:2222 {A.text}", "web1", 2222, "match"),
        (f"[web1]:* {A.text}", "web1", 2222, "match"),
        (f"*.example.com {A.text}", "a.example.com", 22, "match"),
        (f"*.example.com,!b.example.com {A.text}", "b.example.com", 22, "unknown"),
        (f"web? {A.text}", "web1", 22, "match"),
        (f"{hashed('web1')} {A.text}", "web1", 22, "match"),
        (f"{hashed('[web1]:2222')} {A.text}", "web1", 2222, "match"),
        (f"{hashed('web1')} {A.text}", "web2", 22, "unknown"),
        (f"@revoked * {A.text}", "web1", 22, "revoked"),
        (f"@revoked web1 {A.text}\nweb1 {A.text}", "web1", 22, "revoked"),
        (f"@cert-authority *.example.com {B.text}", "a.example.com", 22, "unknown"),
        (f"web1 {B.text}\nweb1 {A.text}", "web1", 22, "match"),
        ("web1 ssh-ed25519 broken!\nweb1 ssh-rsa\n# web1", "web1", 22, "unknown"),
    ],
)
def test_check(tmp_path: Path, line: str, host: str, port: int, verdict: str) -> None:
    path = tmp_path / "known_hosts"
    path.write_text(f"# comment\n\n{line}\n")
    assert KnownHosts.load([path, tmp_path / "absent"]).check(host, port, A)[0] == verdict


def test_mismatch_names_the_line(tmp_path: Path) -> None:
    path = tmp_path / "known_hosts"
    path.write_text(f"# comment\nweb1 {B.text}\n")
    verdict, entry = KnownHosts.load([path]).check("web1", 22, A)
    assert verdict == "mismatch" and entry and entry.where == f"{path}:2"


def test_kinds_are_those_known_for_the_host(tmp_path: Path) -> None:
    path = tmp_path / "known_hosts"
    path.write_text(
        f"web1 {key(1, 'ecdsa-sha2-nistp256').text}\nweb1 {A.text}\nweb2 {key(3, 'ssh-rsa').text}\n"
    )
    assert KnownHosts.load([path]).kinds("web1", 22) == ["ecdsa-sha2-nistp256", "ssh-ed25519"]


def test_append_keeps_what_is_there_and_writes_once(tmp_path: Path) -> None:
    path = tmp_path / ".ssh" / "known_hosts"
    append(path, "web1", 22, A)
    path.write_text(path.read_text() + f"torn {B.text}")
    append(path, "web1", 22, A)
    append(path, "web2", 2222, B)
    assert path.read_text() == f"web1 {A.text}\ntorn {B.text}\n[web2]:2222 {B.text}\n"
    assert path.stat().st_mode & 0o777 == 0o600 and path.parent.stat().st_mode & 0o777 == 0o700


def test_parse_key_refuses_another_type_inside() -> None:
    with pytest.raises(ValueError, match="own type"):
        parse_key(A.text.replace("ssh-ed25519", "ssh-rsa"))


def test_names_and_fingerprints() -> None:
    assert (host_name("Web1", 22), host_name("::1", 2222)) == ("web1", "[::1]:2222")
    assert A.fingerprint.startswith("SHA256:") and not A.fingerprint.endswith("=")
