"""A guestbook: GET / is the page, GET /entries the entries as JSON, POST / adds the body as one.

Entries lie in a Redis list. Standard library only.
"""

import html
import json
import os
import socket
import sys
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

ADDRESS = (os.environ.get("REDIS_HOST", "127.0.0.1"), int(os.environ.get("REDIS_PORT", "6379")))
WELCOME = os.environ.get("WELCOME", "Hello")
KEY = "entries"
PORT = 8000
LONGEST = 4096


def redis(*words):
    """One command in Redis' own protocol; raises OSError when it does not answer."""
    request = b"*%d\r\n" % len(words)
    for word in words:
        data = word.encode()
        request += b"$%d\r\n%s\r\n" % (len(data), data)
    with socket.create_connection(ADDRESS, timeout=2) as connection:
        connection.sendall(request)
        with connection.makefile("rb") as answer:
            return read(answer)


def read(answer):
    line = answer.readline().rstrip(b"\r\n")
    if not line:
        raise OSError("redis closed the connection")
    kind, rest = line[:1], line[1:]
    if kind == b"-":
        raise OSError(rest.decode())
    if kind == b"$":
        return answer.read(int(rest) + 2)[:-2].decode()
    if kind == b"*":
        return [read(answer) for _ in range(int(rest))]
    return rest.decode()


class Guestbook(BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/health":
            self.answer(200, "ok\n", "text/plain")
            return
        try:
            entries = redis("LRANGE", KEY, "0", "-1")
        except OSError as error:
            self.answer(503, f"the guestbook is closed: {error}\n", "text/plain")
            return
        if self.path == "/entries":
            self.answer(200, json.dumps(entries), "application/json")
            return
        items = "".join(f"<li>{html.escape(entry)}</li>" for entry in entries)
        page = f"<h1>{html.escape(WELCOME)}</h1><p>{len(entries)} entries</p><ol>{items}</ol>"
        self.answer(200, page, "text/html")

    def do_POST(self):
        size = min(int(self.headers.get("Content-Length", "0")), LONGEST)
        try:
            redis("RPUSH", KEY, self.rfile.read(size).decode(errors="replace"))
        except OSError as error:
            self.answer(503, f"the guestbook is closed: {error}\n", "text/plain")
            return
        self.answer(201, "written\n", "text/plain")

    def answer(self, status, text, kind):
        data = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


if __name__ == "__main__":
    if sys.argv[1:] == ["--check"]:
        urllib.request.urlopen(f"http://127.0.0.1:{PORT}/health", timeout=2).read()
    else:
        ThreadingHTTPServer(("", PORT), Guestbook).serve_forever()
