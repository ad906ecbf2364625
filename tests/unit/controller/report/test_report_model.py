"""Counts of a host's run from the agent's events, and the agent's report as data."""

import json
from typing import Any

from hawse.report.model import HostRecorder, HostRun, RunReport, fleet_json, host_report, run_json
from hawse.report.run import new_run_id
from hawse_agent.errors import HostRefused, InputError, TaskFailed, Unreachable
from hawse_agent.plan.operations import Change, Operation
from hawse_agent.spec import codec
from hawse_agent.spec.container import Resources

UPDATE = Operation(
    item="1",
    action="update",
    kind="container",
    name="shop-web-1",
    changes=(Change(field="resources.memory", old="64 MiB", new="128 MiB"),),
)


def operation(status: str, **more: Any) -> dict[str, Any]:
    return {"event": "operation", "operation": codec.to_json(UPDATE), "status": status, **more}


def recorded(*events: dict[str, Any]) -> HostRecorder:
    recorder = HostRecorder(host="web1")
    for event in events:
        recorder.event(event)
    return recorder


def test_a_run_that_changes_something() -> None:
    run = recorded(
        operation("start"),
        {"event": "beat"},
        operation("ok", changed=True, seconds=0.25),
        {"event": "item", "id": "1", "changed": True, "failed": False, "result": {}},
        {"event": "item", "id": "2", "changed": False, "failed": False, "result": {}},
        {"event": "end", "changed": 1, "failed": False},
    ).finish()
    assert (run.outcome, run.ok, run.changed, run.failed, run.exit_code) == ("changed", 2, 1, 0, 0)
    assert run.results[0].operation == UPDATE
    assert run.results[0].seconds == 0.25


def test_a_run_that_fails() -> None:
    error = HostRefused("no room", hint="make some").to_wire()
    run = recorded(
        operation("failed", error=error, seconds=0.1),
        {"event": "item", "id": "1", "changed": False, "failed": True, "result": {"msg": "no room"}},
        {"event": "end", "changed": 0, "failed": True, "error": error},
    ).finish()
    assert (run.outcome, run.failed, run.changed, run.exit_code) == ("failed", 1, 0, 1)
    assert run.message == f"{UPDATE.action} {UPDATE.kind} {UPDATE.name}: no room"
    assert (run.hint, run.results[0].message) == ("make some", "no room")


def test_an_ignored_failure_does_not_fail_the_run() -> None:
    run = recorded(
        {"event": "item", "id": "1", "changed": False, "failed": True, "result": {}},
        {"event": "end", "changed": 0, "failed": False},
    ).finish()
    assert (run.outcome, run.ok, run.failed, run.exit_code) == ("ok", 1, 0, 0)


def test_tasks_of_the_controller_and_errors_outside_the_stream() -> None:
    recorder = HostRecorder(host="web1")
    recorder.answered("1", "say", "ok", message="hello")
    recorder.answered("2", "not here", "skipped")
    recorder.answered("3", "check", "failed", message="no")
    recorder.fail(TaskFailed("assertion failed"))
    run = recorder.finish()
    assert (run.ok, run.skipped, run.failed, run.outcome) == (1, 1, 1, "failed")


def test_unreachable_and_the_worst_exit_code() -> None:
    recorder = HostRecorder(host="db1")
    recorder.fail(Unreachable("no route", stage="tcp"))
    recorder.fail(InputError("later, and not what ended it"))
    gone = recorder.finish()
    assert (gone.outcome, gone.unreachable, gone.failed, gone.exit_code) == ("unreachable", 1, 0, 4)
    run = RunReport(
        id=new_run_id(), command="play x", started=0.0, hosts=(HostRun(host="a", ok=2, changed=3), gone)
    )
    assert run.exit_code == 4
    assert run.totals == {"ok": 2, "changed": 3, "failed": 0, "skipped": 0, "unreachable": 1}


def test_run_ids_sort_by_time_and_differ() -> None:
    assert new_run_id(1e9) < new_run_id(1e9 + 1)
    assert len({new_run_id(1e9) for _ in range(20)}) > 1


def test_the_report_of_a_host() -> None:
    report = host_report(
        "web1",
        {
            "time": 100.0,
            "agent": {"version": "1.0", "pid": 7},
            "containers": [
                {
                    "name": "web",
                    "status": "running",
                    "limits": {"memory": 1024, "of_a_newer_agent": 1},
                    "usage": {"memory": 10, "cpu_ns": 5, "pids": 2},
                    "ports": ["8080:80/tcp"],
                    "new_key": 1,
                },
                {"name": "job", "status": "exited", "exit_code": 1, "limits": None},
            ],
            "volumes": [{"name": "data", "users": ["web"], "size": 5}],
            "images": [{"id": "sha256:1", "tags": ["x"], "size": 9, "users": 1}],
            "disk": {"path": "/var/lib/hawse", "total": 100, "free": 40},
        },
    )
    web, job = report.containers
    assert (web.limits, web.memory, web.pids, web.well) == (Resources(memory=1024), 10, 2, True)
    assert not job.well
    assert dict(report.states) == {"running": 1, "exited": 1}
    assert (report.agent_version, report.disk_free, report.volumes[0].size) == ("1.0", 40, 5)


def test_json_for_scripts_has_every_key() -> None:
    gone = HostRecorder(host="db1")
    gone.fail(Unreachable("no route", stage="tcp"))
    run = RunReport(id="r1", command="play x", started=0.0, hosts=(HostRun(host="a"), gone.finish()))
    data = json.loads(json.dumps(run_json(run)))
    assert (data["exit_code"], data["totals"]["unreachable"], data["check"]) == (4, 1, False)
    assert [host["outcome"] for host in data["hosts"]] == ["ok", "unreachable"]
    assert data["hosts"][1]["error"]["stage"] == "tcp"
    fleet = fleet_json({"a": host_report("a", {"containers": [{"name": "x", "status": "running"}]})})
    assert json.loads(json.dumps(fleet))["a"]["states"] == {"running": 1}
