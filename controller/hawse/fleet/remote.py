"""What runs on a host without an agent: a shell script finds Python, Python scripts install and remove.

All are sent as text and answer with lines after a marker, so that a noisy login shell does no harm. The shell
script is plain POSIX sh; the Python scripts are standard library only and run as root.
"""

from __future__ import annotations

MARKER = "HAWSE-ANSWER:"
CANDIDATES = ("python3.14", "python3.13", "python3.12", "python3.11", "python3")
MODULES = ("json", "http.client", "urllib.request", "sqlite3", "asyncio", "ctypes", "ssl", "tarfile", "zlib")

# Run by each candidate; `%d.%d` works in any Python, which an f-string would not.
CHECK = """\
import sys
missing = []
for name in {modules!r}:
    try:
        __import__(name)
    except Exception:
        missing.append(name)
sys.stdout.write("{marker}%s %d.%d %s\\n" % (sys.executable, sys.version_info[0], sys.version_info[1],
                 ",".join(missing) or "-"))
"""

PROBE = """\
check={check}
PATH=$PATH:/usr/local/bin:/usr/bin:/bin:/opt/python/bin
for name in {candidates}; do
  path=$(command -v "$name" 2>/dev/null) || continue
  "$path" -I -S -c "$check" 2>/dev/null
done
echo {marker}end
"""

INSTALL = """\
import ctypes, hashlib, io, json, os, shutil, subprocess, sys, tarfile, zlib

MARKER, DIGEST, HOME, LINK = {marker!r}, {digest!r}, {home!r}, {link!r}
UNIT = '''{unit}'''
PACKAGES = {packages!r}


class Refused(Exception):
    pass


def main():
    answer = {{"libraries": [], "warnings": [], "unit": False}}
    try:
        data = zlib.decompress(sys.stdin.buffer.read(), 31)
        if hashlib.sha256(data).hexdigest() != DIGEST:
            raise Refused("the bundle was damaged on its way")
        unpack(data)
        libraries(answer)
        switch()
        answer["unit"] = unit()
        tidy()
    except OSError as error:
        answer.update(error=str(error), errno=error.errno)
    except (Refused, zlib.error, tarfile.TarError) as error:
        answer.update(error=str(error), errno=0)
    print(MARKER + json.dumps(answer), flush=True)


def unpack(data):
    target = os.path.join(HOME, DIGEST)
    if os.path.isdir(target):
        launcher(target)
        return
    partial = os.path.join(HOME, ".incoming-%d" % os.getpid())
    os.makedirs(HOME, mode=0o755, exist_ok=True)
    try:
        with tarfile.open(fileobj=io.BytesIO(data)) as tar:
            for entry in tar:
                path = os.path.normpath(os.path.join(partial, entry.name))
                if not entry.isreg() or not path.startswith(partial + "/"):
                    raise Refused("the bundle holds " + entry.name)
                os.makedirs(os.path.dirname(path), exist_ok=True)
                with open(path, "wb") as file:
                    shutil.copyfileobj(tar.extractfile(entry), file)
                    os.fchmod(file.fileno(), entry.mode)
        launcher(partial)
        import compileall
        compileall.compile_dir(partial, quiet=2)
        os.sync()
        try:
            os.rename(partial, target)
        except OSError:
            if not os.path.isdir(target):  # else another run was faster
                raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def launcher(directory):
    # The interpreter is pinned: sudo's PATH can find another one.
    path = os.path.join(directory, "bin", "hawse-agent")
    with open(path) as file:
        body = file.read()
    if body.startswith("#!"):
        body = body.split("\\n", 1)[1]
    new = "%s.%d" % (path, os.getpid())  # others may be installing
    with open(new, "w") as file:
        file.write("#!%s -IS\\n%s" % (sys.executable, body))
        os.fchmod(file.fileno(), 0o755)
    os.rename(new, path)


def libraries(answer):
    manager = next((name for name in PACKAGES if shutil.which(name)), None)
    for library, needed in (("libnftables.so.1", True), ("libzstd.so.1", False)):
        if loads(library):
            continue
        reason = "no package manager that we know"
        if manager:
            command, packages, environment = PACKAGES[manager]
            done = None
            for words in command:
                done = subprocess.run([w.replace("PACKAGE", packages[library]) for w in words],
                                      stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                      stderr=subprocess.STDOUT, env=dict(os.environ, **environment))
            lines = done.stdout.decode(errors="replace").strip().splitlines() if done else []
            reason = "%s: %s" % (manager, lines[-1] if lines else "failed")
        if loads(library):
            answer["libraries"].append(library)
        elif needed:
            raise Refused("%s is missing and could not be installed (%s)" % (library, reason))
        else:
            answer["warnings"].append("%s is missing (%s): gzip is used" % (library, reason))


def loads(library):
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def switch():
    os.makedirs(os.path.dirname(LINK), exist_ok=True)
    partial = "%s.new-%d" % (LINK, os.getpid())
    if os.path.lexists(partial):  # of one that was killed
        os.unlink(partial)
    os.symlink(os.path.join(HOME, DIGEST, "bin", "hawse-agent"), partial)
    os.rename(partial, LINK)


def unit():
    if not os.path.isdir("/run/systemd/system"):
        return False
    path = "/etc/systemd/system/hawse-agent.service"
    old = open(path).read() if os.path.exists(path) else None
    if old != UNIT:
        with open(path, "w") as file:
            file.write(UNIT)
        subprocess.run(["systemctl", "daemon-reload"], check=False)
        subprocess.run(["systemctl", "enable", "hawse-agent.service"], check=False,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return True


def tidy():
    # Running daemons and shims may still import from the bundles before this one: two of them stay.
    found = [e for e in os.scandir(HOME) if e.is_dir() and len(e.name) == 64 and e.name != DIGEST]
    for entry in sorted(found, key=lambda e: e.stat().st_mtime)[:-2]:
        shutil.rmtree(entry.path, ignore_errors=True)


main()
"""

# network-online: a port can be published on an address only once the host has it. TimeoutStartSec: what a
# crash has left half done is finished or undone first, and to be killed over that would only start it anew.
UNIT = """\
[Unit]
Description=Hawse agent: the container engine of this host
Wants=network-online.target
After=network-online.target

[Service]
Type=notify
ExecStart=/usr/local/sbin/hawse-agent daemon
KillMode=process
Delegate=yes
Restart=on-failure
TimeoutStartSec=infinity
TasksMax=infinity
LimitNOFILE=1048576

[Install]
WantedBy=multi-user.target
"""

# Package manager -> commands in order, package of each library, environment.
_APT = {"DEBIAN_FRONTEND": "noninteractive", "NEEDRESTART_MODE": "l"}
PACKAGES: dict[str, tuple[list[list[str]], dict[str, str], dict[str, str]]] = {
    "apt-get": (
        [["apt-get", "update", "-q"], ["apt-get", "install", "-qy", "--no-install-recommends", "PACKAGE"]],
        {"libnftables.so.1": "libnftables1", "libzstd.so.1": "libzstd1"},
        _APT,
    ),
    "dnf": (
        [["dnf", "install", "-qy", "PACKAGE"]],
        {"libnftables.so.1": "nftables", "libzstd.so.1": "libzstd"},
        {},
    ),
    "apk": (
        [["apk", "add", "--quiet", "PACKAGE"]],
        {"libnftables.so.1": "nftables", "libzstd.so.1": "zstd-libs"},
        {},
    ),
    "zypper": (
        [["zypper", "--non-interactive", "install", "PACKAGE"]],
        {"libnftables.so.1": "libnftables1", "libzstd.so.1": "libzstd1"},
        {},
    ),
    "pacman": (
        [["pacman", "-Sy", "--noconfirm", "--needed", "PACKAGE"]],
        {"libnftables.so.1": "nftables", "libzstd.so.1": "zstd"},
        {},
    ),
}

REMOVE = """\
import json, os, shutil, sys

MARKER, LIB, LINK, KEEP = {marker!r}, {lib!r}, {link!r}, {keep!r}
left = []
if os.path.islink(LINK) and os.readlink(LINK).startswith(LIB + "/agent/"):
    os.unlink(LINK)
elif os.path.lexists(LINK):
    left.append(LINK)
unit = "/etc/systemd/system/hawse-agent.service"
if os.path.exists(unit):
    os.system("systemctl disable --now hawse-agent.service >/dev/null 2>&1")
    os.unlink(unit)
    os.system("systemctl daemon-reload >/dev/null 2>&1")
shutil.rmtree(LIB + "/agent", ignore_errors=True)
if os.path.isdir(LIB):
    for name in os.listdir(LIB):
        if name in KEEP:
            left.append(os.path.join(LIB, name))
        else:
            path = os.path.join(LIB, name)
            if os.path.isdir(path) and not os.path.islink(path):
                shutil.rmtree(path, ignore_errors=True)
            else:
                os.unlink(path)
for path in (LIB, "/run/hawse", "/etc/hawse"):
    try:
        os.rmdir(path)
    except OSError:
        if os.path.isdir(path) and path != LIB:
            left.append(path)
print(MARKER + json.dumps({{"left": left}}), flush=True)
"""
