"""Connects many times, sends half a request head on each, and waits for the end.

A program of its own, so that the thousands of sockets have a limit of their own
and do not take turns with the clients that a scenario looks at:

    python3 -m e2e.harness.half_open PORT CONNECTIONS SECONDS

It prints a line "sent" when every connection has sent its half, and at the end,
which SECONDS puts off at most, what became of them as JSON: how many were
answered with which status and then closed ("0": closed without an answer), how
many are still open, and when after the last half was sent the last was closed.
"""

import collections
import json
import re
import resource
import selectors
import socket
import sys
import time

HALF = b"GET /x HTTP/1.1\r\nHost: test.example\r\nX-Never-"


def raise_limit(connections: int) -> int:
    """Allows so many sockets as far as the hard limit does. Returns how many
    connections can be made."""
    reserve = 64
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and connections + reserve > hard:
        connections = hard - reserve
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, connections + reserve), hard))
    return connections


def main(port: int, connections: int, seconds: float) -> None:
    connections = raise_limit(connections)
    deadline = time.monotonic() + seconds
    selector = selectors.DefaultSelector()
    answers: collections.Counter[str] = collections.Counter()
    failed = 0
    for _ in range(connections):
        s = socket.socket()
        s.settimeout(20)
        try:
            s.connect(("127.0.0.1", port))
            s.sendall(HALF)
        except OSError:
            failed += 1
            s.close()
            continue
        s.setblocking(False)
        selector.register(s, selectors.EVENT_READ, bytearray())
    sent = time.monotonic()
    print("sent", flush=True)

    last = sent
    while selector.get_map() and (left := deadline - time.monotonic()) > 0:
        for key, _ in selector.select(left):
            try:
                data = key.fileobj.recv(4096)
            except OSError:  # a reset, which an answer may come before
                data = b""
            if data:
                key.data.extend(data)
                continue
            status = re.match(rb"HTTP/1\.1 (\d{3}) ", key.data)
            answers[status[1].decode() if status else "0"] += 1
            last = time.monotonic()
            selector.unregister(key.fileobj)
            key.fileobj.close()
    print(
        json.dumps(
            {
                "connections": connections,
                "failed": failed,
                "answers": answers,
                "open": len(selector.get_map()),
                "last": last - sent,
            }
        )
    )


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]))
