"""Real applications for the table of builds, and the images that they are built in, without any network.

corpus/debian:1   the demo's image, made by mmdebstrap: nginx, python3
corpus/gcc:1      this machine's gcc with what it needs for the program at hand, and busybox
corpus/jdk:1      this machine's OpenJDK of Debian's packages, and busybox
"""

from __future__ import annotations

import base64
import ensurepip
import hashlib
import io
import json
import os
import shutil
import subprocess
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path

import zstandard
from tests.support import busybox, guestbook
from tests.support.buildrows import Context, Node, row

PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def base_of(name: str) -> tuple[Callable[[], bool], Callable[[Path], None]]:
    """Whether the image can be made here, and what writes its root as a tar."""
    return BASES[name]


# Python: a package and what it needs, as wheels that are made here

_GREETING = '''\
"""What the application needs."""


def greet(whom):
    return f"Hello, {whom}!"
'''
_APPLICATION = """\
import http.server
import sys
import threading
import urllib.request

from greeting import greet


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = greet(self.path[1:]).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *words):
        pass


def main():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 8000), Handler)
    if "--once" in sys.argv:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        print(urllib.request.urlopen("http://127.0.0.1:8000/wheels").read().decode())
    else:
        server.serve_forever()
"""


def wheel(
    name: str, version: str, files: dict[str, str], requires: Iterable[str] = (), script: str = ""
) -> bytes:
    """A wheel as pip takes it; always the same bytes."""
    info = f"{name}-{version}.dist-info"
    needs = "".join(f"Requires-Dist: {one}\n" for one in requires)
    contents = {
        **files,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    if script:
        contents[f"{info}/entry_points.txt"] = f"[console_scripts]\n{name} = {script}\n"
    record = "".join(f"{path},sha256={_record(text)},{len(text)}\n" for path, text in contents.items())
    contents[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n"
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for path, text in contents.items():
            archive.writestr(zipfile.ZipInfo(path, (2024, 1, 1, 0, 0, 0)), text)
    return out.getvalue()


def _record(text: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).decode().rstrip("=")


def _python_context() -> Context:
    (pip,) = (Path(ensurepip.__file__).parent / "_bundled").glob("pip-*.whl")
    return {
        "wheels/greeting-2.0-py3-none-any.whl": wheel("greeting", "2.0", {"greeting/__init__.py": _GREETING}),
        "wheels/hello-1.0-py3-none-any.whl": wheel(
            "hello", "1.0", {"hello/__init__.py": _APPLICATION}, ["greeting>=2"], "hello:main"
        ),
        "tools/pip.whl": pip.read_bytes(),
        "requirements.txt": "hello==1.0\n",
        "README.md": "not for the image\n",
        ".dockerignore": "*.md\n",
    }


row(
    "python-wheels",
    "application: Python, with pip from a directory of wheels",
    """
ARG BASE=corpus/debian:1
FROM ${BASE} AS build
COPY tools/pip.whl /tmp/pip.whl
WORKDIR /build
COPY requirements.txt ./
COPY wheels/ wheels/
RUN python3 /tmp/pip.whl/pip install --no-cache-dir --no-index --find-links=wheels --no-compile \\
        --disable-pip-version-check --target=/app --requirement=requirements.txt

FROM ${BASE}
LABEL org.opencontainers.image.title="hello" \\
      org.opencontainers.image.version="1.0"
ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PYTHONPATH=/app
RUN useradd --system --no-create-home --uid 900 app && rm -f /etc/*-
COPY --from=build --chown=root:root /app /app
USER app
EXPOSE 8000
HEALTHCHECK --interval=10s CMD ["python3", "-c", "import greeting"]
ENTRYPOINT ["python3", "/app/bin/hello"]
CMD ["--serve"]
""",
    context=_python_context,
    base="corpus/debian:1",
    directory=True,
    volatile=("/app/*.dist-info/*", "/app/bin/*", "/etc/*"),
    runs=("--once",),
    prints="Hello, wheels!\n",
)


# C: two files, compiled in one stage, alone in the other

_C: Context = {
    "src/main.c": '#include <stdio.h>\n#include "greet.h"\n\nint main(int argc, char **argv)\n{\n'
    '\tputs(greet(argc > 1 ? argv[1] : "C"));\n\treturn 0;\n}\n',
    "src/greet.c": '#include <stdio.h>\n#include "greet.h"\n\nstatic char text[80];\n\n'
    'const char *greet(const char *whom)\n{\n\tsnprintf(text, sizeof text, "Hello, %s!", whom);\n'
    "\treturn text;\n}\n",
    "include/greet.h": "const char *greet(const char *whom);\n",
    "build.sh": Node(
        data=b'#!/bin/sh -e\nfor file in src/*.c; do\n\tgcc $CFLAGS -Iinclude -c "$file"\ndone\n'
        b'gcc -static -s -o "$1" *.o\n',
        mode=0o755,
    ),
}

row(
    "c-program",
    "application: C, in several stages",
    """
FROM corpus/gcc:1 AS build
ARG CFLAGS="-O1 -Wall"
WORKDIR /src
COPY include include
COPY build.sh ./
COPY src src
RUN mkdir /out && ./build.sh /out/hello && mkdir -m 1777 /out/tmp

FROM build AS test
RUN test "$(/out/hello test)" = "Hello, test!" && touch /tested

FROM scratch
COPY --from=test /tested /
COPY --from=build /out /
USER 65534:65534
ENTRYPOINT ["/hello"]
""",
    context=_C,
    base="",
    needs=("corpus/gcc:1",),
    volatile=("/hello",),
    runs=("stages",),
    prints="Hello, stages!\n",
)


# nginx: its configuration from templates

row(
    "nginx-templates",
    "application: nginx, with templates",
    """
FROM corpus/debian:1
ENV SERVER_NAME=example.com PORT=8080
RUN rm /etc/nginx/sites-enabled/default \\
    && ln -sf /dev/stdout /var/log/nginx/access.log \\
    && ln -sf /dev/stderr /var/log/nginx/error.log
COPY docker-entrypoint.sh /
COPY templates/ /etc/nginx/templates/
COPY --chown=www-data:www-data html /var/www/html
VOLUME /var/cache/nginx
EXPOSE 8080
STOPSIGNAL SIGQUIT
ENTRYPOINT ["/docker-entrypoint.sh"]
CMD ["nginx", "-g", "daemon off;"]
""",
    context={
        "docker-entrypoint.sh": Node(
            data=b"#!/bin/sh -e\ncd /etc/nginx/templates\nfor template in *.template; do\n"
            b'\tsed -e "s/\\${SERVER_NAME}/$SERVER_NAME/g" -e "s/\\${PORT}/$PORT/g" "$template" '
            b'> "/etc/nginx/conf.d/${template%.template}"\ndone\nexec "$@"\n',
            mode=0o755,
        ),
        "templates/site.conf.template": "server {\n    listen ${PORT};\n    server_name ${SERVER_NAME};\n"
        "    root /var/www/html;\n}\n",
        "html/index.html": "<h1>It works</h1>\n",
    },
    base="corpus/debian:1",
    runs=("cat", "/etc/nginx/conf.d/site.conf"),
    prints="server {\n    listen 8080;\n    server_name example.com;\n    root /var/www/html;\n}\n",
)


# Java

_JAVA = """\
import com.sun.net.httpserver.HttpServer;
import java.net.InetSocketAddress;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse.BodyHandlers;

public class Hello {
    public static void main(String[] words) throws Exception {
        HttpServer server = HttpServer.create(new InetSocketAddress("127.0.0.1", 8000), 0);
        server.createContext("/", exchange -> {
            byte[] body = ("Hello, " + exchange.getRequestURI().getPath().substring(1) + "!").getBytes();
            exchange.sendResponseHeaders(200, body.length);
            exchange.getResponseBody().write(body);
            exchange.close();
        });
        server.start();
        if (words.length > 0 && words[0].equals("--once")) {
            HttpRequest request = HttpRequest.newBuilder(URI.create("http://127.0.0.1:8000/Java")).build();
            System.out.println(HttpClient.newHttpClient().send(request, BodyHandlers.ofString()).body());
            System.exit(0);
        }
    }
}
"""

row(
    "java-web",
    "application: a Java web application, with Debian's OpenJDK",
    """
FROM corpus/jdk:1 AS build
WORKDIR /src
COPY src/ .
RUN javac -d /classes Hello.java && cd /classes \\
    && jar --create --date=2024-01-01T00:00:00Z --file /hello.jar --main-class Hello .

FROM corpus/jdk:1
COPY --from=build /hello.jar /opt/hello/
WORKDIR /opt/hello
EXPOSE 8000/tcp
USER 65534
ENTRYPOINT ["java", "-XX:TieredStopAtLevel=1", "-jar", "hello.jar"]
""",
    context={"src/Hello.java": _JAVA},
    base="corpus/jdk:1",
    volatile=("*/hello.jar",),
    heavy=True,
    runs=("--once",),
    prints="Hello, Java!\n",
)


# Bases


def _write_debian(path: Path) -> None:
    data = guestbook.cached()
    assert data is not None
    store = data / "hawse/images"
    (described,) = json.loads((store / "index.json").read_text())["manifests"]
    manifest = json.loads(_blob(store, described["digest"]).read_text())
    (layer,) = manifest["layers"]
    with _blob(store, layer["digest"]).open("rb") as packed, path.open("wb") as plain:
        zstandard.ZstdDecompressor().copy_stream(packed, plain)


def _blob(store: Path, digest: str) -> Path:
    return store / "blobs/sha256" / digest.removeprefix("sha256:")


def _has_gcc() -> bool:
    return shutil.which("gcc") is not None and busybox.available()


def _write_gcc(path: Path) -> None:
    with tempfile.TemporaryDirectory() as top:
        for name, entry in _C.items():
            file = Path(top, name)
            file.parent.mkdir(exist_ok=True)
            file.write_bytes(entry.data if isinstance(entry, Node) else str(entry).encode())
        headers = _gcc("-M", "-O1", "-I", f"{top}/include", *map(str, Path(top, "src").glob("*.c"))).split()
    programs = [
        "gcc",
        *(_gcc(f"-print-prog-name={name}").strip() for name in ("cc1", "collect2", "as", "ld")),
    ]
    found = [str(shutil.which(program)) for program in programs]
    objects = ("crt1.o", "crti.o", "crtn.o", "crtbeginT.o", "crtend.o")
    libraries = ("libc.a", "libgcc.a", "libgcc_eh.a", "liblto_plugin.so")
    found += [_gcc(f"-print-file-name={name}").strip() for name in (*objects, *libraries)]
    found += [name for name in headers if name.startswith("/usr/")]
    # collect2 loads the linker's plugin by the name of the compiler's own directory.
    _write_root(path, [*found, *_libraries(found)])


def _gcc(*words: str) -> str:
    return subprocess.run(["gcc", *words], check=True, capture_output=True, text=True).stdout


def _jdk() -> Path | None:
    for home in sorted(Path("/usr/lib/jvm").glob("java-*-openjdk-*")):
        if not home.is_symlink() and (home / "bin/javac").exists() and (home / "lib/modules").exists():
            return home
    return None


def _write_jdk(path: Path) -> None:
    home = _jdk()
    assert home is not None
    programs = [str(home / "bin" / name) for name in ("java", "javac", "jar")]
    files = [str(one) for part in ("lib", "conf") for one in (home / part).rglob("*") if one.is_file()]
    kept = [one for one in files if not one.endswith((".zip", ".jsa", ".debuginfo"))]
    libraries = [one for one in kept if ".so" in one]
    found = [*programs, *kept, *_libraries([*programs, *libraries])]
    links = {f"usr/bin/{name}": str(home / "bin" / name) for name in ("java", "javac", "jar")}
    _write_root(path, found, links)


BASES: dict[str, tuple[Callable[[], bool], Callable[[Path], None]]] = {
    "corpus/debian:1": (lambda: guestbook.cached() is not None, _write_debian),
    "corpus/gcc:1": (_has_gcc, _write_gcc),
    "corpus/jdk:1": (lambda: _jdk() is not None and busybox.available(), _write_jdk),
}


def _libraries(programs: Iterable[str]) -> set[str]:
    """Shared libraries of programs, as ldd finds them here."""
    found: set[str] = set()
    for program in programs:
        found |= _needed(program)
    return found


@cache
def _needed(program: str) -> frozenset[str]:
    with open(program, "rb") as file:
        if file.read(4) != b"\x7fELF" or program.endswith((".o", ".a")):
            return frozenset()
    listed = subprocess.run(["ldd", program], capture_output=True, text=True).stdout
    return frozenset(word for word in listed.split() if word.startswith("/") and os.path.exists(word))


def _write_root(path: Path, files: Iterable[str], links: dict[str, str] | None = None) -> None:
    """A root with /usr merged: busybox, and files of this machine at their own places."""
    places = {_place(file): os.path.realpath(file) for file in files}
    with tarfile.open(path, "w") as tar:
        for directory in ("usr", "usr/bin", "usr/lib", "usr/lib64", "tmp", "etc"):
            info = tarfile.TarInfo(directory)
            info.type, info.mode = tarfile.DIRTYPE, 0o1777 if directory == "tmp" else 0o755
            tar.addfile(info)
        for name in ("bin", "lib", "lib64"):
            _add_link(tar, name, f"usr/{name}")
        tar.add(busybox.BUSYBOX.resolve(), "usr/bin/busybox", filter=_plain)
        for applet in ("sh", "mkdir", "test", "[", "touch", "cat", "rm"):
            _add_link(tar, f"usr/bin/{applet}", "busybox")
        for place, source in sorted(places.items()):
            tar.add(source, place, recursive=False, filter=_plain)
        for name, target in (links or {}).items():
            _add_link(tar, name, target)


def _place(file: str) -> str:
    place = os.path.normpath(file).lstrip("/")
    return place if place.startswith("usr/") else f"usr/{place}"


def _add_link(tar: tarfile.TarFile, name: str, target: str) -> None:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode = tarfile.SYMTYPE, target, 0o777
    tar.addfile(info)


def _plain(info: tarfile.TarInfo) -> tarfile.TarInfo:
    info.uid = info.gid = 0
    info.uname = info.gname = ""
    return info
