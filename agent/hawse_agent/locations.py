"""The default instance's directories, apart from paths.py so that `dial` starts without importing more."""

LIB = "/var/lib/hawse"
RUN = "/run/hawse"
ETC = "/etc/hawse"
SOCKET = f"{RUN}/agent.sock"
START_LOCK = "start.lock"
"""In the run directory: serialises who starts the daemon."""
DAEMON_LOCK = "daemon.lock"
"""In the run directory: held by the daemon for life; its text is `PID VERSION BUNDLE`, at the end
`PID leaving`, so that the next one waits for the operation in hand instead of giving up."""
LEAVING = "leaving"
MAX_LOG = 1 << 20
"""Bytes, after which daemon.log is renamed to `.1` and begun again."""
