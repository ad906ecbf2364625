"""Reading playbooks: what is taken, and every refusal with its line, before any host is known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hawse.playbook import Play, load
from hawse_agent.errors import InputError, NotSupported


def plays(tmp_path: Path, text: str) -> tuple[Play, ...]:
    (tmp_path / "p.yml").write_text(text)
    return load(tmp_path / "p.yml")


def task(tmp_path: Path, text: str) -> Any:
    (play,) = plays(tmp_path, f"- hosts: all\n  tasks:\n    - {text}\n")
    return play.tasks[0]


def test_a_whole_play(tmp_path: Path) -> None:
    text = """\
- name: site
  hosts: web:db
  vars: {a: 1}
  vars_files: [one.yml, two.yml]
  gather_facts: false
  become: true
  become_user: app
  serial: [1, 50%]
  max_fail_percentage: 30
  any_errors_fatal: no
  tags: site
  environment: {A: b}
  tasks:
    - name: first
      ansible.builtin.command: ls
      when: a == 1
      loop: [1, 2]
      loop_control: {loop_var: n, label: "{{ n }}"}
      register: r
      notify: restart
      tags: [x, y]
      changed_when: false
      environment: {C: d}
  handlers:
    - name: restart
      listen: things
      command: "true"
"""
    (play,) = plays(tmp_path, text)
    (first,) = play.tasks
    assert (play.name, play.gather_facts) == ("site", False)
    assert first.module.name == "command"
    assert first.args.value == {"cmd": "ls"}
    assert first.tags == {"site", "x", "y"}
    assert first.loop_control.loop_var == "n"
    assert first.become is not None and first.become.value is True
    assert first.become_user is not None and first.become_user.value == "app"
    assert [variable.value for variable in first.environment] == [{"A": "b"}, {"C": "d"}]
    assert first.where.endswith("p.yml:14")
    assert play.handlers[0].listen == ("things",)


@pytest.mark.parametrize(
    ("text", "args"),
    [
        ("command: ls -l 'a b' creates=/x chdir=/y", {"cmd": "ls -l 'a b'", "creates": "/x", "chdir": "/y"}),
        ("shell: echo a=b | wc", {"cmd": "echo a=b | wc"}),
        ("command: {argv: [ls, -l]}", {"argv": ["ls", "-l"]}),
        ("{command: ls, args: {chdir: /x}}", {"cmd": "ls", "chdir": "/x"}),
        ("file: path=/x state=directory", {"path": "/x", "state": "directory"}),
        ("file: {dest: /x}", {"path": "/x"}),
        ("stack: guestbook.yaml.j2", {"src": "guestbook.yaml.j2"}),
        ("stack: {template: a.j2}", {"src": "a.j2"}),
        ("image: redis:7", {"name": "redis:7"}),
        ("debug:", {}),
        ("set_fact: {any: 1, name: 2}", {"any": 1, "name": 2}),
    ],
)
def test_ways_to_give_arguments(tmp_path: Path, text: str, args: dict[str, Any]) -> None:
    assert task(tmp_path, text).args.value == args


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("comand: ls", "p.yml:3: unknown module or keyword 'comand'", "did you mean 'command'?"),
        ("xyzzy: ls", "p.yml:3: unknown module or keyword 'xyzzy'", "modules: "),
        ("{command: ls, wen: x}", "p.yml:3: unknown keyword 'wen' of a task", "did you mean 'when'?"),
        ("{command: ls, shell: ls}", "p.yml:3: a task names two modules: command and shell", ""),
        ("name: nothing", "p.yml:3: a task names no module", ""),
        ("just text", "p.yml:3: expected a task: a mapping", ""),
        ("file: {pth: /x}", "p.yml:3: module file has no argument 'pth'", "did you mean 'path'?"),
        ("file: {state: absent}", "p.yml:3: module file needs the argument 'path'", ""),
        ("file: {path: a, dest: b}", "p.yml:3: 'dest' and another argument of module file mean the same", ""),
        ("file: [a]", "p.yml:3: expected the arguments of file as a mapping", ""),
        ("copy: {dest: /x, content_b64: eA==}", "p.yml:3: module copy has no argument 'content_b64'", ""),
        ("{debug: , when: 'a =='}", "p.yml:3: not a valid template: ", ""),
        ("{debug: {msg: '{{ a'}}", "p.yml:3: not a valid template: ", ""),
        ("{assert: {that: ['a ==']}}", "p.yml:3: not a valid template: ", ""),
        ("{debug: , register: a b}", "p.yml:3: register is the name of a variable, not 'a b'", ""),
        ("{debug: , loop: {a: b}}", "p.yml:3: loop is a list, or a template that gives one", ""),
        ("{debug: , when: {a: b}}", "p.yml:3: when is an expression, or a list of them", ""),
        ("{debug: , become: maybe}", "p.yml:3: become is true or false", ""),
        ("{debug: , vars: [a]}", "p.yml:3: vars is a mapping from names to values", ""),
        ("{debug: , notify: nobody}", "p.yml:3: no handler is named 'nobody'", ""),
        ("{debug: , loop_control: {x: y}}", "p.yml:3: unknown keyword 'x' of loop_control", ""),
    ],
)
def test_tasks_are_refused(tmp_path: Path, text: str, message: str, hint: str) -> None:
    with pytest.raises(InputError) as caught:
        task(tmp_path, text)
    assert str(caught.value).startswith(f"{tmp_path}/{message}")
    assert hint in caught.value.hint


@pytest.mark.parametrize("keyword", ["until", "block", "delegate_to", "with_items", "async", "run_once"])
def test_what_only_ansible_has_is_refused_by_name(tmp_path: Path, keyword: str) -> None:
    with pytest.raises(NotSupported, match=f"p.yml:3: '{keyword}' of a task is not supported by Hawse"):
        task(tmp_path, f"{{command: ls, {keyword}: x}}")


def test_a_keyword_without_a_module_is_still_named(tmp_path: Path) -> None:
    with pytest.raises(NotSupported, match="'include_tasks' of a task"):
        task(tmp_path, "include_tasks: x.yml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "p.yml: the playbook is empty"),
        ("hosts: all\n", "p.yml:1: expected a list of plays"),
        ("- tasks: []\n", "p.yml:1: the play has no hosts"),
        ("- hosts: all\n  task: []\n", "p.yml:2: unknown keyword 'task' of a play"),
        ("- hosts: all\n  roles: [x]\n", "p.yml:2: 'roles' of a play is not supported by Hawse"),
        ("- hosts: all\n  serial: some\n", "p.yml:2: serial is a number"),
        (
            "- hosts: all\n  max_fail_percentage: 200\n",
            "p.yml:2: max_fail_percentage is a number from 0 to 100",
        ),
        ("- hosts: all\n  gather_facts: maybe\n", "p.yml:2: gather_facts is true or false"),
        ("- hosts: all\n  tasks: {}\n", "p.yml:2: tasks is a list"),
        ("- hosts: all\n  vars: {a: '{{'}\n", "p.yml:2: not a valid template"),
        ("- import_playbook: x.yml\n", "p.yml:1: 'import_playbook' of a play is not supported"),
    ],
)
def test_plays_are_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        plays(tmp_path, text)
    assert str(caught.value).startswith(f"{tmp_path}/{message}")


def test_notified_names_with_templates_are_left_for_later(tmp_path: Path) -> None:
    assert task(tmp_path, "{debug: , notify: 'restart {{ x }}'}").notify.value == "restart {{ x }}"
