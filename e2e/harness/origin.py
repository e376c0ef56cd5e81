"""A hand-written origin server: threads, raw sockets, no HTTP library.

It answers what a scenario tells it to, byte by byte if need be, and remembers
every request it was sent, so that a scenario can say what reached a backend and
what did not.
"""

import collections
import dataclasses
import socket
import threading
from collections.abc import Callable


@dataclasses.dataclass
class Request:
    method: str
    target: str
    fields: list[tuple[str, str]]
    body: bytes = b""
    trailers: list[tuple[str, str]] = dataclasses.field(default_factory=list)

    def all(self, name: str) -> list[str]:
        return [v for n, v in self.fields if n.lower() == name.lower()]

    def get(self, name: str) -> str | None:
        values = self.all(name)
        return values[0] if values else None


class Connection:
    """The origin's side of one connection."""

    def __init__(self, s: socket.socket):
        self.socket = s
        self.file = s.makefile("rb", 1 << 16)

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def read_head(self) -> Request | None:
        first = self.file.readline()
        if not first:
            return None
        method, target, _ = first.decode("latin-1").split(" ", 2)
        return Request(method, target, self._fields())

    def _fields(self) -> list[tuple[str, str]]:
        fields = []
        while (line := self.file.readline()) not in (b"\r\n", b"\n", b""):
            name, _, value = line.decode("latin-1").partition(":")
            fields.append((name, value.strip()))
        return fields

    def read_body(self, request: Request) -> None:
        """Reads the whole body into the request."""
        pieces = list(self.body(request))
        request.body = b"".join(pieces)

    def body(self, request: Request, size: int = 1 << 16):
        """Yields the body in pieces, as it comes."""
        if request.get("Transfer-Encoding"):
            while left := int(self.file.readline().split(b";")[0], 16):
                while left:
                    piece = self.file.read(min(left, size))
                    if not piece:
                        raise ConnectionError("truncated chunk")
                    left -= len(piece)
                    yield piece
                self.file.readline()
            request.trailers = self._fields()
            return
        left = int(request.get("Content-Length") or 0)
        while left:
            piece = self.file.read1(min(left, size))
            if not piece:
                raise ConnectionError("truncated body")
            left -= len(piece)
            yield piece


# A handler answers one request whose head has been read. It reads the body
# itself. It returns False to have the connection closed.
Handler = Callable[["Origin", Request, Connection], bool | None]


def answer(
    connection: Connection,
    body: bytes = b"",
    status: str = "200 OK",
    fields: list[tuple[str, str]] | None = None,
    method: str = "GET",
) -> None:
    """Sends a complete response with a Content-Length."""
    lines = ["HTTP/1.1 " + status, "Content-Length: %d" % len(body)]
    lines += ["%s: %s" % f for f in fields or []]
    connection.send(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + (b"" if method == "HEAD" else body))


def name_yourself(origin: "Origin", request: Request, connection: Connection) -> None:
    """The default: 200, the origin's name as the body, the request's id and
    target echoed as fields."""
    connection.read_body(request)
    fields = [("X-Origin", origin.name), ("X-Target", request.target)]
    if (id_ := request.get("X-Request-Id")) is not None:
        fields.append(("X-Request-Id", id_))
    answer(connection, origin.name.encode(), fields=fields, method=request.method)


class Origin:
    """Listens on a port of its own, or the given one, until stop()."""

    def __init__(
        self, name: str, handler: Handler = name_yourself, record: bool = True, port: int = 0, host: str = "127.0.0.1"
    ):
        self.name = name
        self.handler = handler
        self.record = record
        # Under _lock: what came in.
        self.requests: list[Request] = []
        self.ids: collections.Counter[str] = collections.Counter()
        self.errors: list[str] = []
        self._connections: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._listener = socket.create_server((host, port), backlog=512)
        self.port = self._listener.getsockname()[1]
        self.url = "http://%s:%d" % (host, self.port)
        threading.Thread(target=self._accept, name="origin " + name, daemon=True).start()

    def stop(self) -> None:
        try:
            self._listener.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self._listener.close()
        self.drop_connections()

    def drop_connections(self) -> None:
        """Closes every connection that is open now."""
        with self._lock:
            connections = list(self._connections)
        for s in connections:
            try:
                s.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def count(self) -> int:
        with self._lock:
            return len(self.requests)

    def seen(self) -> list[Request]:
        with self._lock:
            return list(self.requests)

    def _accept(self) -> None:
        while True:
            try:
                s, _ = self._listener.accept()
            except OSError:
                return
            s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                self._connections.add(s)
            threading.Thread(target=self._serve, args=(s,), daemon=True).start()

    def _serve(self, s: socket.socket) -> None:
        connection = Connection(s)
        try:
            while (request := connection.read_head()) is not None:
                with self._lock:
                    if self.record:
                        self.requests.append(request)
                    if (id_ := request.get("X-Request-Id")) is not None:
                        self.ids[id_] += 1
                if self.handler(self, request, connection) is False:
                    break
        except (OSError, ValueError) as e:
            with self._lock:
                self.errors.append(repr(e))
        finally:
            with self._lock:
                self._connections.discard(s)
            connection.file.close()
            s.close()
