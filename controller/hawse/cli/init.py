"""`init`: the files of a new project, ready to be edited. Overwrites nothing."""

from __future__ import annotations

import argparse
from pathlib import Path

from hawse.cli.context import Context
from hawse.cli.verb import Verb
from hawse_agent.errors import HostRefused, InputError

FILES = {
    "hawse.toml": """\
# What holds for every command in this folder. Paths are relative to this file.
inventory = "inventory/hosts.yaml"

# remote_user = "deploy"             # where the inventory names no ansible_user
# private_key = "~/.ssh/id_ed25519"  # else what ssh_config and the ssh-agent offer
# forks = 32                         # hosts at work at a time
# timeout = 10                       # seconds to connect in
# host_key_checking = "strict"       # or "accept-new", "off"
""",
    "inventory/hosts.yaml": """\
# Hosts and groups, as in an Ansible inventory. `hawse inventory --graph` shows them.
web:
  hosts:
    web1:
      ansible_host: web1.example.org
  vars:
    port: 8080
""",
    "playbooks/site.yml": """\
# hawse play playbooks/site.yml --check    shows what would change
# hawse play playbooks/site.yml            changes it
- name: Web servers
  hosts: web
  become: true
  tasks:
    - name: A place for the page
      file: {path: /srv/app, state: directory, mode: "0755"}

    - name: A page of their own
      copy:
        dest: /srv/app/index.html
        content: "<h1>{{ greeting | default('Hello') }} from {{ inventory_hostname }}</h1>\\n"
        mode: "0644"

    - name: The application
      stack: app.yaml.j2
""",
    "templates/app.yaml.j2": """\
# A Compose file, rendered for each host with its variables. `x-hawse` has what Compose lacks.
services:
  web:
    image: {{ image | default("nginx:stable") }}
    ports:
      - "{{ port }}:80"
    volumes:
      - /srv/app:/usr/share/nginx/html:ro
      - cache:/var/cache/nginx
    restart: unless-stopped
    mem_limit: 128m
    pids_limit: 100

volumes:
  cache:
""",
    ".gitignore": """\
.hawse/
""",
}


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("directory", nargs="?", default=".", type=Path, metavar="DIR", help="(this folder)")


def _run(context: Context, options: argparse.Namespace) -> int:
    directory: Path = options.directory
    there = [name for name in FILES if (directory / name).exists() and name != ".gitignore"]
    if there:
        raise InputError(f"{directory} is a project already: {', '.join(there)}", hint="nothing was written")
    try:
        for name, text in FILES.items():
            path = directory / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if not path.exists():
                with path.open("x", encoding="utf-8") as file:
                    file.write(text)
                context.print(str(path))
    except OSError as error:
        raise HostRefused(f"cannot write {error.filename or directory}: {error.strerror}") from error
    where = "" if directory == Path() else f"cd {directory}, "
    context.print(f"\nNext: {where}name your hosts in inventory/hosts.yaml, then")
    context.print("  hawse play playbooks/site.yml --check")
    return 0


VERBS = (Verb(name="init", help="start a project: files to edit", arguments=_arguments, run=_run),)
