"""Connection variables: what they come to, and what is refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hawse.inventory import connection
from hawse.template import Scope
from hawse.variables import Variable, data
from hawse.yamlmarks import Marks
from hawse_agent.errors import InputError, NotSupported

MARKS = Marks(file="hosts.ini", lines={(): 7})


def scope(**variables: Any) -> Scope:
    return Scope({name: Variable(value, MARKS) for name, value in variables.items()})


def test_everything_ansible_says_about_a_connection() -> None:
    found = connection(
        "web1",
        scope(
            ip="10.0.0.1",
            ansible_host="{{ ip }}",
            ansible_port="2222",
            ansible_user="deploy",
            ansible_ssh_pass="secret-one",
            ansible_ssh_private_key_file="~/key",
            ansible_become="yes",
            ansible_become_user="app",
            ansible_become_pass="secret-two",
            ansible_python_interpreter="/opt/python",
            ansible_ssh_common_args="-J bastion -o StrictHostKeyChecking=accept-new",
            ansible_ssh_timeout=3,
            ansible_pipelining=True,
            hawse_host_key="ssh-ed25519 AAAA",
        ),
    )
    target = found.target
    assert (target.name, target.address, target.port, target.user) == ("web1", "10.0.0.1", 2222, "deploy")
    assert (target.password, target.become_password) == ("secret-one", "secret-two")
    assert target.private_key == Path("~/key").expanduser()
    assert (found.become, found.become_user) == (True, "app")
    assert target.python == "/opt/python"
    assert target.ssh_args == ("-J", "bastion", "-o", "StrictHostKeyChecking=accept-new")
    assert target.host_key_policy == "accept-new"
    assert target.timeouts.connect == 3.0
    assert target.host_key == "ssh-ed25519 AAAA"
    assert "secret" not in repr(found)


def test_without_variables_the_name_is_the_address() -> None:
    found = connection("web1", scope())
    assert (found.target.host, found.target.connection, found.become) == ("web1", "ssh", None)
    assert connection("x", scope(ansible_connection="local")).target.connection == "local"
    assert connection("x", scope(ansible_python_interpreter="auto_silent")).target.python == ""


@pytest.mark.parametrize(
    ("checking", "policy"), [(False, "off"), ("no", "off"), (True, "strict")]
)  # fmt: skip
def test_host_key_checking(checking: Any, policy: str) -> None:
    assert connection("x", scope(ansible_host_key_checking=checking)).target.host_key_policy == policy


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"ansible_connection": "winrm"}, "hosts.ini:7: ansible_connection=winrm is not supported by Hawse"),
        ({"ansible_become_method": "su"}, "hosts.ini:7: ansible_become_method=su is not supported by Hawse"),
        ({"ansible_become_flags": "-H"}, "hosts.ini:7: ansible_become_flags is not supported by Hawse"),
        ({"ansible_ssh_executable": "x"}, "hosts.ini:7: ansible_ssh_executable is not supported by Hawse"),
    ],
)
def test_what_is_not_supported_is_refused(variables: dict[str, Any], message: str) -> None:
    with pytest.raises(NotSupported) as caught:
        connection("web1", scope(**variables))
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"ansible_port": "ssh"}, "ansible_port is a port"),
        ({"ansible_port": 70000}, "ansible_port is a port"),
        ({"ansible_user": ["x"]}, "ansible_user is a text"),
        ({"ansible_host": "{{ nope }}"}, "'nope' is undefined"),
        ({"ansible_ssh_timeout": "soon"}, "ansible_ssh_timeout is a number of seconds"),
        ({"ansible_ssh_common_args": "-o 'x"}, "ansible_ssh_common_args: No closing quotation"),
        ({"ansible_ssh_args": "-oStrictHostKeyChecking=maybe"}, "StrictHostKeyChecking has no value 'maybe'"),
    ],
)
def test_wrong_values_name_their_place(variables: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=f"^hosts.ini:7: {message}"):
        connection("web1", scope(**variables))


def test_facts_with_such_names_are_no_connection_variables() -> None:
    facts = Scope({"ansible_ssh_host_key_rsa_public": data("AAAA")})
    assert connection("web1", facts).target.host == "web1"
