"""A relay between a data plane and its control plane that keeps what the data plane
says, and reads the heartbeats in it. Plain text only.

It knows as much of HTTP/2, gRPC and protobuf as that takes, so that a test sees the
bytes themselves and not what one of the programs makes of them.
"""

import contextlib
import socket
import struct
import threading

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA = 0  # type of an HTTP/2 frame


class Tap:
    """Listens at once, and relays until stop."""

    def __init__(self, server: str):
        host, _, port = server.rpartition(":")
        self._target = (host, int(port))
        self._listener = socket.create_server(("127.0.0.1", 0))
        # Where a data plane finds it, as of a control plane.
        self.server = "127.0.0.1:%d" % self._listener.getsockname()[1]
        self._lock = threading.Lock()
        self._said: list[bytearray] = []
        self._sockets: list[socket.socket] = [self._listener]
        threading.Thread(target=self._accept, daemon=True).start()

    def stop(self) -> None:
        with self._lock:
            for s in self._sockets:
                with contextlib.suppress(OSError):
                    s.shutdown(socket.SHUT_RDWR)
                s.close()

    def said(self) -> list[bytes]:
        """What has been said on each connection."""
        with self._lock:
            return [bytes(s) for s in self._said]

    def heartbeats(self) -> list[dict[int, list]]:
        """All whole heartbeats, as fields by number (see proto/routetable/v1)."""
        found = []
        for said in self.said():
            for message in messages(said):
                found += [fields(beat) for beat in fields(message).get(4, [])]
        return found

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._target)
            except OSError:
                return
            said = bytearray()
            with self._lock:
                self._said.append(said)
                self._sockets += [client, server]
            threading.Thread(target=self._relay, args=(client, server, said), daemon=True).start()
            threading.Thread(target=self._relay, args=(server, client, None), daemon=True).start()

    def _relay(self, source: socket.socket, to: socket.socket, said: bytearray | None) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                if said is not None:
                    with self._lock:
                        said += data
                to.sendall(data)
        with contextlib.suppress(OSError):
            to.shutdown(socket.SHUT_WR)


def messages(said: bytes) -> list[bytes]:
    """The whole gRPC messages that an HTTP/2 client has sent on its only stream."""
    assert said[: len(PREFACE)] == PREFACE[: len(said)], said[:40]
    at, data = len(PREFACE), b""
    while at + 9 <= len(said):
        size = int.from_bytes(said[at : at + 3], "big")
        if at + 9 + size > len(said):
            break
        if said[at + 3] == DATA:
            data += said[at + 9 : at + 9 + size]
        at += 9 + size
    found, at = [], 0
    while at + 5 <= len(data):
        size = int.from_bytes(data[at + 1 : at + 5], "big")
        if at + 5 + size > len(data):
            break
        assert data[at] == 0, "a compressed message"
        found.append(data[at + 5 : at + 5 + size])
        at += 5 + size
    return found


def fields(message: bytes) -> dict[int, list]:
    """The fields of a protobuf message by number: numbers, floats (fields of 8 bytes
    are taken for doubles) and bytes."""
    found: dict[int, list] = {}
    at = 0

    def varint() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = message[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while at < len(message):
        key = varint()
        kind = key & 7
        if kind == 0:
            value = varint()
        elif kind == 1:
            (value,) = struct.unpack_from("<d", message, at)
            at += 8
        elif kind == 2:
            size = varint()
            value = message[at : at + size]
            at += size
        else:
            raise ValueError("kind %d of field %d" % (kind, key >> 3))
        found.setdefault(key >> 3, []).append(value)
    return found


def varints(packed: bytes) -> list[int]:
    """A packed list of numbers."""
    found, value, shift = [], 0, 0
    for byte in packed:
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            found.append(value)
            value = shift = 0
    return found
