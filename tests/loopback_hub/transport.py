"""HTTP on the loopback interface: requests in, answers out, faults between them."""

import json
import re
import socket
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

from .faults import Fault


@dataclass(frozen=True)
class Request:
    """A request as the protocol sees it."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes = b""

    @property
    def segments(self) -> list[str]:
        """The path's parts; a slash within a part came as %2F."""
        return [urllib.parse.unquote(part) for part in urllib.parse.urlsplit(self.target).path.strip("/").split("/")]

    @property
    def query(self) -> dict[str, str]:
        return dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(self.target).query))

    @property
    def form(self) -> dict[str, list[str]]:
        return urllib.parse.parse_qs(self.body.decode())

    def json(self) -> Any:
        return json.loads(self.body or b"{}")


@dataclass(frozen=True)
class Answer:
    """A status, headers and a body."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, value: Any, status: int = 200, headers: dict[str, str] | None = None) -> "Answer":
        content = {"Content-Type": "application/json; charset=utf-8"}
        return cls(status, json.dumps(value).encode(), content | (headers or {}))

    def part_for(self, request: Request) -> "Answer":
        """What of the body the request asks for by `Range`."""
        found = re.fullmatch(r"bytes=(\d+)-(\d*)", request.headers.get("range", ""))
        headers = self.headers | {"Accept-Ranges": "bytes"}
        if not found:
            return replace(self, headers=headers)
        size, first = len(self.body), int(found[1])
        last = min(int(found[2]), size - 1) if found[2] else size - 1
        if first > last:
            return Answer(416, b"", headers | {"Content-Range": f"bytes */{size}"})
        headers["Content-Range"] = f"bytes {first}-{last}/{size}"
        return Answer(206, self.body[first : last + 1], headers)


class Logged(NamedTuple):
    """A request that came: `target` is the path and query as sent, `part` its `Range`, `origin` `hub` or `storage`."""

    method: str
    target: str
    token: str | None
    part: str | None
    origin: str


@dataclass
class Rule:
    """What befalls the next `times` requests whose method and target match."""

    method: str
    pattern: str
    fault: Fault
    times: int


class Server:
    """Answers requests at a port of its own; the protocol is called by one thread at a time.

    Args:
        origin: What the log calls it.
        respond: The protocol.
        lock: Held while it works.
        rules: Faults to come, shared by the servers of a Hub.
        log: Requests that came, shared by them, too.
    """

    def __init__(
        self,
        origin: str,
        respond: Callable[[Request], Answer],
        lock: threading.Lock,
        rules: list[Rule],
        log: list[Logged],
    ) -> None:
        self.origin, self.respond, self.lock, self.rules, self.log = origin, respond, lock, rules, log
        self.working = 0
        self.idle = threading.Condition()
        self._http = _HTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub_server": self}))
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._http.server_port}"

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def settle(self, timeout: float) -> bool:
        """Waits until no request is being handled; says whether that was so in time."""
        with self.idle:
            return self.idle.wait_for(lambda: self.working == 0, timeout)

    def count(self, change: int) -> None:
        with self.idle:
            self.working += change
            self.idle.notify_all()

    def faults_for(self, method: str, target: str) -> list[Fault]:
        with self.lock:
            struck = [r for r in self.rules if r.times and r.method == method and re.search(r.pattern, target)]
            for rule in struck:
                rule.times -= 1
        return [rule.fault for rule in struck]


class _HTTPServer(ThreadingHTTPServer):
    request_queue_size = 128  # a client opens several connections at once
    daemon_threads = True


class _Handler(BaseHTTPRequestHandler):
    hub_server: Server
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *args: Any) -> None:
        pass

    def handle(self) -> None:
        with suppress(ConnectionError):  # a client may be killed between two requests
            super().handle()

    def _handle(self) -> None:
        server = self.hub_server
        server.count(1)
        try:
            authorization = self.headers.get("Authorization")
            token = authorization.removeprefix("Bearer ") if authorization else None
            server.log.append(Logged(self.command, self.path, token, self.headers.get("Range"), server.origin))
            self._answer(server.faults_for(self.command, self.path))
        except (ConnectionError, _Cut):
            self._hang_up()
        finally:
            server.count(-1)

    def _answer(self, faults: list[Fault]) -> None:
        for fault in faults:
            fault.at_arrival()
        limit = min((fault.request_limit for fault in faults if fault.request_limit is not None), default=None)
        headers = {name.lower(): value for name, value in self.headers.items()}
        request = Request(self.command, self.path, headers, self._read(limit))
        for fault in faults:
            fault.at_receipt()
        statuses = [fault.status for fault in faults if fault.status is not None]
        if statuses:
            headers = next(dict(fault.headers) for fault in faults if fault.status is not None)
            answer = Answer.of({"error": "made to fail"}, statuses[0], headers)
        else:
            with self.hub_server.lock:
                answer = self.hub_server.respond(request)
        self._send(answer, faults)

    do_HEAD = do_GET = do_POST = do_PUT = do_DELETE = _handle

    def _read(self, limit: int | None) -> bytes:
        received = bytearray()
        for piece in self._pieces():
            received += piece
            if limit is not None and len(received) >= limit:
                raise _Cut
        return bytes(received)

    def _pieces(self) -> Iterator[bytes]:
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            while size := int(self.rfile.readline().split(b";")[0], 16):
                yield self._exactly(size)
                self.rfile.readline()
            self.rfile.readline()
        left = int(self.headers.get("Content-Length", 0))
        while left:
            piece = self._exactly(min(left, 65536))
            left -= len(piece)
            yield piece

    def _exactly(self, size: int) -> bytes:
        piece = self.rfile.read(size)
        if len(piece) < size:
            raise _Cut
        return piece

    def _send(self, answer: Answer, faults: list[Fault]) -> None:
        body = answer.body
        for fault in faults:
            body = fault.changed(body)
        self.send_response(answer.status)
        for name, value in {"Content-Length": str(len(answer.body)), **answer.headers}.items():
            self.send_header(name, value)
        limits = [fault.answer_limit for fault in faults if fault.answer_limit is not None]
        if limits and min(limits) == 0:
            raise _Cut
        self.end_headers()
        if self.command == "HEAD":
            return
        if limits:
            self.wfile.write(body[: min(limits)])
            raise _Cut
        pace = next((fault.pace for fault in faults if fault.pace is not None), None)
        if pace is None:
            half = len(body) // 2
            self.wfile.write(body[:half])
            for fault in faults:
                fault.at_half()
            self.wfile.write(body[half:])
            return
        for start in range(0, len(body), pace.size):
            self.wfile.write(body[start : start + pace.size])
            time.sleep(pace.seconds)

    def _hang_up(self) -> None:
        self.close_connection = True
        self.wfile.flush()
        try:
            self.connection.shutdown(socket.SHUT_RDWR)
        except OSError:
            return  # the client was faster


class _Cut(Exception):
    """The connection ends here."""
