"""Makes runtime configurations of one busybox layer, below a directory and a cgroup base of a session."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.support import busybox

from hawse_agent.cgroups import Base, Tree
from hawse_agent.runtime.defaults import (
    DEFAULT_PATH,
    MASKED_PATHS,
    READONLY_PATHS,
    combine_capabilities,
)
from hawse_agent.spec import codec
from hawse_agent.spec.runtime import ProcessConfig, RuntimeConfig


class Machine:
    """Makes containers of one layer below the session's directory."""

    def __init__(self, directory: Path, base: Base) -> None:
        self.directory = directory
        self.layer = busybox.make_layer(directory / "layer")
        self.base = base
        self.tree = Tree(base)

    def config(self, *argv: str, process: dict[str, Any] | None = None, **fields: Any) -> RuntimeConfig:
        (self.directory / "shims").mkdir(exist_ok=True)
        home = self.directory / f"c{len(list(self.directory.iterdir()))}"
        home.mkdir()
        privileged = fields.get("privileged", False)
        wanted = ProcessConfig(
            argv=argv,
            env=(f"PATH={DEFAULT_PATH}",),
            capabilities=combine_capabilities((), (), privileged),
        )
        defaults: dict[str, Any] = {
            "layers": (str(self.layer),),
            "masked_paths": () if privileged else MASKED_PATHS,
            "readonly_paths": () if privileged else READONLY_PATHS,
            "seccomp": "unconfined" if privileged else "default",
            "network": "none",
        }
        return RuntimeConfig(
            id=home.name,
            name=home.name,
            hostname="box",
            process=replace(wanted, **(process or {})),
            upper=str(home / "upper"),
            work=str(home / "work"),
            cgroup=home.name,
            run_dir=str(self.directory / "shims" / home.name),
            cgroup_base=codec.dumps(self.base),
            **{**defaults, **fields},
        )

    def as_donor(self, config: RuntimeConfig, pid: int) -> str:
        """What shares its namespaces calls it so, once its shim has written this."""
        directory = Path(config.run_dir)
        directory.mkdir(exist_ok=True)
        (directory / "state.json").write_text(json.dumps({"status": "running", "pid": pid}))
        return f"container:{config.id}"
