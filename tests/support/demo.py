"""The demo: the main job from nothing to nothing, on three test hosts that it makes. `make demo`.

Each step runs the real `hawse`, shows what it says, and looks whether it holds. `tests/fleet/test_demo.py`
goes through the same steps. Must run in a session (tests.support.isolation).
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from tests.support import guestbook, isolation
from tests.support.testhost import TestHost, TestNetwork

REPOSITORY = Path(__file__).resolve().parents[2]
HAWSE = Path(sys.executable).with_name("hawse")
ENTRIES = 12
PORT = 8080
LONGEST_OUTPUT = 60
"""Lines of a command's output that are shown."""


class StepFailed(Exception):
    """What did not hold."""


class Demo:
    """`steps` in order; each raises StepFailed when it does not hold."""

    def __init__(self, network: TestNetwork, directory: Path, *, quiet: bool = False) -> None:
        self.network = network
        self.directory = directory
        self.quiet = quiet
        self.web1, self.web2, self.db1 = (network.host(name) for name in ("web1", "web2", "db1"))
        self.addresses = directory / "addresses.ini"
        self.backup = directory / "guestbook.tar.zst"
        self.changed: list[str] = []
        """Options of the variable that step 7 changes, kept from then on."""
        self.environment = {
            **os.environ,
            "HOME": str(directory),
            "XDG_CACHE_HOME": str(REPOSITORY / ".cache" / "xdg"),
            "XDG_STATE_HOME": str(directory / "state"),
        }

    @property
    def steps(self) -> list[tuple[str, Callable[[], None]]]:
        return [
            ("Three hosts, each with a real sshd", self.make_hosts),
            ("An image of real software", self.make_image),
            ("What would change", self.check),
            ("Change it", self.play),
            ("How it is, and whether it works", self.use),
            ("Again: nothing changes", self.again),
            ("One variable changes", self.change_variable),
            ("Somebody changes a host by hand", self.repair),
            ("Back the volume up, lose everything, restore it", self.backup_and_restore),
            ("Kill the daemons, then redis", self.kill),
            ("Report, and take everything down", self.take_down),
        ]

    # 2, 3

    def make_hosts(self) -> None:
        self.network.start()
        self.addresses.write_text(self.network.inventory())
        self._say(", ".join(f"{host.name} {host.address}" for host in self.network.hosts))
        self._say(f"addresses and keys are in {self.addresses}: a second -i of every command below")

    def make_image(self) -> None:
        data = guestbook.cached()
        if data is None:
            raise StepFailed("the image is not there yet: python -m tests.support.guestbook makes it")
        self.environment["XDG_DATA_HOME"] = str(data)
        self.hawse("image", "ls")

    # 4, 5

    def check(self) -> None:
        output = self.hawse("play", "playbooks/guestbook.yml", "--check")
        for word in ("create container guestbook-redis-1", "create volume guestbook_data", "send image"):
            self._expect(word in output, f"the plan does not say {word!r}")
        for host in self.network.hosts:
            self._expect(host.path("/etc/motd").read_text().find("guestbook") < 0, "check mode wrote a file")
            self._expect(not host.path("/usr/local/sbin/hawse-agent").is_symlink(), "check mode installed")

    def play(self) -> None:
        output = self.hawse("play", "playbooks/guestbook.yml")
        self._expect("0 failed, 0 unreachable" in output, "the play failed")

    # 6

    def use(self) -> None:
        self.hawse("status")
        for number in range(ENTRIES):
            host = (self.web1, self.web2)[number % 2]
            status, _ = self._http(host, "/", f"entry {number} by {host.name}")
            self._expect(status == 201, f"{host.name} answered {status} to an entry")
        self._say(f"{ENTRIES} entries written, half of them through each web host")
        self._expect_entries(ENTRIES)
        for host in (self.web1, self.web2):
            with urllib.request.urlopen(self._url(host, "/"), timeout=5) as answer:
                self._expect(
                    answer.headers["X-Served-By"] == host.name, "both hosts have the same nginx.conf"
                )

    # 7

    def again(self) -> None:
        begin = time.monotonic()
        output = self.hawse("play", "playbooks/guestbook.yml")
        self._say(f"that took {time.monotonic() - begin:.2f} s, start of the program included")
        self._expect("3 hosts: 0 changed, 0 failed" in output, "something changed the second time")

    def change_variable(self) -> None:
        self.changed = ["-e", "redis_memory=192m"]
        plan = self._operations()
        self._expect(
            plan
            == {
                "web1": [],
                "web2": [],
                "db1": [
                    ("update", "container", "guestbook-redis-1", "resources.memory", "128 MiB", "192 MiB")
                ],
            },
            f"the plan is another one: {plan}",
        )
        self.hawse("play", "playbooks/guestbook.yml", "--check", *self.changed)
        output = self.hawse("play", "playbooks/guestbook.yml", *self.changed)
        self._expect("3 hosts: 1 changed, 0 failed" in output, "more or less than one change")

    def repair(self) -> None:
        element = self._remove_port_element(self.web1)
        self._say(f"web1# nft delete element {element}")
        limit = self._change_limit(self.web1, "guestbook-app-1")
        self._say(f"web1# echo {48 << 20} > {limit}")
        plan = self._operations()
        self._expect(plan["web2"] == [] and plan["db1"] == [], "other hosts have changed")
        self._expect(
            [operation[:2] for operation in plan["web1"]] == [("repair", "container"), ("repair", "port")],
            f"the plan does not name exactly what was changed: {plan['web1']}",
        )
        self.hawse("play", "playbooks/guestbook.yml", "--check", *self.changed)
        output = self.hawse("play", "playbooks/guestbook.yml", *self.changed)
        self._expect("3 hosts: 2 changed, 0 failed" in output, "it did not repair exactly two things")
        self._expect(self._operations()["web1"] == [], "it is not repaired")
        self._expect_entries(ENTRIES)

    # 8

    def backup_and_restore(self) -> None:
        self.hawse("volume", "backup", "guestbook_data", "-o", str(self.backup), on="db1")
        listed = self._run(["tar", "-tvf", str(self.backup)])
        self._expect("appendonlydir" in listed, "tar does not find the data in the tarball")
        self.hawse("exec", "guestbook-redis-1", "redis-cli", "FLUSHALL", on="db1")
        self._expect_entries(0)
        self.hawse("ssh", "db1", "--", self._agent_request("POST", "/containers/guestbook-redis-1/stop"))
        self.hawse("ssh", "db1", "--", "rm -rf /var/lib/hawse/volumes/guestbook_data/_data/*")
        self.hawse("play", "playbooks/guestbook.yml", *self.changed)
        self._expect_entries(0)
        self.hawse("volume", "restore", "guestbook_data", str(self.backup), on="db1")
        self._expect_entries(ENTRIES)

    # 9

    def kill(self) -> None:
        daemons = {host.name: self._daemon(host) for host in self.network.hosts}
        for host in self.network.hosts:
            host.kill(daemons[host.name])
            host.wait_for(partial(self._daemon_is_gone, host), "the daemon to end")
        self._say("all three daemons are killed (SIGKILL)")
        self._expect_entries(ENTRIES)
        before = self._redis_pid()
        self.db1.kill(before)
        self._say("redis' PID 1 is killed (SIGKILL), and there is no daemon that could notice")
        self.db1.wait_for(lambda: self._redis_pid(missing=before) not in (0, before), "redis to come back")
        self._expect_entries(ENTRIES)
        for host in self.network.hosts:
            self._expect(self._daemon_is_gone(host), f"a daemon is there on {host.name}")
        output = self.hawse("status")
        self._expect(output.count("running") >= 5, "the daemons do not know their containers")
        report = json.loads(self.hawse("status", options=["--json"], show=False))
        redis = next(c for c in report["db1"]["containers"] if c["name"] == "guestbook-redis-1")
        self._expect(redis["restarts"] == 1, f"redis was restarted {redis['restarts']} times")

    # 10

    def take_down(self) -> None:
        self.hawse("report")
        self.hawse("down", "templates/guestbook.yaml.j2", "--volumes")
        self.hawse("host", "remove", "all", "--volumes")
        for host in self.network.hosts:
            left = host.shell("ls -A /var/lib/hawse /run/hawse /etc/hawse 2>/dev/null", check=False)
            self._expect(not left.replace("/var/lib/hawse:", "").strip(), f"{host.name} still has {left}")
            self._expect(not host.shell("nft list ruleset").strip(), f"nft rules are left on {host.name}")
            links = host.shell("ip -br link").split("\n")
            self._expect(len([link for link in links if link]) == 2, f"links are left on {host.name}")
            self._expect(not host.pids("hawse"), f"processes are left on {host.name}")

    # helpers

    def entrance(self) -> str:
        """A script that runs its arguments, else a shell, in this session, with the demo's environment."""
        session = isolation.current()
        assert session is not None
        names = ("HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME", "XDG_STATE_HOME")
        environment = [f"{name}={self.environment[name]}" for name in names]
        path = f"PATH={HAWSE.parent}:{self.environment['PATH']}"
        enter = ["nsenter", f"--target={session.pid}", "--net", "--mount", "--pid", f"--wd={REPOSITORY}"]
        return f'#!/bin/sh\nexec {shlex.join([*enter, "env", *environment, path])} "${{@:-bash}}"\n'

    def hawse(self, *words: str, on: str = "", options: list[str] | None = None, show: bool = True) -> str:
        """Runs it, shows it, returns what it said. Raises StepFailed for any exit code but 0."""
        where = ["-H", on] if on else []
        chosen = ["-i", "inventory/demo", "-i", str(self.addresses), *where, *(options or [])]
        if show:
            self._say(
                shlex.join(["$ hawse", "-i", "inventory/demo", *where, *words]).replace(
                    "'$ hawse'", "$ hawse"
                )
            )
        return self._run([str(HAWSE), *chosen, *words], show=show)

    def _run(self, argv: list[str], *, show: bool = True) -> str:
        process = subprocess.Popen(
            argv,
            cwd=REPOSITORY,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line)
            if show and len(lines) <= LONGEST_OUTPUT:
                self._say(line.rstrip("\n"), indent="    ")
        if process.wait() != 0:
            raise StepFailed(
                f"{shlex.join(argv[:1] + argv[5:])} ended with {process.returncode}\n{''.join(lines)}"
            )
        return "".join(lines)

    def _operations(self) -> dict[str, list[tuple[str, ...]]]:
        """The plan as JSON, host by host: action, kind, name, then the fields that change."""
        text = self.hawse(
            "play", "playbooks/guestbook.yml", "--check", *self.changed, options=["--json"], show=False
        )
        return {
            host: [(o["action"], o["kind"], o["name"], *_changes(o)) for o in entry["operations"]]
            for host, entry in json.loads(text)["hosts"].items()
        }

    def _expect_entries(self, count: int) -> None:
        """On both web hosts, within the few seconds that redis may take to come back."""
        for host in (self.web1, self.web2):
            seen: Any = None
            deadline = time.monotonic() + 15
            while time.monotonic() < deadline:
                status, text = self._http(host, "/entries")
                seen = json.loads(text) if status == 200 else f"{status} {text}"
                if isinstance(seen, list) and len(seen) == count:
                    break
                time.sleep(0.1)
            else:
                raise StepFailed(f"{host.name} shows {seen} instead of {count} entries")
        self._say(f"both web hosts show {count} entries")

    def _http(self, host: TestHost, path: str, body: str | None = None) -> tuple[int, str]:
        data = body.encode() if body is not None else None
        try:
            with urllib.request.urlopen(self._url(host, path), data, timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError as error:
            return 0, str(error)

    def _url(self, host: TestHost, path: str) -> str:
        return f"http://{host.address}:{PORT}{path}"

    def _remove_port_element(self, host: TestHost) -> str:
        """The element of the map that sends the published port to its container."""
        ruleset = json.loads(host.shell("nft -j list ruleset"))["nftables"]
        for entry in ruleset:
            table = entry.get("map")
            for element in (table or {}).get("elem", ()):
                key = element[0] if isinstance(element, list) else element
                parts = key.get("concat", [key]) if isinstance(key, dict) else [key]
                if PORT in parts:
                    words = " . ".join(str(part) for part in parts)
                    where = f"{table['family']} {table['table']} {table['name']} {{ {words} }}"
                    host.shell(f"nft 'delete element {where}'")
                    return where
        raise StepFailed("no nft element of the published port was found")

    def _change_limit(self, host: TestHost, container: str) -> str:
        identity = json.loads(host.shell(self._agent_request("GET", f"/containers/{container}/json")))["Id"]
        names = (f"-path '*/{identity}/{name}'" for name in ("memory.limit_in_bytes", "memory.max"))
        found = host.shell(f"find /sys/fs/cgroup {' -o '.join(names)}").split()
        host.shell(f"echo {48 << 20} > {found[0]}")
        return found[0]

    def _agent_request(self, method: str, path: str) -> str:
        return f"curl -sS --fail -X {method} --unix-socket /run/hawse/agent.sock http://agent{path}"

    def _daemon(self, host: TestHost) -> int:
        return host.pids("hawse-agent: daemon")[0]

    def _daemon_is_gone(self, host: TestHost) -> bool:
        return not host.pids("hawse-agent: daemon")

    def _redis_pid(self, missing: int = 0) -> int:
        """In the host's own numbering; 0 while there is none."""
        found = [pid for pid in self.db1.pids("redis-server") if pid != missing]
        return found[0] if found else 0

    def _expect(self, holds: bool, otherwise: str) -> None:
        if not holds:
            raise StepFailed(otherwise)

    def _say(self, text: str, indent: str = "  ") -> None:
        if not self.quiet:
            print(f"{indent}{text}", flush=True)


def _changes(operation: dict[str, Any]) -> tuple[str, ...]:
    return tuple(word for c in operation.get("changes", ()) for word in (c["field"], c["old"], c["new"]))


@contextlib.contextmanager
def prepared(*, quiet: bool = False) -> Iterator[Demo]:
    session = isolation.current()
    assert session is not None
    directory = session.directory / "demo"
    directory.mkdir()
    try:
        with TestNetwork() as network:
            yield Demo(network, directory, quiet=quiet)
    finally:
        shutil.rmtree(directory)


def main() -> int:
    if isolation.current() is None:
        print("needs a session: make demo", file=sys.stderr)
        return 2
    begin = time.monotonic()
    waited = 0.0
    with prepared() as demo:
        try:
            for number, (title, step) in enumerate(demo.steps, start=1):
                if os.environ.get("KEEP") and step == demo.take_down:
                    waited = keep(demo)
                print(f"\n{number}. {title}", flush=True)
                started = time.monotonic()
                step()
                print(f"  ({time.monotonic() - started:.1f} s)", flush=True)
        except StepFailed as failed:
            print(f"\nThis step did not hold: {failed}", file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            print("\nInterrupted; the hosts are removed.", file=sys.stderr)
            return 130
    print(f"\nEvery step held, in {time.monotonic() - begin - waited:.0f} s. Nothing is left but .cache/.")
    return 0


def keep(demo: Demo) -> float:
    """Leave the hosts up until Enter or Ctrl-C, and say how to reach them; how many seconds that took."""
    begin = time.monotonic()
    enter = demo.directory / "enter"
    enter.write_text(demo.entrance())
    enter.chmod(0o755)
    print("\nThe hosts stay up until Enter or Ctrl-C. From another terminal, as root:")
    print(f"  {enter} curl http://{demo.web1.address}:{PORT}/")
    print(f"  {enter} hawse -i inventory/demo -i {demo.addresses} status")
    for host in demo.network.hosts:
        print(f"  {enter} {shlex.join(['ssh', *host.ssh_args])}   # {host.name}")
    print(f"  {enter}   # a shell where all this is reached")
    sys.stdout.flush()
    with contextlib.suppress(KeyboardInterrupt):
        if sys.stdin.readline() == "":  # no terminal
            signal.pause()
    return time.monotonic() - begin


if __name__ == "__main__":
    sys.exit(main())
