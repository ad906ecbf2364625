"""hawse.toml, what `init` makes, and what a context makes of both."""

from __future__ import annotations

import io
import subprocess
from pathlib import Path

import pytest

from hawse.cli.context import Context, Place
from hawse.cli.main import main
from hawse.cli.project import find
from hawse.cli.verb import Globals
from hawse.inventory import load as load_inventory
from hawse.playbook import load as load_playbook
from hawse.playbook import play_hosts
from hawse.playbook.run import Run
from hawse.stack.load import load as load_stack
from hawse_agent.errors import InputError


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def context(options: Globals | None = None, environment: dict[str, str] | None = None) -> Context:
    return Context(
        options or Globals(), environment=environment or {}, stdin=io.BytesIO(), stdout=io.StringIO()
    )


def test_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("hawse.toml").write_text(
        'inventory = ["hosts.ini", "a,b"]\nremote_user = "deploy"\nprivate_key = "keys/id"\nforks = 5\n'
        'timeout = 2.5\nhost_key_checking = "accept-new"\nknown_hosts = "keys/known"\n'
    )
    Path("deep/er").mkdir(parents=True)
    monkeypatch.chdir("deep/er")
    project = find(None, Path.cwd())
    up = Path("../..")
    assert project.directory == up
    assert project.inventory == (str(up / "hosts.ini"), "a,b")
    assert (project.remote_user, project.forks, project.timeout) == ("deploy", 5, 2.5)
    assert (project.private_key, project.known_hosts) == (up / "keys/id", (up / "keys/known",))
    assert project.host_key_checking == "accept-new"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('forks = 5\ninventry = "x"\n', "hawse.toml:2: unknown key 'inventry'"),
        ("\n[paths]\nx = 1\n", "hawse.toml:2: unknown key 'paths'"),
        ("forks = 0\n", "hawse.toml:1: forks is a number from 1 up"),
        ("forks = true\n", "hawse.toml:1: forks is a number from 1 up"),
        ("timeout = -1\n", "hawse.toml:1: timeout is a number of seconds"),
        ("inventory = 3\n", "hawse.toml:1: inventory is a text or a list of texts"),
        ('host_key_checking = "no"\n', "hawse.toml:1: host_key_checking is strict, accept-new or off"),
        ("# one\nforks = \n", "hawse.toml:2: not TOML: Invalid value"),
    ],
)
def test_refused_with_its_line(text: str, message: str) -> None:
    Path("hawse.toml").write_text(text)
    with pytest.raises(InputError) as caught:
        find(None, Path.cwd())
    assert str(caught.value) == message


def test_what_a_host_is_reached_by() -> None:
    Path("hosts.ini").write_text("one ansible_user=root\ntwo\n")
    Path("hawse.toml").write_text('inventory = "hosts.ini"\nremote_user = "deploy"\ntimeout = 3\n')
    one, two = (context(Globals(extra_vars=("ansible_port=23",))) for _ in range(2))
    first, second = (c.target(c.inventory.host(name)) for c, name in ((one, "one"), (two, "two")))
    assert (first.user, first.port, first.timeouts.connect) == ("root", 23, 3.0)
    assert second.user == "deploy"
    given = context(Globals(user="me", timeout=7))
    third = given.target(given.inventory.host("two"))
    assert (third.user, third.timeouts.connect) == ("me", 7)


def test_passwords_are_asked_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def ask(self: Context, prompt: str, **_: bool) -> str:
        asked.append(prompt)
        return "" if "sudo" in prompt else "secret"

    monkeypatch.setattr(Context, "ask", ask)
    asking = context(Globals(inventory=("a,b",), ask_pass=True, ask_become_pass=True))
    targets = [asking.target(host) for host in asking.hosts()]
    assert asked == ["SSH password: ", "sudo password (Enter: the SSH password): "]
    assert [(target.password, target.become_password) for target in targets] == [("secret", "secret")] * 2
    assert "secret" not in repr(targets)


def test_where_container_verbs_go() -> None:
    assert context().places() == [Place(name="localhost")]
    named = context(Globals(inventory=("a,b",), hosts="b"), {"HAWSE_HOST": "a"})
    assert [place.name for place in named.places()] == ["b"]
    by_default = context(Globals(inventory=("a,b",)), {"HAWSE_HOST": "a"})
    assert [place.name for place in by_default.places()] == ["a"]


def test_init_makes_a_project_that_loads(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["init", "shop"]) == 0
    assert "shop/hawse.toml" in capsys.readouterr().out
    project = find(Path("shop"), Path.cwd())
    inventory = load_inventory(project.inventory)
    plays = load_playbook(Path("shop/playbooks/site.yml"))
    hosts = play_hosts(plays[0], Run(inventory=inventory, project=project.directory))
    assert [host.name for host in hosts] == ["web1"]
    stack = load_stack(Path("shop/templates/app.yaml.j2"), variables={"port": 8080}, environment={})
    assert [container.image for container in stack.containers] == ["nginx:stable"]


def test_init_overwrites_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    Path("playbooks").mkdir()
    Path("playbooks/site.yml").write_text("mine\n")
    assert main(["init"]) == 2
    assert "playbooks/site.yml" in capsys.readouterr().err
    assert Path("playbooks/site.yml").read_text() == "mine\n"
    assert not Path("hawse.toml").exists()


def test_completion_of_bash(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "bash"]) == 0
    script = capsys.readouterr().out
    assert _complete(script, "hawse", "vol") == ["volume"]
    assert _complete(script, "hawse", "volume", "") == ["ls", "backup", "restore"]
    assert _complete(script, "hawse", "-H", "web", "volume", "backup", "--comp") == ["--compression"]
    assert "--follow" in _complete(script, "hawse", "logs", "--")
    assert _complete(script, "hawse", "run", "--health-c") == ["--health-cmd"]
    assert _complete(script, "hawse", "-H", "web", "exec", "--det") == ["--detach", "--detach-keys"]
    assert "--gpus" not in _complete(script, "hawse", "create", "--")


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_completion_of_other_shells(capsys: pytest.CaptureFixture[str], shell: str) -> None:
    assert main(["completion", shell]) == 0
    assert "bootstrap" in capsys.readouterr().out


def _complete(script: str, *words: str) -> list[str]:
    quoted = " ".join(f"'{word}'" for word in words)
    run = f'COMP_WORDS=({quoted}); COMP_CWORD={len(words) - 1}; _hawse; printf "%s\\n" "${{COMPREPLY[@]}}"'
    done = subprocess.run(
        ["bash", "--norc", "-c", f"{script}\n{run}"], capture_output=True, text=True, check=True
    )
    return done.stdout.split()
