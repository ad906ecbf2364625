"""Plays over several hosts: what is asked of whom, batches, lost hosts, check mode, and the report."""

from __future__ import annotations

import pytest
from tests.support.fakefleet import Scene, outcomes

from hawse_agent.errors import InputError, Unreachable

COPY = '- copy: {dest: /motd, content: "hello {{ inventory_hostname }}"}'


def test_every_host_is_planned_and_brought_there(scene: Scene) -> None:
    finished = scene.tasks(COPY)
    assert finished.exit_code == 0
    assert outcomes(finished) == {"w1": "changed", "w2": "changed", "w3": "changed"}
    assert [scene[host].files["/motd"] for host in ("w1", "w2", "w3")] == ["hello w1", "hello w2", "hello w3"]
    assert finished.report.totals["changed"] == 3
    assert scene["w1"].specs[0].login_user == "alice" and scene["w1"].specs[0].run_id == "run-1"


def test_where_nothing_is_to_be_changed_one_request_is_all(scene: Scene) -> None:
    for host in ("w1", "w2", "w3"):
        scene[host].files["/motd"] = f"hello {host}"
    finished = scene.tasks(COPY)
    assert outcomes(finished) == {"w1": "ok", "w2": "ok", "w3": "ok"}
    assert finished.report.totals["ok"] == 3
    assert scene["w1"].asked == ["plan"]
    assert sorted(scene.reach.connected) == ["w1", "w2", "w3"]


def test_mistakes_are_found_before_the_first_connection(scene: Scene) -> None:
    with pytest.raises(InputError, match=r"p\.yml:4: 'nowhere' is undefined"):
        scene.tasks(f'{COPY}\n- copy: {{dest: /b, content: "{{{{ nowhere }}}}"}}')
    with pytest.raises(InputError, match="max_fail_percentage is a number"):
        scene.play("- hosts: all\n  max_fail_percentage: few\n  tasks: []\n")
    assert scene.reach.connected == []


def test_a_builds_context_that_is_missing_is_found_before_the_first_connection(scene: Scene) -> None:
    stack = "services: {web: {build: {context: app}, command: [x]}}\n"
    (scene.directory / "shop.yaml").write_text(stack)
    tasks = f"{COPY}\n- stack: {{src: shop.yaml, name: shop}}"
    with pytest.raises(InputError, match=r"build shop-web: .*app is no directory"):
        scene.tasks(tasks)
    (scene.directory / "app").mkdir()
    with pytest.raises(InputError, match=r"build shop-web: no such Dockerfile: .*app/Dockerfile"):
        scene.tasks(tasks)
    with pytest.raises(InputError, match="build shop-web"):
        scene.tasks(tasks, check=True)
    assert scene.reach.connected == []


def test_facts_are_asked_for_only_when_something_needs_them(scene: Scene) -> None:
    scene.tasks('- copy: {dest: /name, content: "{{ ansible_hostname }}"}')
    assert scene["w2"].asked == ["facts", "plan", "apply"] and scene["w2"].files["/name"] == "w2"


def test_facts_of_a_host_that_gets_its_agent_in_this_run(scene: Scene) -> None:
    scene.reach.bare = {"w3"}
    scene.play(
        "- hosts: [w1, w3]\n  tasks:\n"
        "    - copy: {dest: /name, content: \"{{ hostvars['w3'].ansible_hostname }}\"}\n"
    )
    assert scene["w1"].files["/name"] == "w3"


def test_results_decide_what_follows(scene: Scene) -> None:
    scene.tasks(
        """\
- name: ask
  command: id
  register: r
- name: tell
  command: "echo {{ r.stdout }}"
  when: inventory_hostname == 'w1'"""
    )
    assert scene.ran() == {"w1": ["id", "echo out of ask"], "w2": ["id"], "w3": ["id"]}


def test_a_handler_runs_once_where_something_has_changed(scene: Scene) -> None:
    scene["w2"].files["/a"] = "x"
    scene.play(
        """\
- hosts: all
  tasks:
    - copy: {dest: /a, content: x}
      notify: restart
    - copy: {dest: /b, content: x}
      when: inventory_hostname != 'w2'
      notify: restart
  handlers:
    - name: restart
      command: restart
"""
    )
    assert scene.ran() == {"w1": ["restart"], "w3": ["restart"]}


def test_changed_when_has_the_last_word_in_the_report(scene: Scene) -> None:
    finished = scene.tasks("- command: uname\n  changed_when: false")
    assert outcomes(finished) == {"w1": "ok", "w2": "ok", "w3": "ok"}


# hosts that are lost


def test_an_unreachable_host_is_named_with_its_stage_and_the_others_go_on(scene: Scene) -> None:
    scene.reach.lost["w2"] = Unreachable("w2: connect to 10.0.0.2:22: timed out", stage="tcp")
    finished = scene.tasks(COPY)
    assert finished.exit_code == 4
    assert outcomes(finished) == {"w1": "changed", "w2": "unreachable", "w3": "changed"}
    assert finished.report.hosts[1].error is not None and finished.report.hosts[1].error["stage"] == "tcp"
    assert "w2  unreachable: w2: connect" in scene.out.getvalue()


def test_a_failed_host_gets_nothing_more_in_any_play(scene: Scene) -> None:
    finished = scene.play(
        """\
- hosts: all
  tasks:
    - command: "{{ 'false' if inventory_hostname == 'w1' else 'true' }}"
    - command: after
- hosts: all
  tasks:
    - command: second play
"""
    )
    assert finished.exit_code == 1
    assert scene.ran()["w1"] == ["false"]
    assert scene.ran()["w2"] == ["true", "after", "second play"]
    assert "it returned 1" in finished.report.hosts[0].message


def test_a_failure_that_may_be_is_none(scene: Scene) -> None:
    finished = scene.tasks("- command: 'false'\n  ignore_errors: true\n- command: after")
    assert finished.exit_code == 0 and scene.ran()["w1"] == ["false", "after"]


def test_a_cut_connection_says_at_what_and_that_the_next_run_repairs(scene: Scene) -> None:
    scene["w1"].cut_at = "slow"
    finished = scene.tasks("- name: the slow one\n  command: slow\n- command: after")
    host = finished.report.hosts[0]
    assert host.outcome == "unreachable" and finished.exit_code == 4
    assert "lost at: run command the slow one" in host.message and "run again" in host.hint


def test_a_host_that_is_done_early_says_so(scene: Scene) -> None:
    finished = scene.play("- hosts: w1\n  tasks: [command: id]\n- hosts: w2\n  tasks: [command: id]\n")
    assert sum(host.seconds for host in finished.report.hosts) <= finished.report.seconds + 0.002


# batches and budget


def test_batches_go_one_after_another(scene: Scene) -> None:
    scene.play(f"- name: rolling\n  hosts: all\n  serial: 2\n  tasks:\n    {COPY}\n")
    assert set(scene.reach.connected[:2]) == {"w1", "w2"} and scene.reach.connected[2] == "w3"
    assert "play: rolling (w3)" in scene.out.getvalue()


def test_too_many_lost_hosts_end_the_run_and_the_rest_is_named(scene: Scene) -> None:
    scene.reach.lost["w1"] = Unreachable("w1: no", stage="dns")
    finished = scene.play(f"- hosts: all\n  serial: 1\n  tasks:\n    {COPY}\n")
    assert scene.reach.connected == ["w1"]
    assert finished.stopped == "1 of 1 hosts of the batch are lost; nothing was done on w2, w3"
    assert finished.exit_code == 4


def test_within_the_budget_the_run_goes_on(scene: Scene) -> None:
    scene.reach.lost["w1"] = Unreachable("w1: no", stage="dns")
    play = "- hosts: all\n  serial: 2\n  max_fail_percentage: %s\n  tasks: [command: id]\n"
    assert outcomes(scene.play(play % 50))["w3"] == "changed"
    assert "w3" not in outcomes(scene.play(play % 49))


# check mode


def test_check_asks_for_plans_and_for_nothing_else(scene: Scene) -> None:
    scene["w2"].files["/motd"] = "hello w2"
    finished = scene.tasks(COPY, check=True)
    assert all(scene[host].asked == ["plan"] for host in ("w1", "w2", "w3"))
    assert finished.exit_code == 0 and finished.report.check
    changes = {host: [op.name for op in plan.operations] for host, plan in finished.plans.items()}  # type: ignore[union-attr]
    assert changes == {"w1": ["/motd"], "w2": [], "w3": ["/motd"]}


def test_check_installs_no_agent(scene: Scene) -> None:
    scene.reach.bare = {"w1"}
    finished = scene.tasks(COPY, check=True)
    operations = finished.plans["w1"].operations  # type: ignore[union-attr]
    assert [(op.action, op.kind, op.unknown) for op in operations] == [
        ("create", "agent", False),
        ("run", "copy", True),
    ]
    assert scene["w1"].asked == []


def test_check_says_what_only_a_real_run_can_tell(scene: Scene) -> None:
    finished = scene.tasks(
        '- command: id\n  register: r\n- name: tell\n  command: "echo {{ r.stdout }}"', check=True
    )
    assert [op.name for op in finished.plans["w1"].operations if op.unknown] == ["command", "tell"]  # type: ignore[union-attr]


def test_check_counts_a_host_out_of_reach(scene: Scene) -> None:
    scene.reach.lost["w3"] = Unreachable("w3: no", stage="auth")
    finished = scene.tasks(COPY, check=True)
    assert finished.exit_code == 4 and isinstance(finished.plans["w3"], Unreachable)


# transfers


def test_a_restore_and_what_becomes_of_it(scene: Scene) -> None:
    (scene.directory / "b.tar").write_bytes(b"tar")
    (scene.directory / "b.tar.manifest.json").write_text('{"tar_sha256": "x"}')
    scene["w1"].volumes["data"] = b""
    finished = scene.tasks(f"- volume_restore: {{volume: data, src: {scene.directory}/b.tar}}")
    assert outcomes(finished) == {"w1": "changed", "w2": "failed", "w3": "failed"}
    assert scene["w1"].volumes["data"] == b"tar"
    assert "no such volume: data" in finished.report.hosts[1].message


def test_long_files_go_only_where_they_are_missing(scene: Scene) -> None:
    (scene.directory / "long").write_bytes(b"x" * (3 << 20))
    task = f"- copy: {{src: {scene.directory}/long, dest: /long}}"
    scene.tasks(task)
    assert scene["w1"].asked == ["plan", "upload", "apply"]
    scene["w1"].files.clear()
    scene["w1"].asked.clear()
    scene.tasks(task)
    assert scene["w1"].asked == ["plan", "apply"]


def test_what_is_cut_while_it_is_sent_goes_on_over_a_new_connection(scene: Scene) -> None:
    (scene.directory / "long").write_bytes(b"x" * (3 << 20))
    scene["w1"].cut_uploads, scene["w2"].cut_uploads = 2, 3
    finished = scene.tasks(f"- copy: {{src: {scene.directory}/long, dest: /long}}")
    assert outcomes(finished) == {"w1": "changed", "w2": "unreachable", "w3": "changed"}
    assert scene["w1"].asked == ["plan", "upload", "upload", "upload", "apply"]
    assert scene.reach.connected.count("w1") == 3


def test_with_diff_texts_are_shown_before_they_change(scene: Scene) -> None:
    scene["w1"].files["/motd"] = "hello"
    scene.diff = True
    scene.tasks(COPY)
    lines = scene.out.getvalue().splitlines()
    shown = [line.strip() for line in lines if line.startswith("w1")]
    assert shown[:4] == [
        "w1  ~ update file /motd",
        "w1      content  hello → hello w1",
        "w1      -hello",
        "w1      +hello w1",
    ]
    assert shown[4].startswith("w1  changed  update file /motd")
