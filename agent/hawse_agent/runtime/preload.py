"""What every container needs and none changes, computed once in the zygote: a shim inherits it by fork."""

from __future__ import annotations

from hawse_agent.cgroups import Base
from hawse_agent.linux import seccomp
from hawse_agent.runtime.defaults import combine_capabilities
from hawse_agent.spec import codec
from hawse_agent.spec.container import (
    Device,
    DeviceRate,
    HealthCheck,
    LogConfig,
    Resources,
    RestartPolicy,
    Ulimit,
)
from hawse_agent.spec.records import IdRange
from hawse_agent.spec.runtime import BindMount, ProcessConfig, RuntimeConfig, TmpfsMount


def preload() -> None:
    """Compile the default filter for the default capabilities, and the reader of a configuration with all
    that it may hold: what is made here once is shared by all shims, and made after the fork it is not."""
    seccomp.compile_filter("default", combine_capabilities((), (), False))
    codec.loads(RuntimeConfig, codec.dumps(_EVERYTHING))
    codec.loads(Base, codec.dumps(Base(version=1, hierarchies={"memory": "/"})))


_EVERYTHING = RuntimeConfig(
    id="preload",
    name="preload",
    hostname="preload",
    process=ProcessConfig(argv=("x",), rlimits=(Ulimit(name="nofile", soft=1, hard=1),)),
    binds=(BindMount(source="/", target="/x"),),
    tmpfs=(TmpfsMount(target="/x"),),
    devices=(Device(host="/dev/null", target="/dev/null"),),
    resources=Resources(memory=1, read_bps=(DeviceRate(path="/dev/null", rate=1),)),
    restart=RestartPolicy(mode="always"),
    health=HealthCheck(test=("CMD", "x")),
    log=LogConfig(max_files=1),
    ids=IdRange(first=1, count=1),
)
