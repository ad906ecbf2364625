"""What people see: plans grouped by host, a line per finished operation, recap, status."""

import io
from typing import Any

import pytest

from hawse.report.console import Console, printable, short_size
from hawse.report.history import RunSummary
from hawse.report.model import HostReport, HostRun, Result, RunReport, host_report
from hawse_agent.errors import HawseError, HostRefused, Unreachable
from hawse_agent.plan.operations import Change, Operation, Plan, make_plan
from hawse_agent.spec import codec

UPDATE = Operation(
    item="1",
    action="update",
    kind="container",
    name="shop-web-1",
    changes=(Change(field="resources.memory", old="64 MiB", new="128 MiB"),),
)
CREATE = Operation(item="1", action="create", kind="network", name="shop_default", reason="not there")


class Screen(io.StringIO):
    """A stream that says whether it is a terminal."""

    def __init__(self, terminal: bool = False) -> None:
        super().__init__()
        self._terminal = terminal

    def isatty(self) -> bool:
        return self._terminal

    def lines(self) -> list[str]:
        return [line.rstrip() for line in self.getvalue().splitlines() if line.strip()]


def test_a_plan_groups_hosts_that_have_the_same() -> None:
    screen = Screen()
    plans: dict[str, Plan | HawseError] = {
        "web1": make_plan([CREATE, UPDATE]),
        "db1": make_plan([]),
        "web2": make_plan([CREATE, UPDATE]),
        "db2": Unreachable("connection refused", stage="tcp", hint="is sshd up?"),
    }
    Console(screen).plans(plans)
    assert screen.lines() == [
        "web1, web2",
        "  + create network shop_default  (not there)",
        "  ~ update container shop-web-1",
        "      resources.memory  64 MiB → 128 MiB",
        "db1",
        "  nothing to change",
        "db2: connection refused",
        "  is sshd up?",
        "4 to change on 2 of 4 hosts, 1 without a plan",
    ]


def test_a_diff_is_shown_when_asked_for() -> None:
    operation = Operation(
        item="1", action="recreate", kind="container", name="web", diff="-old\n+new\n", unknown=True
    )
    quiet, full = Screen(), Screen()
    Console(quiet).operation(operation)
    Console(full, diff=True).operation(operation)
    assert quiet.lines() == ["  ± recreate container web  (known only when it runs)"]
    assert full.lines()[1:] == ["      -old", "      +new"]


def operation_event(status: str, **more: Any) -> dict[str, Any]:
    return {"event": "operation", "operation": codec.to_json(UPDATE), "status": status, **more}


@pytest.mark.parametrize("terminal", [False, True])
def test_progress_says_each_finished_operation_once(terminal: bool) -> None:
    screen = Screen(terminal)
    with Console(screen).progress(["web1", "db1"]) as progress:
        progress.note("web1", "connecting")
        progress.event("web1", operation_event("start"))
        progress.event("web1", operation_event("progress", detail="waiting"))
        progress.event("web1", {"event": "beat"})
        progress.event("web1", operation_event("ok", changed=True, seconds=0.25))
        progress.result("web1", Result(item="2", name="say", status="skipped"))
        progress.done(HostRun(host="web1", changed=1, seconds=1.5))
        progress.event("db1", operation_event("failed", seconds=0.5, error=HostRefused("no room").to_wire()))
        progress.done(HostRun(host="db1", failed=1, error=HostRefused("no room").to_wire()))
    if terminal:
        assert "\x1b[" in screen.getvalue()
        assert screen.getvalue().count("resources.memory 64 MiB → 128 MiB") == 2
        return
    assert screen.lines() == [
        "web1  changed  update container shop-web-1  resources.memory 64 MiB → 128 MiB  0.25 s",
        "web1  skipped  say",
        "web1  changed  1 changed  1.5 s",
        "db1   failed   update container shop-web-1  resources.memory 64 MiB → 128 MiB  0.50 s  no room",
        "db1   failed: no room",
    ]


def test_recap() -> None:
    screen = Screen()
    Console(screen).recap(
        RunReport(
            id="r1",
            command="play site.yml",
            started=0.0,
            seconds=3.25,
            hosts=(
                HostRun(host="web1", ok=3, changed=2, seconds=1.0),
                HostRun(
                    host="db1",
                    unreachable=1,
                    error=Unreachable("no route", stage="tcp", hint="up?").to_wire(),
                ),
            ),
        )
    )
    lines = screen.lines()
    assert [line.split() for line in lines if line.startswith(("host", "web1", "db1 "))] == [
        ["host", "ok", "changed", "failed", "skipped", "unreachable", "seconds"],
        ["web1", "3", "2", "0", "0", "0", "1.0"],
        ["db1", "0", "0", "0", "0", "1", "0.0"],
    ]
    assert lines[-3:] == [
        "db1: no route",
        "  up?",
        "2 hosts: 2 changed, 0 failed, 1 unreachable, 3.2 s (run r1)",
    ]


def test_status_shows_live_limits_states_and_hosts_out_of_reach() -> None:
    report: HostReport = host_report(
        "web1",
        {
            "time": 7200.0,
            "agent": {"version": "0.1"},
            "containers": [
                {
                    "name": "shop-web-1",
                    "image": "nginx",
                    "status": "running",
                    "health": "healthy",
                    "started_at": 3600.0,
                    "limits": {"memory": 64 << 20, "cpus": 0.5, "pids": 50},
                    "usage": {"memory": 5 << 20, "pids": 3},
                    "ports": ["8080:80/tcp"],
                    "restarts": 1,
                },
                {"name": "job", "status": "exited", "exit_code": 137, "oom_killed": True},
            ],
            "disk": {"total": 10 << 30, "free": 4 << 30},
        },
    )
    screen = Screen()
    Console(screen).status({"web1": report, "db1": Unreachable("no route", stage="tcp")})
    lines = [" ".join(line.split()) for line in screen.lines()]
    assert "web1 shop-web-1 running 1h healthy 8080:80/tcp 5.0 MiB / 64 MiB 0.5 3 / 50 1 nginx" in lines
    assert "web1 job exited (137, out of memory) 0" in lines
    assert "web1 1 exited, 1 running 0 0 (0 B) 4.0 GiB of 10.0 GiB 0.1" in lines
    assert "db1 unreachable (tcp)" in lines
    assert lines[-2:] == [
        "2 hosts (1 without an answer): 1 exited, 1 running; 1 container is not well",
        "db1: no route",
    ]


def test_runs() -> None:
    screen = Screen()
    Console(screen).runs([])
    Console(screen).runs(
        [
            RunSummary(
                id="r1",
                started=0.0,
                seconds=1.0,
                command="up x",
                check=False,
                user="ann",
                exit_code=1,
                outcomes={"ok": 2, "failed": 1},
            )
        ]
    )
    assert screen.lines()[0] == "no runs so far"
    assert "1 failed, 2 ok" in screen.lines()[-1]


def test_a_host_cannot_steer_the_terminal_or_the_markup() -> None:
    screen = Screen()
    Console(screen).line("\x1b[2J[red]x[/red] :smile:")
    assert screen.lines() == ["\ufffd[2J[red]x[/red] :smile:"]
    assert printable("a\nb\x07") == "a ⏎ b\ufffd"


def test_sizes() -> None:
    assert [short_size(n) for n in (0, 1023, 1024, 150 << 20, 3 << 40)] == [
        "0 B",
        "1023 B",
        "1.0 KiB",
        "150 MiB",
        "3.0 TiB",
    ]
