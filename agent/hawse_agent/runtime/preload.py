"""What every container needs and none changes, computed once in the zygote: a shim inherits it by fork."""

from __future__ import annotations

from hawse_agent.linux import seccomp
from hawse_agent.runtime.defaults import combine_capabilities


def preload() -> None:
    """Compile the default filter for the default capabilities."""
    seccomp.compile_filter("default", combine_capabilities((), (), False))
