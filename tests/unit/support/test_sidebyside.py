"""The runner of test files: order, output, summary, exit code."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tests.support import sidebyside
from tests.support.sidebyside import Part, Result

REPOSITORY = Path(sidebyside.__file__).resolve().parents[2]


def project(directory: Path, **files: str) -> list[str]:
    """A folder whose tests need no session; gives what runs them."""
    for name, text in files.items():
        path = directory / "tests" / "unit" / name / f"test_{name}.py"
        path.parent.mkdir(parents=True)
        path.write_text(text)
    return [sys.executable, "-m", "tests.support.sidebyside", *(f"tests/unit/{name}" for name in files)]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(REPOSITORY)}


def test_the_largest_file_starts_first_and_directories_without_sessions_are_whole(tmp_path: Path) -> None:
    for name, size in (("engine/test_a.py", 10), ("engine/deep/test_b.py", 30), ("engine/helper.py", 99)):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"#" * size)
    unit, *found, one = sidebyside.parts(["tests/unit", f"{tmp_path}/engine", f"{tmp_path}/engine/test_a.py"])
    assert unit == Part(path="tests/unit", session=False)
    assert [Path(part.path).name for part in (*found, one)] == ["test_b.py", "test_a.py", "test_a.py"]
    assert all(part.session for part in (*found, one))


def test_outputs_come_whole_and_the_worst_exit_code_counts(tmp_path: Path) -> None:
    command = project(
        tmp_path,
        good="def test_one(): pass\n",
        bad="import pytest\ndef test_no(): assert 0\n@pytest.mark.skip('no moon')\ndef test_moon(): pass\n",
        none="",
    )
    done = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True)
    assert done.returncode == 1, done.stdout + done.stderr
    before, _, end = done.stdout.partition("== all\n")
    assert [before.count(f"== tests/unit/{name} (") for name in ("good", "bad", "none")] == [1, 1, 1]
    assert "no moon" in end
    assert "FAILED tests/unit/bad/test_bad.py::test_no" in end
    assert "1 failed" in end and "1 passed" in end and "1 skipped" in end


def test_two_run_at_the_same_time(tmp_path: Path) -> None:
    met = "import pathlib, time\ndef test_meet():\n    pathlib.Path('{me}').touch()\n"
    met += "    end = time.monotonic() + 20\n    while not pathlib.Path('{other}').exists():\n"
    met += "        assert time.monotonic() < end\n"
    command = project(tmp_path, a=met.format(me="a", other="b"), b=met.format(me="b", other="a"))
    done = subprocess.run([*command, "--jobs", "2"], cwd=tmp_path, env=environment(), capture_output=True)
    assert done.returncode == 0, done.stdout


def test_a_file_that_dies_without_a_word_is_named() -> None:
    part = Part(path="tests/engine/test_x.py", session=True)
    text = sidebyside.summary([Result(part=part, code=-9, output="..", seconds=1.0)], 1.0)
    assert "FAILED tests/engine/test_x.py: exit code -9" in text


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_what_runs_ends_with_the_runner(number: signal.Signals, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    slow = "import os, time\ndef test_slow():\n"
    slow += "    open('fifo', 'w').write(str(os.getpid()))\n    time.sleep(60)\n"
    command = project(tmp_path, slow=slow)
    with subprocess.Popen(command, cwd=tmp_path, env=environment(), stdout=subprocess.DEVNULL) as runner:
        pid = int((tmp_path / "fifo").read_text())
        runner.send_signal(number)
        assert runner.wait(20) == 128 + number
    assert not Path(f"/proc/{pid}").exists()


def test_one_that_hangs_is_ended_and_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    monkeypatch.setattr(sidebyside, "_TELL_EVERY", 0.2)
    project(tmp_path, stuck="import time\ndef test_stuck(): time.sleep(60)\n")
    (result,) = sidebyside.run(sidebyside.parts(["tests/unit/stuck"]), (), 1, longest=0.4)
    assert result.code == -signal.SIGTERM and result.seconds < 20
    assert "FAILED tests/unit/stuck: exit code -15" in sidebyside.summary([result], 1.0)


def test_one_that_is_ended_says_where_it_is(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    stuck = "import time\ndef test_stuck():\n    open('fifo', 'w').close()\n    time.sleep(60)\n"
    project(tmp_path, stuck=stuck)
    command = Part(path="tests/unit/stuck", session=False).command(())
    output = tmp_path / "output"
    with (
        output.open("wb") as file,
        subprocess.Popen(command, cwd=tmp_path, env=environment(), stdout=file, stderr=file) as run,
    ):
        (tmp_path / "fifo").read_text()
        run.terminate()
        assert run.wait(20) == -signal.SIGTERM
    assert re.search(r"test_stuck.py., line [34] in test_stuck", output.read_text())


def test_pytest_has_no_thread_that_watches(tmp_path: Path) -> None:
    """The kernel lets only a process of one thread come back from a mount namespace."""
    project(tmp_path, one="import os\ndef test_one(): assert len(os.listdir('/proc/self/task')) == 1\n")
    command = Part(path="tests/unit/one", session=False).command(())
    done = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
