"""Connections to hosts: SSH by paramiko, and this machine itself, behind one interface (`connection.py`)."""

import sys

# paramiko imports `invoke` for `Match exec` of an ssh_config, which we have `ssh -G` evaluate, and can do
# without it. With `invoke` come asyncio and unittest.mock: 0.2 s at every start.
sys.modules.setdefault("invoke", None)  # type: ignore[arg-type]
