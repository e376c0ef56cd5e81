"""A DNS server that knows what a scenario tells it."""

import socket
import struct
import threading

A, AAAA = 1, 28


class NameServer:
    """Answers over UDP until stop(). Names that it does not know do not exist."""

    def __init__(self, **hosts: list[str]):
        self._lock = threading.Lock()
        # Under _lock.
        self._hosts = {name.replace("_", "."): addresses for name, addresses in hosts.items()}
        self._asked = 0
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.address = "127.0.0.1:%d" % self._socket.getsockname()[1]
        threading.Thread(target=self._serve, name="name server", daemon=True).start()

    def set(self, name: str, *addresses: str) -> None:
        with self._lock:
            self._hosts[name] = list(addresses)

    def forget(self, name: str) -> None:
        with self._lock:
            self._hosts.pop(name, None)

    def asked(self) -> int:
        with self._lock:
            return self._asked

    def stop(self) -> None:
        """From now on there is no answer, and no error either."""
        with self._lock:
            self._hosts = None

    def close(self) -> None:
        self._socket.close()

    def _serve(self) -> None:
        while True:
            try:
                query, client = self._socket.recvfrom(2048)
            except OSError:
                return
            with self._lock:
                self._asked += 1
                if self._hosts is not None:
                    self._socket.sendto(self._answer(query), client)

    def _answer(self, query: bytes) -> bytes:
        labels, at = [], 12
        while size := query[at]:
            labels.append(query[at + 1 : at + 1 + size].decode().lower())
            at += 1 + size
        end = at + 5  # the name's last byte, type and class
        kind = struct.unpack(">H", query[at + 1 : at + 3])[0]
        addresses = self._hosts.get(".".join(labels))
        family = socket.AF_INET6 if kind == AAAA else socket.AF_INET
        found = [a for a in addresses or [] if kind in (A, AAAA) and (":" in a) == (kind == AAAA)]
        code = 3 if addresses is None else 0
        head = struct.pack(">HHHHHH", struct.unpack(">H", query[:2])[0], 0x8580 | code, 1, len(found), 0, 0)
        answers = b""
        for a in found:
            data = socket.inet_pton(family, a)
            answers += struct.pack(">HHHIH", 0xC00C, kind, 1, 1, len(data)) + data
        return head + query[12:end] + answers
