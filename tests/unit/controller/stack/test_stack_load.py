"""Compose files to StackSpecs: what each key becomes, and what each mistake says."""

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from hawse.stack import load, render
from hawse.stack.schema import compose_schema
from hawse_agent.errors import InputError, NotSupported
from hawse_agent.spec import codec
from hawse_agent.spec.container import (
    ContainerSpec,
    Device,
    DeviceRate,
    EndpointSpec,
    HealthCheck,
    LogConfig,
    PortMap,
    Resources,
    RestartPolicy,
    Ulimit,
)
from hawse_agent.spec.host import ImageSource, StackSpec
from hawse_agent.spec.network import NetworkSpec
from hawse_agent.spec.volume import Mount, VolumeSpec


@pytest.fixture
def stack(tmp_path: Path) -> Any:
    def make(text: str, file: str = "shop.yaml", **options: Any) -> StackSpec:
        path = tmp_path / file
        path.write_text(text)
        return load(path, **{"variables": {}, "environment": {}, **options})

    return make


@pytest.fixture
def service(stack: Any) -> Any:
    """The container of `services: {web: {image: x, …}}`; `rest` is more of the file."""

    def make(keys: str, rest: str = "", **options: Any) -> ContainerSpec:
        body = "".join(f"    {line}\n" for line in keys.splitlines())
        spec = stack(f"services:\n  web:\n    image: x\n{body}{rest}", **options)
        return next(c for c in spec.containers if c.name == "shop-web-1")

    return make


@pytest.mark.parametrize(
    ("keys", "field", "expected"),
    [
        ("command: nginx -g 'daemon off;'", "command", ("nginx", "-g", "daemon off;")),
        ("command: [sleep, 1]", "command", ("sleep", "1")),
        ("command: []", "command", ()),
        ("command:", "command", None),
        ("entrypoint: /run.sh -v", "entrypoint", ("/run.sh", "-v")),
        (
            "environment: {A: 1, B: true, C: 1.10, D: ''}",
            "environment",
            {"A": "1", "B": "true", "C": "1.10", "D": ""},
        ),
        ("environment: [A=1, B=x=y]", "environment", {"A": "1", "B": "x=y"}),
        ("environment: {HOME: , GONE: }", "environment", {"HOME": "/root"}),
        ("environment: [HOME, GONE]", "environment", {"HOME": "/root"}),
        ("user: 1000:1000", "user", "1000:1000"),
        ("user: 33", "user", "33"),
        ("working_dir: /srv", "working_dir", "/srv"),
        ("hostname: www", "hostname", "www"),
        ("domainname: example.org", "domainname", "example.org"),
        ("group_add: [audio, 44]", "group_add", ("audio", "44")),
        ("tty: true", "tty", True),
        ("stdin_open: ${FLAG}", "stdin_open", True),
        ("init: yes", "init", True),
        ("privileged: true", "privileged", True),
        ("read_only: true", "read_only", True),
        ("cap_add: [NET_ADMIN]", "cap_add", ("NET_ADMIN",)),
        ("cap_drop: [ALL]", "cap_drop", ("ALL",)),
        ("stop_signal: SIGQUIT", "stop_signal", "SIGQUIT"),
        ("stop_grace_period: 1m30s", "stop_timeout", 90),
        ("stop_grace_period: 500ms", "stop_timeout", 1),
        ("shm_size: 128m", "shm_size", 128 << 20),
        ("oom_score_adj: -500", "oom_score_adj", -500),
        ("restart: no", "restart", RestartPolicy()),
        ("restart: always", "restart", RestartPolicy(mode="always")),
        ("restart: on-failure:3", "restart", RestartPolicy(mode="on-failure", max_retries=3)),
        (
            "deploy: {restart_policy: {condition: on-failure, max_attempts: 2}}",
            "restart",
            RestartPolicy(mode="on-failure", max_retries=2),
        ),
        ("mem_limit: 64m", "resources", Resources(memory=64 << 20)),
        ("mem_limit: 1.5gb\ncpus: '0.5'", "resources", Resources(memory=3 << 29, cpus=0.5)),
        (
            "deploy: {resources: {limits: {cpus: 0.25, memory: 50M, pids: 10}, reservations: {memory: 20M}}}",
            "resources",
            Resources(cpus=0.25, memory=50 << 20, pids=10, memory_reservation=20 << 20),
        ),
        ("pids_limit: -1", "resources", Resources()),
        (
            "mem_limit: 64m\nmemswap_limit: -1\ncpuset: 0-1\ncpu_shares: 512",
            "resources",
            Resources(memory=64 << 20, memory_swap=-1, cpuset_cpus="0-1", cpu_shares=512),
        ),
        (
            "blkio_config: {device_read_bps: [{path: /dev/sda, rate: 1mb}]}",
            "resources",
            Resources(read_bps=(DeviceRate(path="/dev/sda", rate=1 << 20),)),
        ),
        (
            "ports: [80, '8080:80', '127.0.0.1:53:53/udp', '[::1]:1:2']",
            "ports",
            (
                PortMap(container_port=80),
                PortMap(container_port=80, host_port=8080),
                PortMap(container_port=53, host_port=53, host_ip="127.0.0.1", protocol="udp"),
                PortMap(container_port=2, host_port=1, host_ip="::1"),
            ),
        ),
        ("ports: [53:53]", "ports", (PortMap(container_port=53, host_port=53),)),
        (
            "ports: ['9000-9001:80-81']",
            "ports",
            (PortMap(container_port=80, host_port=9000), PortMap(container_port=81, host_port=9001)),
        ),
        (
            "ports: [{target: 80, published: '8080', protocol: tcp, mode: host, host_ip: 10.0.0.1}]",
            "ports",
            (PortMap(container_port=80, host_port=8080, host_ip="10.0.0.1"),),
        ),
        ("expose: [80, 90/udp, '100-101']", "expose", ("80/tcp", "90/udp", "100/tcp", "101/tcp")),
        (
            "volumes: [/data, '/srv/a:/a', '/srv/b:/b:ro,rslave,idmap']",
            "mounts",
            (
                Mount(kind="volume", target="/data"),
                Mount(kind="bind", target="/a", source="/srv/a", create_source=True),
                Mount(
                    kind="bind",
                    target="/b",
                    source="/srv/b",
                    read_only=True,
                    create_source=True,
                    propagation="rslave",
                    map_ids=True,
                ),
            ),
        ),
        (
            "volumes: [{type: bind, source: /srv/a, target: /a}]",
            "mounts",
            (Mount(kind="bind", target="/a", source="/srv/a"),),
        ),
        (
            "volumes: [{type: tmpfs, target: /t, tmpfs: {size: 1m, mode: 0700}}]",
            "mounts",
            (Mount(kind="tmpfs", target="/t", tmpfs_size=1 << 20, tmpfs_mode=0o700),),
        ),
        ("tmpfs: /run", "mounts", (Mount(kind="tmpfs", target="/run"),)),
        (
            "tmpfs: ['/run:size=2m,mode=755,noexec,uid=33,nr_inodes=9']",
            "mounts",
            (
                Mount(
                    kind="tmpfs",
                    target="/run",
                    tmpfs_size=2 << 20,
                    tmpfs_mode=0o755,
                    tmpfs_options=("noexec", "uid=33", "nr_inodes=9"),
                ),
            ),
        ),
        (
            "healthcheck: {test: curl -f http://localhost, interval: 5s, retries: 2, start_period: 1m}",
            "health",
            HealthCheck(
                test=("CMD-SHELL", "curl -f http://localhost"), interval=5.0, retries=2, start_period=60.0
            ),
        ),
        ("healthcheck: {test: [CMD, 'true']}", "health", HealthCheck(test=("CMD", "true"))),
        ("healthcheck: {disable: true}", "health", HealthCheck(test=("NONE",))),
        ("extra_hosts: ['db:10.0.0.5', 'x=::1']", "extra_hosts", ("db:10.0.0.5", "x:::1")),
        ("extra_hosts: {gw: host-gateway}", "extra_hosts", ("gw:host-gateway",)),
        ("dns: 10.0.0.1", "dns", ("10.0.0.1",)),
        ("dns_search: [a.org, b.org]", "dns_search", ("a.org", "b.org")),
        ("dns_opt: [ndots:2]", "dns_options", ("ndots:2",)),
        ("sysctls: [net.core.somaxconn=1024]", "sysctls", {"net.core.somaxconn": "1024"}),
        (
            "ulimits: {nproc: 100, nofile: {soft: 10, hard: 20}}",
            "ulimits",
            (Ulimit(name="nproc", soft=100, hard=100), Ulimit(name="nofile", soft=10, hard=20)),
        ),
        (
            "devices: ['/dev/null:/dev/x:r', /dev/fuse]",
            "devices",
            (
                Device(host="/dev/null", target="/dev/x", access="r"),
                Device(host="/dev/fuse", target="/dev/fuse"),
            ),
        ),
        ("security_opt: ['no-new-privileges:true']", "no_new_privileges", True),
        ("security_opt: [seccomp=unconfined]", "seccomp", "unconfined"),
        ("network_mode: host", "network_mode", "host"),
        ("pid: host", "pid_mode", "host"),
        ("ipc: shareable", "ipc_mode", "shareable"),
        ("uts: host", "uts_mode", "host"),
        ("userns_mode: auto", "userns_mode", "auto"),
        ("init: false", "init", False),
        ("tty: false", "init", None),
        (
            "logging: {driver: json-file, options: {max-size: 1m, max-file: '5'}}",
            "log",
            LogConfig(max_size=1 << 20, max_files=5),
        ),
        ("x-anything: [1]", "tty", False),
    ],
)
def test_a_key_of_a_service(service: Any, keys: str, field: str, expected: object) -> None:
    spec = service(keys, environment={"HOME": "/root", "FLAG": "true"})
    assert getattr(spec, field) == expected
    assert codec.from_json(ContainerSpec, codec.to_json(spec)) == spec


def test_names_labels_and_the_default_network(stack: Any) -> None:
    spec = stack("services: {web: {image: nginx, labels: {tier: front}}}")
    assert spec.name == "shop"
    assert spec.networks == (NetworkSpec(name="shop_default", labels={"io.hawse.stack": "shop"}),)
    (web,) = spec.containers
    assert web.name == "shop-web-1"
    assert web.labels == {"tier": "front", "io.hawse.stack": "shop", "io.hawse.service": "web"}
    assert web.networks == (EndpointSpec(network="shop_default", aliases=("web",)),)
    assert web.network_mode == "shop_default"
    assert spec.images == (ImageSource(reference="nginx"),)


@pytest.mark.parametrize(
    ("text", "file", "options", "expected"),
    [
        ("", "web-shop.yaml.j2", {}, "web-shop"),
        ("name: other\n", "shop.yaml", {}, "other"),
        ("name: ${WHO}\n", "shop.yaml", {"environment": {"WHO": "me"}}, "me"),
        ("name: other\n", "shop.yaml", {"name": "third"}, "third"),
    ],
)
def test_the_name_of_a_stack(
    stack: Any, text: str, file: str, options: Mapping[str, Any], expected: str
) -> None:
    assert stack(text + "services: {web: {image: x}}", file, **options).name == expected


def test_networks_by_priority_with_aliases_external_and_options(stack: Any) -> None:
    spec = stack("""
services:
  web:
    image: x
    networks:
      back:
      front: {priority: 10, aliases: [www], ipv4_address: 10.9.0.5}
      shared:
networks:
  front:
    internal: true
    ipam: {config: [{subnet: 10.9.0.0/24, gateway: 10.9.0.1}]}
    driver_opts: {com.docker.network.driver.mtu: 1400, com.docker.network.bridge.enable_icc: "false"}
  back: {name: rear}
  shared: {external: true}
  unused:
""")
    assert [(e.network, e.aliases, e.ipv4) for e in spec.containers[0].networks] == [
        ("shop_front", ("web", "www"), "10.9.0.5"),
        ("rear", ("web",), ""),
        ("shared", ("web",), ""),
    ]
    assert [n.name for n in spec.networks] == ["shop_front", "rear"]
    front = spec.networks[0]
    assert (front.subnet, front.gateway, front.internal, front.mtu, front.icc) == (
        "10.9.0.0/24",
        "10.9.0.1",
        True,
        1400,
        False,
    )


def test_volumes_named_external_and_unused(stack: Any) -> None:
    spec = stack("""
services:
  db:
    image: x
    volumes:
      - data:/data
      - {type: volume, source: old, target: /old, read_only: true, volume: {nocopy: true, subpath: a}}
volumes:
  data: {driver_opts: {type: tmpfs}, labels: [a=b]}
  old: {external: true, name: legacy}
  unused:
""")
    labels = {"a": "b", "io.hawse.stack": "shop"}
    assert spec.volumes == (VolumeSpec(name="shop_data", options={"type": "tmpfs"}, labels=labels),)
    assert spec.containers[0].mounts == (
        Mount(kind="volume", target="/data", source="shop_data"),
        Mount(kind="volume", target="/old", source="legacy", read_only=True, no_copy=True, subpath="a"),
    )


def test_configs_and_secrets(stack: Any, tmp_path: Path) -> None:
    (tmp_path / "plain.conf").write_bytes(b"{{ left alone }}\xff")
    (tmp_path / "site.conf.j2").write_text("host {{ inventory_hostname }}\n")
    spec = stack(
        """
services:
  web:
    image: x
    configs: [plain, {source: site, target: /etc/site.conf, mode: 0440, uid: 33, gid: "33"}, inline]
    secrets: [password, {source: password, target: other}]
configs:
  plain: {file: plain.conf}
  site: {file: ./site.conf.j2}
  inline: {content: "a $$5"}
secrets:
  password: {environment: PASSWORD}
""",
        variables={"inventory_hostname": "web1"},
        environment={"PASSWORD": "hunter2"},
    )
    (web,) = spec.containers
    assert [(f.target, base64.b64decode(f.content), f.mode, f.uid, f.gid, f.secret) for f in web.files] == [
        ("/plain", b"{{ left alone }}\xff", 0o444, 0, 0, False),
        ("/etc/site.conf", b"host web1\n", 0o440, 33, 33, False),
        ("/inline", b"a $5", 0o444, 0, 0, False),
        ("/run/secrets/password", b"hunter2", 0o444, 0, 0, True),
        ("/run/secrets/other", b"hunter2", 0o444, 0, 0, True),
    ]
    assert "hunter2" not in repr(web) and base64.b64encode(b"hunter2").decode() not in repr(web)


def test_env_files_under_environment(service: Any, tmp_path: Path) -> None:
    (tmp_path / "a.env").write_text(
        "# comment\nexport A=1\nB='$raw # kept' # gone\nC=\"x\\ny ${A}\"\nD=${HOME}/d # gone\nE=\nHOME\n"
        'MANY="one\ntwo"\n'
    )
    (tmp_path / "raw.env").write_text('R="$x" # all\n')
    spec = service(
        "env_file: [a.env, {path: gone.env, required: false}, {path: raw.env, format: raw}]\n"
        "environment: {A: over}",
        environment={"HOME": "/root"},
    )
    assert spec.environment == {
        "A": "over",
        "B": "$raw # kept",
        "C": "x\ny 1",
        "D": "/root/d",
        "E": "",
        "HOME": "/root",
        "MANY": "one\ntwo",
        "R": '"$x" # all',
    }


def test_dependencies_conditions_profiles_and_other_hosts(stack: Any) -> None:
    text = """
services:
  web:
    image: x
    x-hawse: {hosts: web}
    depends_on:
      db: {condition: service_healthy}
      setup: {condition: service_completed_successfully}
      debug: {required: false}
  db: {image: x, x-hawse: {hosts: db}, container_name: the-db}
  setup: {image: x}
  debug: {image: x, profiles: [debug]}
"""
    everywhere = stack(text)
    assert [c.name for c in everywhere.containers] == ["shop-web-1", "the-db", "shop-setup-1"]
    assert everywhere.containers[0].depends_on == {"the-db": "healthy", "shop-setup-1": "completed"}
    on_web = stack(text, host_matches=lambda pattern: pattern == "web", profiles=["debug"])
    assert [c.name for c in on_web.containers] == ["shop-web-1", "shop-setup-1", "shop-debug-1"]
    assert on_web.containers[0].depends_on == {"shop-setup-1": "completed", "shop-debug-1": "started"}


def test_replicas(stack: Any) -> None:
    spec = stack(
        "services:\n  worker: {image: x, deploy: {replicas: 2}}\n  web: {image: x, depends_on: [worker]}"
    )
    assert [c.name for c in spec.containers] == ["shop-worker-1", "shop-worker-2", "shop-web-1"]
    assert set(spec.containers[2].depends_on) == {"shop-worker-1", "shop-worker-2"}


def test_namespaces_and_volumes_of_another_service(stack: Any) -> None:
    spec = stack("""
services:
  side: {image: x, network_mode: "service:app", pid: "service:app", volumes_from: ["app:ro", "container:old"]}
  app: {image: x}
""")
    side = spec.containers[0]
    assert (side.network_mode, side.pid_mode) == ("container:shop-app-1", "container:shop-app-1")
    assert side.volumes_from == ("shop-app-1:ro", "old")
    assert side.depends_on == {"shop-app-1": "started"}
    assert side.networks == ()


def test_images_of_the_controller_and_wait(stack: Any) -> None:
    known = ImageSource(reference="mine", id="sha256:1", manifest="sha256:2")
    spec = stack(
        "x-hawse: {wait: 2m}\nservices: {a: {image: mine}, b: {image: other}, c: {image: mine}}",
        images={"mine": known}.get,
    )
    assert spec.images == (known, ImageSource(reference="other"))
    assert spec.wait == 120.0


def test_anchors_and_merges(stack: Any) -> None:
    spec = stack("""
x-base: &base {image: x, restart: always, environment: &env {A: 1}}
services:
  web: {<<: *base, restart: "no"}
  api:
    <<: [*base]
    environment: {<<: *env, B: 2}
""")
    assert [c.restart.mode for c in spec.containers] == ["no", "always"]
    assert spec.containers[1].environment == {"A": "1", "B": "2"}


def test_a_template_is_rendered_and_its_loops_may_be_empty(stack: Any, tmp_path: Path) -> None:
    text = (
        "services:\n  web:\n    image: x:{{ tag }}\n    ports:\n"
        "{% for p in ports %}\n    - {{ p }}:80\n{% endfor %}\n"
    )
    assert stack(text, "shop.yaml.j2", variables={"tag": 2, "ports": []}).containers[0].image == "x:2"
    assert stack(text, "shop.yaml.j2", variables={"tag": 2, "ports": [81]}).containers[0].ports == (
        PortMap(container_port=80, host_port=81),
    )
    assert "x:7" in render(tmp_path / "shop.yaml.j2", {"tag": 7, "ports": []})


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("", "{file}: the file is empty", "expected a Compose file: a mapping with services:"),
        ("services:\n", "{file}:1: missing key 'services'", ""),
        ("services: {}\n", "{file}:1: services: expected at least one service", ""),
        ("services: 3\n", "{file}:1: services: expected a mapping of names, not a number", ""),
        ("- a\n", "{file}:1: expected a mapping, not a list", ""),
        ("services:\n  web:\n", "{file}:2: services.web: missing key 'image'", ""),
        (
            "services:\n  web:\n    imge: x\n    image: y\n",
            "{file}:3: services.web.imge: unknown key 'imge'",
            "did you mean 'image'?",
        ),
        (
            "services:\n  web:\n    image: x\n    healthcheck:\n      test: x\n      intervall: 1s\n",
            "{file}:6: services.web.healthcheck.intervall: unknown key 'intervall'",
            "did you mean 'interval'?",
        ),
        (
            "services:\n  web:\n    image: x\n    mem_limit: lots\n",
            "{file}:4: services.web.mem_limit: expected a size like 64m or 1g, not 'lots'",
            "",
        ),
        (
            "services:\n  web:\n    image: x\n    stop_grace_period: 10\n",
            "{file}:4: services.web.stop_grace_period: expected a duration like 30s or 1m30s, not 10",
            "",
        ),
        (
            "services:\n  web:\n    image: x\n    ports:\n      - 80:99999\n",
            "{file}:5: services.web.ports[0].target: expected ports from 1 to 65535, not '99999'",
            "",
        ),
        (
            "services:\n  web:\n    image: x\n    cpus: -1\n",
            "{file}:4: services.web.cpus: expected a number from 0 up, not -1",
            "",
        ),
        (
            "services:\n  web:\n    image: x\n    stop_signal: SIGNOPE\n",
            "{file}:4: services.web.stop_signal: expected a signal like SIGTERM, not 'SIGNOPE'",
            "",
        ),
        (
            "services:\n  web: &web\n    image: x\n    labels: {a: *web}\n",
            "{file}:2: an anchor that contains itself",
            "",
        ),
        (
            "services:\n  web: &web\n    <<: *web\n    image: x\n",
            "{file}:2: an anchor that contains itself",
            "",
        ),
        (
            "services:\n  web:\n    image: [x]\n",
            "{file}:3: services.web.image: expected text, not a list",
            "",
        ),
        (
            "services:\n  web:\n    image: x\n    environment:\n      A: [1]\n",
            "{file}:5: services.web.environment.A: expected text, not a list",
            "",
        ),
        (
            "services:\n  web:\n    image: x:${TAG}\n",
            "{file}:3: services.web.image: variable TAG is not set",
            "set TAG, or write ${TAG:-} for an empty default",
        ),
        (
            "services:\n  web: {image: x\n",
            "{file}:3: not YAML: expected ',' or '}', but got '<stream end>'",
            "",
        ),
        ("services:\n  web: {image: x}\n  web: {image: y}\n", "{file}:3: duplicate key 'web'", ""),
        (
            "services:\n  web:\n    image: x\n    volumes:\n      - dta:/data\nvolumes: {data: }\n",
            "{file}:5: services.web.volumes[0]: there is no volume 'dta' under volumes:",
            "did you mean 'data'?",
        ),
        (
            "services:\n  web: {image: x, networks: [frnt]}\nnetworks: {front: }\n",
            "{file}:2: services.web.networks.frnt: there is no network 'frnt'",
            "did you mean 'front'?",
        ),
        (
            "services:\n  web: {image: x, configs: [site]}\n",
            "{file}:2: services.web.configs[0]: there is no config 'site'",
            "",
        ),
        (
            "services:\n  web: {image: x, depends_on: [dbs]}\n  db: {image: x}\n",
            "{file}:2: services.web.depends_on.dbs: there is no service 'dbs'",
            "did you mean 'db'?",
        ),
        (
            "services:\n  web: {image: x, depends_on: [db]}\n  db: {image: x, profiles: [extra]}\n",
            "{file}:2: services.web.depends_on.db: "
            "service db is switched off: its profile (extra) is not asked for",
            "ask for the profile, or say required: false",
        ),
        (
            "services:\n  a:\n    image: x\n    ports: ['80:80']\n  b:\n    image: x\n    ports:\n"
            "    - 127.0.0.1:80:8080\n",
            "{file}:8: services.b.ports[0]: host port 80/tcp of shop-b-1 is already published by "
            "shop-a-1 ({file}:4)",
            "",
        ),
        (
            "services:\n  web:\n    image: x\n    volumes: ['./data:/data']\n",
            "{file}:4: services.web.volumes[0]: expected an absolute path of the host to bind, not './data' "
            "(a file of the project travels as a config)",
            "",
        ),
        (
            "services:\n  web:\n    image: x\n    volumes: ['/a:/data']\n    tmpfs: /data/\n",
            "{file}:5: services.web.tmpfs[0]: /data is mounted twice (also {file}:4)",
            "",
        ),
        (
            "services:\n  web: {image: x, network_mode: host, ports: ['80:80']}\n",
            "{file}:2: services.web.ports: cannot be published with network_mode: host",
            "",
        ),
        (
            "services:\n  web: {image: x, mem_limit: 1m, deploy: {resources: {limits: {memory: 2m}}}}\n",
            "{file}:2: services.web.mem_limit: contradicts deploy.resources",
            "",
        ),
        (
            "services:\n  web: {image: x, configs: [c]}\nconfigs:\n  c:\n    file: gone.conf\n",
            "{file}:5: configs.c.file: cannot read {dir}/gone.conf: No such file or directory",
            "",
        ),
        (
            "services:\n  web: {image: x}\nconfigs:\n  c: {file: a, content: b}\n",
            "{file}:4: configs.c: expected exactly one of file, content, environment",
            "",
        ),
        (
            "services:\n  web:\n    image: x\n    labels: {io.hawse.stack: other}\n",
            "{file}:4: services.web.labels.io.hawse.stack: this label is Hawse's own",
            "",
        ),
        (
            "services:\n  a: {image: x, container_name: same}\n  b: {image: x, container_name: same}\n",
            "{file}:3: services.b.container_name: services a and b both make a container named same",
            "",
        ),
        ("name: 'Not OK'\nservices: {a: {image: x}}\n", "{file}: invalid stack name 'Not OK'", None),
    ],
)
def test_mistakes(stack: Any, tmp_path: Path, text: str, message: str, hint: str | None) -> None:
    with pytest.raises(InputError) as caught:
        stack(text)
    expected = message.replace("{file}", str(tmp_path / "shop.yaml")).replace("{dir}", str(tmp_path))
    assert caught.value.message == expected
    assert hint is None or caught.value.hint == hint


@pytest.mark.parametrize(
    ("keys", "key"),
    [
        ("build: {platforms: [linux/arm64]}", "services.web.build.platforms"),
        ("build: {ssh: [default]}", "services.web.build.ssh"),
        ("platform: linux/arm64", "services.web.platform"),
        ("links: [db]", "services.web.links"),
        ("deploy: {placement: {}}", "services.web.deploy.placement"),
        ("networks: {default: {ipv6_address: '::1'}}", "services.web.networks.default.ipv6_address"),
    ],
)
def test_keys_of_compose_that_hawse_lacks(service: Any, keys: str, key: str) -> None:
    with pytest.raises(NotSupported, match=rf"shop.yaml:4: {key}: '{key.split('.')[-1]}' is not supported"):
        service(keys)


def test_several_mistakes_are_told_at_once_in_the_order_of_the_file(stack: Any) -> None:
    with pytest.raises(InputError) as caught:
        stack("services:\n  web:\n    image: x\n    tty: maybe\n    cpus: x\n    mem_limit: y\n")
    assert ":4: services.web.tty" in caught.value.message
    assert [line.split("shop.yaml")[1][:3] for line in caught.value.hint.splitlines()[1:]] == [":5:", ":6:"]


def test_a_template_that_renders_to_nothing(stack: Any) -> None:
    with pytest.raises(InputError, match=r"shop.yaml.j2: the template renders to nothing"):
        stack("{% if false %}\nservices:\n{% endif %}\n", "shop.yaml.j2")


def test_an_undefined_variable_names_file_and_line(stack: Any) -> None:
    with pytest.raises(InputError, match=r"shop.yaml.j2:\d+.*tag"):
        stack("services: {web: {image: 'x:{{ tag }}'}}\n", "shop.yaml.j2")


def test_an_error_in_a_rendered_line_names_the_line_of_the_template(stack: Any) -> None:
    loop = "{% for n in names %}\n  {{ n }}:\n    image: x\n{% endfor %}\n"
    text = f"services:\n{loop}  last:\n    imge: {{{{ names[0] }}}}\n"
    with pytest.raises(InputError, match=r"shop.yaml.j2:7: services.last.imge"):
        stack(text, "shop.yaml.j2", variables={"names": ["a", "b"]})


def test_the_schema_has_both_forms() -> None:
    schema = compose_schema()
    service = schema["$defs"]["Service"]["properties"]
    assert "x-hawse" in service and "image" in service
    kinds = {option.get("type", "object") for option in service["ports"]["items"]["anyOf"]}
    assert kinds == {"integer", "string", "object"}
    assert schema["additionalProperties"] is False
