"""The history of runs: kept, listed, found again, and safe with several writers."""

import stat
import threading
from pathlib import Path

import pytest

from hawse.report import history
from hawse.report.history import History, history_path
from hawse.report.model import HostRun, Result, RunReport
from hawse_agent.errors import HostRefused, InputError, NotFound, Unreachable
from hawse_agent.plan.operations import Operation


def run(id: str, started: float = 1.0, *hosts: HostRun) -> RunReport:
    return RunReport(id=id, command="play site.yml", started=started, seconds=2.5, user="ann", hosts=hosts)


def test_a_run_comes_back_as_it_was(tmp_path: Path) -> None:
    operation = Operation(item="1", action="create", kind="container", name="web")
    kept = run(
        "r1",
        1.0,
        HostRun(
            host="web1",
            changed=1,
            ok=1,
            results=(Result(item="1", name="web", status="ok", changed=True, operation=operation),),
        ),
        HostRun(host="db1", unreachable=1, error=Unreachable("no route", stage="tcp").to_wire()),
    )
    with History(tmp_path / "a" / "history.db") as store:
        store.save(kept)
        store.save(kept)
    with History(tmp_path / "a" / "history.db") as store:
        assert store.run() == kept
        (summary,) = store.runs()
    assert (summary.exit_code, summary.outcomes) == (4, {"changed": 1, "unreachable": 1})
    assert stat.S_IMODE((tmp_path / "a" / "history.db").stat().st_mode) == 0o600


def test_finding_a_run(tmp_path: Path) -> None:
    with History(tmp_path / "history.db") as store:
        with pytest.raises(NotFound, match="no run so far"):
            store.run()
        for number, id in enumerate(("r1", "r10", "r2")):
            store.save(run(id, float(number)))
        assert store.run("r1").id == "r1"
        assert store.run("r10").id == "r10"
        assert store.run("last").id == "r2"
        assert [summary.id for summary in store.runs(2)] == ["r2", "r10"]
        with pytest.raises(InputError, match="several runs begin with r"):
            store.run("r")
        with pytest.raises(NotFound, match="no run x%"):
            store.run("x%")


def test_old_runs_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "KEEP", 2)
    with History(tmp_path / "history.db") as store:
        for number in range(4):
            store.save(run(f"r{number}", float(number), HostRun(host="web1")))
        assert [summary.id for summary in store.runs()] == ["r3", "r2"]


def test_several_commands_at_once(tmp_path: Path) -> None:
    def write(number: int) -> None:
        with History(tmp_path / "history.db") as store:
            store.save(run(f"r{number}", float(number), HostRun(host="web1")))

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with History(tmp_path / "history.db") as store:
        assert len(store.runs()) == 8


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "history.db").write_text("not a database, " * 100)
    with pytest.raises(HostRefused, match=r"cannot use the run history .*history\.db"):
        History(tmp_path / "history.db")


def test_where_it_is() -> None:
    home = {"HOME": "/home/ann"}
    assert history_path(Path("/p"), home) == Path("/p/.hawse/history.db")
    assert history_path(None, home) == Path("/home/ann/.local/state/hawse/history.db")
    assert history_path(None, {**home, "XDG_STATE_HOME": "/s"}) == Path("/s/hawse/history.db")
