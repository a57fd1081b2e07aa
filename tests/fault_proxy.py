"""A proxy before an HTTP server that answers some requests as a store under load would.

Protocol: every request that comes is counted and draws its fault from a seeded generator, so the
number and the kinds of faults among the first n requests are the same in each run, whichever
requests they meet. A client talks to `url` as if it were the server.
"""

from __future__ import annotations

import contextlib
import http.client
import random
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

from diet_ray.running import lease

SLOW_DOWN = (
    b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate</Message></Error>"
)
STALL_SECONDS = 60.0
"""Longer than any client of ours waits."""


@dataclass
class FaultProxy:
    """`upstream`: the server's URL; `shares`: of all requests, by fault (slow_down, reset_before,
    reset_after, truncate, stall)."""

    upstream: str
    shares: Mapping[str, float]
    seed: int = 0
    url: str = ""
    requests: Counter[str] = field(default_factory=Counter)
    """How many requests came, by kind: `PUT`, `GET`, `GET list`, ..."""
    faults: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._draw = random.Random(self.seed)
        self._lock = threading.Lock()
        self.over = threading.Event()
        self.next: list[str | None] = []  # what the next requests meet, before any draw
        self.heard: Callable[[Mapping[str, str]], None] = lambda headers: None
        self.down = False  # while set, every connection is reset: the store is gone

    def fault(self, kind: str) -> str | None:
        """Count a request; the fault that it meets."""
        with self._lock:
            self.requests[kind] += 1
            if self.down:
                return "reset_before"
            if self.next:
                return self.next.pop(0)
            names = [*self.shares, None]
            weights = [*self.shares.values(), 1 - sum(self.shares.values())]
            (drawn,) = self._draw.choices(names, weights)
            if drawn:
                self.faults[drawn] += 1
            return drawn


def kind_of(method: str, target: str) -> str:
    """What a request to an S3 server does, as the tables of requests call it."""
    path, query = urlsplit(target).path, parse_qs(urlsplit(target).query, keep_blank_values=True)
    if path.endswith(lease.FILE):
        return "lease"  # as many as the time that passes
    if "uploads" in query or "uploadId" in query:
        return f"{method} upload"
    if method == "GET" and ("list-type" in query or "prefix" in query):
        return "GET list"
    return method


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    proxy: FaultProxy

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: a test reads the counts."""

    def answer(self) -> None:
        body = b"".join(self._sent())
        self.proxy.heard(self.headers)
        fault = self.proxy.fault(kind_of(self.command, self.path))
        if fault == "slow_down":
            return self._reply(503, [("Content-Type", "application/xml")], SLOW_DOWN)
        if fault == "reset_before":
            return self._reset()
        status, headers, content = self._forwarded(body)
        if fault == "reset_after":
            return self._reset()
        if fault in ("truncate", "stall"):
            self._reply(status, headers, content, whole=False)
            self.wfile.flush()
            if fault == "stall":
                self.proxy.over.wait(STALL_SECONDS)
            self.close_connection = True
            return None
        return self._reply(status, headers, content)

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = answer

    def _sent(self) -> Iterator[bytes]:
        """The body as it came, with the lengths and the end of its chunks if it has such."""
        if self.headers.get("Transfer-Encoding") != "chunked":
            yield self.rfile.read(int(self.headers.get("Content-Length") or 0))
            return
        while length := self.rfile.readline():
            yield length
            if int(length, 16) == 0:
                break
            yield self.rfile.read(int(length, 16) + 2)
        while line := self.rfile.readline():  # trailers, then an empty line
            yield line
            if line == b"\r\n":
                return

    def _forwarded(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        server = urlsplit(self.proxy.upstream)
        connection = http.client.HTTPConnection(str(server.hostname), server.port, timeout=60)
        with contextlib.closing(connection):
            connection.putrequest(
                self.command, self.path, skip_host=True, skip_accept_encoding=True
            )
            for name, value in self.headers.items():  # the signature covers them: as they are
                if name.lower() not in ("connection", "expect"):
                    connection.putheader(name, value)
            connection.endheaders(body)
            reply = connection.getresponse()
            return reply.status, reply.getheaders(), reply.read()

    def _reply(
        self, status: int, headers: list[tuple[str, str]], content: bytes, whole: bool = True
    ) -> None:
        """Answer; a broken answer ends after half its body, or within its headers."""
        self.send_response_only(status)
        given = {name.lower(): value for name, value in headers}
        length = given.get("content-length") if self.command == "HEAD" else str(len(content))
        for name, value in headers:
            if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                self.send_header(name, value)
        if length is not None and status != 204:
            self.send_header("Content-Length", length)
        has_body = self.command != "HEAD" and content != b""
        if whole or has_body:
            self.end_headers()
        else:
            self.flush_headers()
        if has_body:
            self.wfile.write(content if whole else content[: len(content) // 2])

    def _reset(self) -> None:
        at_once = struct.pack("ii", 1, 0)  # closing sends RST instead of what is left
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, at_once)
        self.close_connection = True


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def shutdown_request(self, request: object) -> None:
        """Close without the goodbye that `shutdown` would send before a reset."""
        self.close_request(request)  # type: ignore[arg-type]

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that went away is what the faults are for."""


@contextmanager
def fault_proxy(
    upstream: str, shares: Mapping[str, float] | None = None, seed: int = 0
) -> Iterator[FaultProxy]:
    """A proxy on a free port of the loopback device, for as long as the block lasts."""
    proxy = FaultProxy(upstream, shares or {}, seed)
    handler = type("Handler", (_Handler,), {"proxy": proxy})
    server = _Server(("127.0.0.1", 0), handler)
    proxy.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield proxy
    finally:
        proxy.over.set()
        server.shutdown()
        server.server_close()
