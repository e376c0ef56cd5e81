"""Ports that are free at run time.

The proxy port stands in the configuration file, so it must be known before the
data planes start. Ports are taken from a range below the ephemeral one, so that
no outgoing connection of the load generator can take one meanwhile.
"""

import random
import socket

_RANGE = range(20000, 30000)
_used: set[int] = set()


def _candidates():
    for _ in range(500):
        port = random.choice(_RANGE)
        if port not in _used:
            _used.add(port)
            yield port
    raise RuntimeError("no free port between %d and %d" % (_RANGE.start, _RANGE.stop))


def free_port() -> int:
    """A port that nobody listened on a moment ago. Never given out twice."""
    for port in _candidates():
        with socket.socket() as probe:
            try:
                probe.bind(("0.0.0.0", port))
            except OSError:
                continue
            return port
    raise AssertionError("unreachable")


class Reservation:
    """A port that is kept until release() for programs that share it.

    The socket is bound with SO_REUSEPORT and does not listen: data planes (same
    user, SO_REUSEPORT) can listen on the port, everybody else cannot take it,
    and until somebody listens a connection is refused.
    """

    def __init__(self):
        for port in _candidates():
            self._socket = socket.socket()
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            try:
                self._socket.bind(("0.0.0.0", port))
            except OSError:
                self._socket.close()
                continue
            self.port = port
            return

    def release(self) -> None:
        self._socket.close()
