"""A play on one host: what is asked of it and when, what is answered here, what is remembered."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from hawse.inventory import Connection, extra_variables
from hawse.inventory import load as load_inventory
from hawse.playbook import (
    Apply,
    Backup,
    GatherFacts,
    Outcome,
    Program,
    Restore,
    Run,
    load,
    planned_results,
)
from hawse.ssh.target import Target
from hawse_agent.errors import InputError
from hawse_agent.plan.operations import Operation
from hawse_agent.spec.host import ImageSource, Item

INVENTORY = """\
[web]
w1 role=front
w2
[db]
d1
[web:vars]
port=80
"""

Answer = Callable[[Item], Mapping[str, Any]]


def changed(item: Item) -> Mapping[str, Any]:
    return {"changed": True, "failed": False, "rc": 0, "stdout": f"out of {item.id}"}


@dataclass
class Scene:
    """A directory with a playbook, and a pretended fleet."""

    directory: Path
    run: Run
    answer: Answer = changed
    facts: dict[str, dict[str, Any]] = field(default_factory=dict)
    requests: list[Any] = field(default_factory=list)
    outcomes: list[Outcome] = field(default_factory=list)
    program: Program | None = None

    def play(self, text: str, host: str = "w1", connection: Connection | None = None) -> list[Outcome]:
        """Run the only play of `text` on a host; the outcomes."""
        (self.directory / "p.yml").write_text(text)
        (play,) = load(self.directory / "p.yml")
        self.program = Program(play, self.run.inventory.host(host), self.run, connection=connection)
        self.requests, self.outcomes = [], []
        for step in self.program:
            match step:
                case Outcome():
                    self.outcomes.append(step)
                    continue
                case GatherFacts():
                    self.program.feed(self.facts.get(step.host, {}))
                case Apply():
                    self.program.feed(self._apply(step))
                case Backup() | Restore():
                    self.program.feed({step.id: {"changed": True, "failed": False, "bytes": 7}})
            self.requests.append(step)
        return self.outcomes

    def tasks(self, text: str, host: str = "w1") -> list[Outcome]:
        indented = "".join(f"    {line}\n" for line in text.splitlines())
        return self.play(f"- hosts: all\n  tasks:\n{indented}", host)

    def items(self) -> list[Item]:
        return [item for request in self.requests if isinstance(request, Apply) for item in request.items]

    def _apply(self, request: Apply) -> dict[str, Mapping[str, Any]]:
        if self.run.check:
            operations = [
                Operation(item=item.id, action="run", kind="x", name=item.name, unknown=_is_command(item))
                for item in request.items
                if self.answer(item)["changed"]
            ]
            return planned_results(request.items, operations)
        results = {}
        for item in request.items:
            results[item.id] = self.answer(item)
            if results[item.id]["failed"] and not item.ignore_errors:
                break
        return results


def _is_command(item: Item) -> bool:
    return item.task is not None and item.task.module == "command"


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    (tmp_path / "hosts").write_text(INVENTORY)
    return Scene(tmp_path, Run(inventory=load_inventory([tmp_path / "hosts"]), project=tmp_path))


def messages(outcomes: list[Outcome]) -> list[str]:
    return [outcome.message for outcome in outcomes if outcome.message]


def statuses(outcomes: list[Outcome]) -> list[str]:
    return [outcome.status for outcome in outcomes]


# one request for as much as possible


def test_tasks_go_out_together_until_one_needs_a_result(scene: Scene) -> None:
    scene.tasks(
        """\
- command: one
  register: r
- command: two
- debug: {msg: "static {{ port }}"}
- command: "three {{ r.stdout }}"
- command: four
"""
    )
    assert [[item.id for item in request.items] for request in scene.requests] == [
        ["0.t0", "0.t1"],
        ["0.t3", "0.t4"],
    ]
    assert [item.task.args["cmd"] for item in scene.items() if item.task] == [
        "one",
        "two",
        "three out of 0.t0",
        "four",
    ]
    assert [outcome.item for outcome in scene.outcomes] == ["0.t0", "0.t1", "0.t2", "0.t3", "0.t4"]


def test_a_result_behind_another_variable_is_needed_as_well(scene: Scene) -> None:
    scene.play(
        """\
- hosts: all
  vars: {made: "{{ r.stdout | default('nothing') }}"}
  tasks:
    - {command: one, register: r}
    - {command: "{{ made }}"}
"""
    )
    assert len(scene.requests) == 2
    assert scene.items()[1].task is not None
    assert scene.items()[1].task.args["cmd"] == "out of 0.t0"


def test_failed_when_decides_before_the_next_task(scene: Scene) -> None:
    scene.answer = lambda item: {"changed": True, "failed": True, "rc": 3, "msg": "rc 3"}
    outcomes = scene.tasks(
        """\
- {command: one, failed_when: r.rc == 4, register: r}
- {command: two, failed_when: r.rc == 3, register: r}
- {command: three}
"""
    )
    assert statuses(outcomes) == ["ok", "failed"]
    assert [item.ignore_errors for item in scene.items()] == [True, True]
    assert scene.program is not None and scene.program.failed


def test_changed_when_counts_but_needs_no_request_of_its_own(scene: Scene) -> None:
    outcomes = scene.tasks(
        """\
- {command: one, changed_when: false}
- {command: two, changed_when: "'out' in r.stdout", register: r}
"""
    )
    assert [outcome.changed for outcome in outcomes] == [False, True]
    assert len(scene.requests) == 1


def test_after_a_failure_nothing_more_is_asked(scene: Scene) -> None:
    scene.answer = lambda item: {"changed": False, "failed": item.id == "0.t1", "msg": "no"}
    outcomes = scene.tasks(
        """\
- command: one
- command: two
- debug: {msg: not shown}
- {command: three, register: r}
- debug: {var: r.rc}
"""
    )
    assert statuses(outcomes) == ["ok", "failed"]
    assert len(scene.requests) == 1


def test_ignored_failures_are_results_like_others(scene: Scene) -> None:
    scene.answer = lambda item: {"changed": False, "failed": True, "msg": "no"}
    outcomes = scene.tasks(
        """\
- {command: one, ignore_errors: true, register: r}
- {debug: {msg: "{{ r.msg }}"}, when: r is failed}
"""
    )
    assert statuses(outcomes) == ["ignored", "ok"]
    assert outcomes[1].message == "no"


# conditions, loops, registers


def test_a_false_condition_skips_and_registers(scene: Scene) -> None:
    outcomes = scene.tasks(
        """\
- {command: one, when: [port == 80, role == 'back'], register: r}
- debug: {msg: "{{ r is skipped }} {{ r.changed }}"}
"""
    )
    assert statuses(outcomes) == ["skipped", "ok"]
    assert outcomes[1].message == "True False"
    assert scene.requests == []


def test_loops_register_every_round(scene: Scene) -> None:
    outcomes = scene.tasks(
        """\
- command: "make {{ item.n }} {{ i }}"
  loop: [{n: a, run: yes}, {n: b, run: no}, {n: c, run: yes}]
  when: item.run
  loop_control: {label: "{{ item.n }}", index_var: i}
  register: r
- debug: {msg: "{{ r.results | map(attribute='item') | map(attribute='n') | join(',') }} {{ r.changed }}"}
- debug: {msg: "{{ r.results | rejectattr('skipped', 'defined') | map(attribute='stdout') | list }}"}
"""
    )
    assert [item.name for item in scene.items()] == ["command (a)", "command (c)"]
    assert statuses(outcomes) == ["ok", "skipped", "ok", "ok", "ok"]
    assert messages(outcomes)[1:] == ["a,b,c True", '["out of 0.t0.0", "out of 0.t0.2"]']


def test_a_loop_over_nothing_is_skipped(scene: Scene) -> None:
    outcomes = scene.tasks(
        """\
- {command: one, loop: []}
- {command: two, loop: "{{ nowhere }}", when: nowhere is defined}
"""
    )
    assert statuses(outcomes) == ["skipped", "skipped"]


def test_set_fact_and_registers_outlast_the_play_and_command_line_wins(scene: Scene) -> None:
    scene.run = replace(scene.run, extra=extra_variables(["forced=cli"]))
    scene.tasks(
        "- command: one\n- set_fact: {x: '{{ port + 1 }}', forced: no}\n- {command: two, register: r}"
    )
    outcomes = scene.tasks("- debug: {msg: '{{ x }} {{ r.rc }} {{ forced }}'}")
    assert messages(outcomes) == ["81 0 cli"]


def test_set_fact_is_seen_at_once(scene: Scene) -> None:
    scene.tasks("- command: one\n- set_fact: {x: 1}\n- command: 'two {{ x }}'")
    assert len(scene.requests) == 1


def test_results_are_never_templates(scene: Scene) -> None:
    scene.answer = lambda item: {"changed": True, "failed": False, "stdout": "{{ 1 / 0 }}"}
    outcomes = scene.tasks("- {command: one, register: r}\n- debug: {msg: 'got {{ r.stdout }}'}")
    assert messages(outcomes) == ["got {{ 1 / 0 }}"]


# what the controller answers itself


def test_assert_fails_in_its_turn_with_its_line(scene: Scene) -> None:
    outcomes = scene.tasks(
        """\
- command: one
- assert:
    that:
      - port == 80
      - role == 'back'
    fail_msg: "{{ role }} is wrong"
- command: two
"""
    )
    assert statuses(outcomes) == ["ok", "failed"]
    assert outcomes[1].message == f"{scene.directory}/p.yml:7: front is wrong"
    assert [item.id for item in scene.items()] == ["0.t0"]


def test_debug(scene: Scene) -> None:
    outcomes = scene.tasks(
        "- debug:\n- debug: {var: port}\n- debug: {msg: x, verbosity: 1}\n- debug: {msg: [1]}"
    )
    assert messages(outcomes) == ["Hello world!", '{"port": 80}', "Verbosity threshold not met", "[1]"]


# what goes to the host


def test_become_environment_and_no_log(scene: Scene) -> None:
    play = """\
- hosts: all
  become: true
  environment: {A: 1, B: "{{ role }}"}
  tasks:
    - command: one
    - {command: two, become: false}
    - {command: three, become_user: "{{ role }}", no_log: true, environment: {B: x}}
"""
    scene.play(play)
    tasks = [item.task for item in scene.items()]
    assert [task.become_user for task in tasks if task] == ["root", "", "front"]
    assert tasks[0] is not None and tasks[0].environment == {"A": "1", "B": "front"}
    assert tasks[2] is not None and tasks[2].no_log and tasks[2].environment == {"A": "1", "B": "x"}
    assert scene.outcomes[2].result == {}
    scene.play(play, connection=Connection(target=Target(name="w1"), become=False))
    assert {item.task.become_user for item in scene.items() if item.task} == {""}


def test_become_of_the_command_line_yields_to_the_play(scene: Scene) -> None:
    scene.run = replace(scene.run, become=True)
    scene.tasks("- command: one\n- {command: two, become: false}")
    assert [item.task.become_user for item in scene.items() if item.task] == ["root", ""]


def test_arguments_are_rendered_and_fitted(scene: Scene) -> None:
    scene.tasks(
        """\
- file: {path: "/{{ role }}", state: directory, mode: 0755, recurse: "yes", owner: "{{ omit }}"}
- package: {name: "a, b", state: latest}
- wait_for: {port: "{{ port }}", timeout: "5"}
"""
    )
    assert [item.task.args for item in scene.items() if item.task] == [
        {"path": "/front", "state": "directory", "mode": "0755", "recurse": True},
        {"name": ["a", "b"], "state": "latest"},
        {"port": 80, "timeout": 5.0},
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file: {path: /x, state: gone}", "p.yml:3: argument 'state' of module file: expected one of"),
        ("wait_for: {port: http}", "p.yml:3: argument 'port' of module wait_for: expected int"),
        ("file: {path: [a]}", "p.yml:3: argument 'path' of module file: expected str, not a list"),
        ("command: '{{ nope }}'", "p.yml:3: 'nope' is undefined"),
        ("copy: {dest: /x}", "p.yml:3: module copy needs either 'src' or 'content'"),
        ("copy: {dest: /x, src: nope}", "p.yml:3: no such file: nope"),
        ("stack: nope.yaml", "p.yml:3: no such file: nope.yaml"),
        ("stack: {state: absent}", "p.yml:3: module stack needs the argument 'src'"),
        ("{command: x, loop: '{{ port }}'}", "p.yml:3: loop is a list, not int"),
        ("{command: x, when: role}", "p.yml:3: the condition comes out as text"),
        ("{command: x, notify: 'no {{ role }}'}", "p.yml:3: no handler is named 'no front'"),
        ("{command: x, environment: text}", "p.yml:3: environment is a mapping"),
    ],
)
def test_what_is_wrong_is_told_with_its_line(scene: Scene, text: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        scene.tasks(f"- {text}")
    assert str(caught.value).startswith(f"{scene.directory}/{message}")


def test_files_travel_inside_items_or_as_blobs(scene: Scene) -> None:
    (scene.directory / "files").mkdir()
    (scene.directory / "templates").mkdir()
    (scene.directory / "files/small").write_text("raw {{ role }}\n")
    (scene.directory / "files/big").write_bytes(b"x" * (2 << 20))
    (scene.directory / "templates/t.conf.j2").write_text("port {{ port }}\n")
    scene.tasks(
        """\
- copy: {src: small, dest: /etc/}
- template: {src: t.conf.j2, dest: /etc/, mode: "0600"}
- copy: {src: big, dest: /etc/big}
- copy: {content: {a: 1}, dest: /etc/json}
"""
    )
    args = [item.task.args for item in scene.items() if item.task]
    assert [arg["dest"] for arg in args] == ["/etc/small", "/etc/t.conf", "/etc/big", "/etc/json"]
    assert base64.b64decode(args[0]["content_b64"]) == b"raw {{ role }}\n"
    assert base64.b64decode(args[1]["content_b64"]) == b"port 80\n"
    assert base64.b64decode(args[3]["content_b64"]) == b'{"a": 1}'
    (request,) = scene.requests
    assert request.blobs == {args[2]["content_blob"]: scene.directory / "files/big"}


def test_a_directory_is_copied_part_by_part(scene: Scene) -> None:
    (scene.directory / "files/site/sub").mkdir(parents=True)
    (scene.directory / "files/site/index").write_text("i")
    (scene.directory / "files/site/sub/page").write_text("p")
    outcomes = scene.tasks("- copy: {src: site, dest: /srv, directory_mode: '0750', owner: www}")
    tasks = [item.task for item in scene.items() if item.task]
    assert [(task.module, task.args.get("path") or task.args["dest"]) for task in tasks] == [
        ("file", "/srv/site"),
        ("copy", "/srv/site/index"),
        ("file", "/srv/site/sub"),
        ("copy", "/srv/site/sub/page"),
    ]
    assert tasks[0].args == {"path": "/srv/site", "state": "directory", "mode": "0750", "owner": "www"}
    assert [(outcome.item, outcome.changed) for outcome in outcomes] == [("0.t0", True)]
    scene.tasks("- copy: {src: site/, dest: /srv}")
    assert scene.items()[1].task is not None and scene.items()[1].task.args["dest"] == "/srv/index"


def test_stacks_images_and_volumes(scene: Scene) -> None:
    (scene.directory / "shop.yaml.j2").write_text(
        "services:\n  web:\n    image: nginx\n    hostname: {{ role }}-{{ tier }}\n"
        "  db: {image: redis, x-hawse: {hosts: db}}\n"
    )
    source = ImageSource(reference="nginx", id="sha256:i", manifest="sha256:m", blobs=("sha256:b",))
    scene.run = replace(scene.run, images={"nginx": source}.get)
    scene.tasks(
        """\
- {stack: {src: shop.yaml.j2, wait: 5}, vars: {tier: one}}
- {stack: {name: old, state: absent, remove_volumes: true}}
- {image: nginx}
- {volume: {name: data, labels: {a: b}}}
"""
    )
    first, second, third, fourth = scene.items()
    assert first.stack is not None and second.stack is not None
    assert [(c.name, c.hostname) for c in first.stack.containers] == [("shop-web-1", "front-one")]
    assert (first.stack.wait, first.stack.images[0].manifest) == (5.0, "sha256:m")
    assert (second.stack.name, second.stack.state, second.stack.remove_volumes) == ("old", "absent", True)
    assert third.task is not None and third.task.args["blobs"] == ["sha256:b"]
    assert fourth.task is not None and fourth.task.args["name"] == "data"


def test_a_stack_waits_for_the_results_it_uses(scene: Scene) -> None:
    (scene.directory / "s.yaml.j2").write_text("services: {a: {image: x, hostname: 'h{{ r.rc }}'}}\n")
    scene.tasks("- {command: one, register: r}\n- stack: s.yaml.j2")
    assert len(scene.requests) == 2
    stack = scene.items()[1].stack
    assert stack is not None and stack.containers[0].hostname == "h0"


def test_backups_and_restores_keep_their_place(scene: Scene) -> None:
    outcomes = scene.tasks(
        """\
- command: stop
- volume_backup: {volume: data, dest: backups/, compression: gzip}
  register: b
- command: "start {{ b.bytes }}"
- volume_restore: {name: data, src: /tmp/x.tar}
"""
    )
    stop, backup, start, restore = scene.requests
    assert isinstance(stop, Apply) and isinstance(start, Apply)
    assert backup == Backup(
        id="0.t1",
        name="volume_backup",
        volume="data",
        dest=scene.directory / "backups/w1-data.tar.gz",
        compression="gzip",
    )
    assert isinstance(restore, Restore) and restore.src == Path("/tmp/x.tar")
    assert statuses(outcomes) == ["ok"] * 4


# handlers


HANDLERS = """\
- hosts: all
  tasks:
    - {command: one, notify: [second, first]}
    - {command: two, notify: third, changed_when: false}
    - {command: three, notify: things}
  handlers:
    - {name: first, command: h1}
    - {name: second, command: h2, notify: last}
    - {name: third, command: h3}
    - {name: fourth, listen: things, command: h4}
    - {name: last, command: h5}
"""


def test_handlers_run_once_in_their_order_when_something_changed(scene: Scene) -> None:
    scene.play(HANDLERS)
    commands = [item.task.args["cmd"] for item in scene.items() if item.task]
    assert commands == ["one", "two", "three", "h1", "h2", "h4", "h5"]
    scene.answer = lambda item: {"changed": False, "failed": False}
    scene.play(HANDLERS)
    assert len(scene.requests) == 1


def test_a_failed_host_runs_no_handlers(scene: Scene) -> None:
    scene.answer = lambda item: {"changed": True, "failed": item.id == "0.t2"}
    scene.play(HANDLERS)
    assert len(scene.items()) == 3


# tags, facts, variables


def test_tags_choose(scene: Scene) -> None:
    text = """\
- {command: a, tags: one}
- {command: b, tags: [always]}
- {command: c, tags: [never, two]}
- {command: d}
"""
    for tags, skip, commands in [
        (("all",), (), "abd"),
        (("one",), (), "ab"),
        (("two",), (), "bc"),
        (("all",), ("one", "always"), "d"),
        (("untagged",), (), "bd"),
        (("tagged",), (), "ab"),
        (("all",), ("all",), "b"),
    ]:
        scene.run = replace(scene.run, tags=tags, skip_tags=skip)
        scene.tasks(text)
        assert "".join(item.task.args["cmd"] for item in scene.items() if item.task) == commands


def test_facts_are_gathered_when_a_template_first_needs_one(scene: Scene) -> None:
    scene.facts = {"w1": {"ansible_hostname": "one"}, "d1": {"ansible_hostname": "data"}}
    outcomes = scene.tasks(
        """\
- command: x
- debug: {msg: "{{ ansible_hostname }} {{ ansible_facts.hostname }}"}
- debug: {msg: "{{ hostvars.d1.ansible_hostname }} {{ hostvars['w2'].port }}"}
- debug: {msg: "{{ ansible_nope | default('-') }}"}
"""
    )
    assert [request.host for request in scene.requests if isinstance(request, GatherFacts)] == ["w1", "d1"]
    assert messages(outcomes) == ["one one", "data 80", "-"]
    scene.tasks("- debug: {msg: '{{ ansible_hostname }}'}")
    assert scene.requests == []


def test_facts_can_be_asked_for_and_forbidden(scene: Scene) -> None:
    scene.play("- {hosts: all, gather_facts: true}")
    assert scene.requests == [GatherFacts(host="w1")]
    text = "- {hosts: all, gather_facts: false, tasks: [{debug: {msg: '{{ ansible_x | default(1) }}'}}]}"
    scene.play(text, "w2")
    assert scene.requests == []


def test_precedence_within_a_play(scene: Scene) -> None:
    (scene.directory / "group_vars").mkdir()
    (scene.directory / "group_vars/web.yml").write_text(
        "a: group\nb: group\nc: group\nd: group\nwhich: front\n"
    )
    (scene.directory / "front.yml").write_text("c: file\nd: file\n")
    outcomes = scene.play(
        """\
- hosts: all
  vars: {b: play, c: play, d: play}
  vars_files: ["{{ which }}.yml", [missing.yml, front.yml]]
  tasks:
    - debug: {msg: "{{ a }} {{ b }} {{ c }} {{ d }} {{ inventory_hostname }} {{ playbook_dir }}"}
      vars: {d: task, inventory_hostname: nobody}
"""
    )
    assert messages(outcomes) == [f"group play file task w1 {scene.directory}"]


def test_a_missing_vars_file_is_named(scene: Scene) -> None:
    with pytest.raises(InputError, match=r"p.yml:2: no such file: none.yml"):
        scene.play("- hosts: all\n  vars_files: [none.yml]\n  tasks: [{debug: }]")


def test_hostvars_show_what_another_host_has_registered(scene: Scene) -> None:
    scene.tasks("- {command: one, register: r}\n- set_fact: {y: 1}", "d1")
    outcomes = scene.tasks("- debug: {msg: '{{ hostvars.d1.r.stdout }} {{ hostvars.d1.y }}'}", "w1")
    assert messages(outcomes) == ["out of 0.t0 1"]
    with pytest.raises(InputError, match="'nobody'"):
        scene.tasks("- debug: {msg: '{{ hostvars.nobody.x }}'}")


# check mode


def test_check_mode_tells_what_it_cannot_know(scene: Scene) -> None:
    scene.run = replace(scene.run, check=True)
    scene.answer = lambda item: {"changed": item.id != "0.t3"}
    outcomes = scene.tasks(
        """\
- {command: one, register: r}
- {command: two, when: r.rc == 0, register: s}
- {debug: {msg: "{{ s.stdout }}"}}
- {file: {path: /x}, register: f}
- {debug: {msg: "{{ f.changed }} {{ r.changed }} {{ ansible_check_mode }}"}}
- {command: three, when: f is failed}
- {command: four, when: r is failed}
"""
    )
    assert statuses(outcomes) == ["ok", "unknown", "unknown", "ok", "ok", "skipped", "unknown"]
    assert outcomes[1].message == "depends on 'rc' of an earlier task, which is known once that has run"
    assert outcomes[4].message == "False True True"
    assert scene.program is not None and not scene.program.failed


def test_check_mode_foresees_handlers(scene: Scene) -> None:
    scene.run = replace(scene.run, check=True)
    scene.play(HANDLERS)
    commands = [item.task.args["cmd"] for item in scene.items() if item.task]
    assert commands == ["one", "two", "three", "h1", "h2", "h4", "h5"]
