"""A raw-socket HTTP/1.1 client that hides nothing.

It says exactly what came back: status, every field line in order, the body and
its trailers, and whether the message was complete. It never retries.
"""

import dataclasses
import select
import socket
from collections.abc import Iterable


class ConnectionLost(Exception):
    """The connection ended, or could not be made, before a complete response."""


@dataclasses.dataclass
class Response:
    status: int
    reason: str
    version: str
    fields: list[tuple[str, str]]
    body: bytes
    trailers: list[tuple[str, str]]
    # False when the end was not told by the framing (Content-Length, last
    # chunk) although one was promised: the message is truncated.
    complete: bool = True
    # Heads of the 1xx responses that came before.
    informational: list[int] = dataclasses.field(default_factory=list)

    def all(self, name: str) -> list[str]:
        """Values of every field line of this name."""
        return [v for n, v in self.fields if n.lower() == name.lower()]

    def get(self, name: str) -> str | None:
        """Value of the first field line of this name."""
        values = self.all(name)
        return values[0] if values else None

    @property
    def text(self) -> str:
        return self.body.decode("latin-1")

    @property
    def closes(self) -> bool:
        """Whether the connection ends with this response."""
        options = [o.strip().lower() for v in self.all("Connection") for o in v.split(",")]
        if self.version == "HTTP/1.0":
            return "keep-alive" not in options
        return "close" in options


class Client:
    """One connection. Not for several threads."""

    def __init__(self, port: int, host: str = "127.0.0.1", timeout: float = 20.0):
        try:
            self.socket = socket.create_connection((host, port), timeout)
        except OSError as e:
            raise ConnectionLost("connect: %s" % e) from e
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._buffer = b""

    def close(self) -> None:
        self.socket.close()

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def send(self, data: bytes) -> None:
        try:
            self.socket.sendall(data)
        except OSError as e:
            raise ConnectionLost("send: %s" % e) from e

    def request(
        self,
        path: str,
        method: str = "GET",
        fields: Iterable[tuple[str, str]] = (),
        body: bytes | None = None,
        host: str = "test.example",
    ) -> Response:
        self.send(head(method, path, fields, None if body is None else len(body), host) + (body or b""))
        return self.response(method)

    def response(self, method: str = "GET") -> Response:
        """Reads one final response."""
        informational = []
        while True:
            r = self.head()
            if r.status == 101 or r.status >= 200:
                r.informational = informational
                break
            informational.append(r.status)
        if method == "HEAD" or r.status in (101, 204, 304):
            return r
        coding = r.get("Transfer-Encoding")
        length = r.get("Content-Length")
        try:
            if coding is not None and coding.lower() == "chunked":
                self._chunked(r)
            elif length is not None:
                while len(r.body) < int(length):
                    piece = self.some(int(length) - len(r.body))
                    if not piece:
                        r.complete = False
                        return r
                    r.body += piece
            else:
                r.body = self.rest()
        except ConnectionLost:
            r.complete = False
        return r

    def head(self) -> Response:
        """Reads one head; the body stays unread."""
        first = self.line()
        parts = first.split(" ", 2)
        if len(parts) < 2 or not parts[0].startswith("HTTP/1.") or not parts[1].isdigit():
            raise AssertionError("not a status line: %r" % first)
        r = Response(int(parts[1]), parts[2] if len(parts) > 2 else "", parts[0], [], b"", [])
        r.fields = self._fields()
        return r

    def _fields(self) -> list[tuple[str, str]]:
        fields = []
        while line := self.line():
            name, colon, value = line.partition(":")
            if not colon or name != name.strip():
                raise AssertionError("not a field line: %r" % line)
            fields.append((name, value.strip(" \t")))
        return fields

    def _chunked(self, r: Response) -> None:
        pieces = []
        try:
            while size := int(self.line().partition(";")[0], 16):
                pieces.append(self.exactly(size))
                if self.line() != "":
                    raise AssertionError("chunk data is longer than its size")
        finally:
            r.body = b"".join(pieces)
        r.trailers = self._fields()

    def line(self) -> str:
        while b"\r\n" not in self._buffer:
            if b"\n" in self._buffer.rstrip(b"\r\n"):
                raise AssertionError("bare LF: %r" % self._buffer[:200])
            self._more()
        line, self._buffer = self._buffer.split(b"\r\n", 1)
        return line.decode("latin-1")

    def exactly(self, n: int) -> bytes:
        pieces, have = [self._buffer[:n]], min(n, len(self._buffer))
        self._buffer = self._buffer[n:]
        while have < n:
            piece = self._receive(min(n - have, 1 << 20))
            if not piece:
                raise ConnectionLost("closed after %d of %d bytes" % (have, n))
            pieces.append(piece)
            have += len(piece)
        return b"".join(pieces)

    def some(self, limit: int = 1 << 16) -> bytes:
        """What is there, at least one byte; b"" at the end of the connection."""
        if self._buffer:
            piece, self._buffer = self._buffer[:limit], self._buffer[limit:]
            return piece
        return self._receive(limit)

    def rest(self) -> bytes:
        """Everything until the other side closes."""
        pieces = [self._buffer]
        self._buffer = b""
        while piece := self._receive(1 << 16):
            pieces.append(piece)
        return b"".join(pieces)

    def at_end(self) -> bool:
        """Waits for the next byte or the end; True when it is the end."""
        if self._buffer:
            return False
        try:
            self._buffer = self._receive(1 << 16)
        except ConnectionLost:
            return True
        return not self._buffer

    def ended(self) -> bool:
        """Whether the other side has closed already; does not wait."""
        poll = select.poll()
        poll.register(self.socket, select.POLLIN)
        if self._buffer or not poll.poll(0):
            return False
        try:
            return not self.socket.recv(1, socket.MSG_PEEK)
        except OSError:
            return True

    def _more(self) -> None:
        piece = self._receive(1 << 16)
        if not piece:
            raise ConnectionLost("closed after %r" % self._buffer[-200:])
        self._buffer += piece

    def _receive(self, n: int) -> bytes:
        try:
            return self.socket.recv(n)
        except OSError as e:
            raise ConnectionLost("receive: %s" % e) from e


def head(
    method: str,
    path: str,
    fields: Iterable[tuple[str, str]] = (),
    length: int | None = None,
    host: str = "test.example",
) -> bytes:
    """The bytes of a request head."""
    lines = ["%s %s HTTP/1.1" % (method, path), "Host: " + host]
    lines += ["%s: %s" % f for f in fields]
    if length is not None:
        lines.append("Content-Length: %d" % length)
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def get(port: int, path: str, fields: Iterable[tuple[str, str]] = (), **kw) -> Response:
    """One GET on a connection of its own."""
    with Client(port) as c:
        return c.request(path, fields=[*fields, ("Connection", "close")], **kw)


def send(port: int, data: bytes, method: str = "GET", timeout: float = 20.0) -> Response:
    """Sends these bytes on a connection of their own and reads one response."""
    with Client(port, timeout=timeout) as c:
        c.send(data)
        return c.response(method)


def exchange(port: int, data: bytes, timeout: float = 20.0) -> bytes:
    """Sends these bytes and returns everything until the proxy closes."""
    with Client(port, timeout=timeout) as c:
        c.send(data)
        return c.rest()
