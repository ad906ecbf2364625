"""package: what is missing is found from the database's answers, and done by one command for each verb.

Nothing here asks or changes the machine's own packages.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest

from hawse_agent.errors import InputError, TaskFailed
from hawse_agent.provision import package, process

Make = Callable[..., Any]

DPKG = "\n".join(
    (
        "bash\tamd64\t5.2\tinstalled\t",
        "libc6\tamd64\t2.36\tinstalled\tlibc-dev-bin (= 2.36), glibc",
        "mawk\tamd64\t1.3\tinstalled\tawk",
        "nginx\tamd64\t1.22\tconfig-files\t",
    )
)
POLICY = "bash:\n  Installed: 5.2\n  Candidate: 5.3\nmawk:\n  Installed: 1.3\n  Candidate: 1.3\n"


class Host:
    """Answers programs, and keeps what was run."""

    def __init__(self, answers: Mapping[str, str | tuple[int, str]]) -> None:
        self.answers = answers
        self.ran: list[list[str]] = []

    def run(self, argv: Sequence[str], user: Any, **options: Any) -> process.Completed:
        self.ran.append(list(argv))
        answer = self.answers.get(argv[0], "")
        rc, text = answer if isinstance(answer, tuple) else (0, answer)
        out, err = (b"", text.encode()) if rc else (text.encode(), b"")
        return process.Completed(rc=rc, stdout=out, stderr=err, started=0.0, ended=0.0)

    @property
    def changes(self) -> list[list[str]]:
        """Without the options."""
        return [
            [argv[0], *(word for word in argv[1:] if not word.startswith("--option"))]
            for argv in self.ran
            if argv[0] == "apt-get"
        ]


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Host:
    found = Host({"dpkg-query": DPKG, "apt-cache": POLICY})
    monkeypatch.setattr(process, "run", found.run)
    monkeypatch.setattr(shutil, "which", lambda program, path: program == "apt-get")
    return found


def planned(made: Any) -> list[tuple[str, str, str]]:
    return [(change.field, change.old, change.new) for change in made.plan().changes]


def test_only_what_is_missing_is_installed(task: Make, host: Host) -> None:
    made = task("package", name=["bash", "nginx", "libc6:amd64", "awk", "curl=7.88"])
    assert planned(made) == [("nginx", "absent", "installed"), ("curl", "absent", "7.88")]
    assert host.changes == []
    assert made.apply()["changed"] is True
    assert host.changes == [["apt-get", "--yes", "--quiet", "install", "--", "nginx", "curl=7.88"]]


def test_nothing_is_run_when_nothing_is_missing(task: Make, host: Host) -> None:
    made = task("package", name=["bash", "awk"], update_cache=True)
    assert made.plan().changed is False
    assert made.apply()["changed"] is False
    assert host.changes == []


def test_another_version_is_a_change(task: Make, host: Host) -> None:
    assert planned(task("package", name=["bash=5.1"])) == [("bash", "5.2", "5.1")]
    assert planned(task("package", name=["bash=5.2"])) == []


def test_latest_upgrades_what_the_lists_know_better(task: Make, host: Host) -> None:
    made = task("apt", name=["bash", "mawk", "nginx"], state="latest")
    assert planned(made) == [("nginx", "absent", "installed"), ("bash", "5.2", "5.3")]
    made.apply()
    assert [argv[3:] for argv in host.changes] == [
        ["install", "--", "nginx"],
        ["install", "--only-upgrade", "--", "bash"],
    ]


def test_only_what_is_there_is_removed(task: Make, host: Host) -> None:
    made = task("package", name=["bash", "nginx"], state="absent")
    assert planned(made) == [("bash", "5.2", "absent")]
    made.apply()
    assert host.changes == [["apt-get", "--yes", "--quiet", "remove", "--", "bash"]]


def test_lists_are_updated_before_they_are_used(task: Make, host: Host) -> None:
    assert task("package", name=["nginx"], update_cache=True).apply()["cache_updated"] is True
    assert [argv[3] for argv in host.changes] == ["update", "install"]
    alone = task("package", update_cache=True)
    assert alone.plan().unknown
    assert alone.apply()["changed"] is True


def test_latest_is_not_known_before_the_lists_are_updated(task: Make, host: Host) -> None:
    assert task("package", name=["mawk"], state="latest", update_cache=True).plan().unknown


def test_a_failure_says_what_the_manager_said(task: Make, host: Host) -> None:
    host.answers = {**host.answers, "apt-get": (100, "W: old\nE: Unable to locate package nginx\n")}
    with pytest.raises(TaskFailed, match=r"apt-get failed: E: Unable to locate package nginx$") as failure:
        task("package", name=["nginx"]).apply()
    assert failure.value.result["rc"] == 100


@pytest.mark.parametrize("name", ["--reinstall", "-oX=y", "a b", "", "../x.deb", "a;b"])
def test_a_name_is_never_an_option(task: Make, host: Host, name: str) -> None:
    with pytest.raises(InputError, match="not a package name"):
        task("package", name=[name]).plan()


def test_no_name_is_refused(task: Make, host: Host) -> None:
    with pytest.raises(InputError, match="needs a name"):
        task("package").plan()


def test_a_host_without_a_manager(task: Make, host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda program, path: None)
    with pytest.raises(TaskFailed, match="none of apt-get, dnf, apk"):
        task("package", name=["bash"]).apply()


def test_apk_lists_are_read() -> None:
    lines = [
        "py3-pip-23.1-r0 x86_64 {py3-pip} (MIT) [installed]",
        "musl-1.2.4-r2 x86_64 {musl} (MIT) [installed]",
    ]
    assert package.apk_versions(lines, ["musl", "py3-pip", "curl"]) == {
        "musl": "1.2.4-r2",
        "py3-pip": "23.1-r0",
    }
