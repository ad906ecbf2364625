"""One container, in the order in which the kernel sees it.

    create.py    the shim's side: clone PID 1, make the cgroup, release it, hear how its exec went
    init.py      the child's side: one ordered list of steps from the clone to the exec
    enter.py     a further process in a running container
    rootfs.py  mounts.py  devices.py  identity.py  console.py    what the steps are made of
    defaults.py  Docker's defaults

`preload()` computes what every container needs, in the zygote, before anything is forked.
"""

from hawse_agent.runtime.preload import preload

__all__ = ["preload"]
