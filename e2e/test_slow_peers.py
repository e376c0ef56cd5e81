"""Peers that hardly read: what is on its way to them stays in bounded memory,
and nobody else waits."""

import contextlib
import os
import socket
import tempfile
import threading

from e2e.harness import Client, ConnectionLost, Load, Scenario, answer, eventually

MIB = 1 << 20
GIGABYTE = 1 << 30
PIECE = 4 * MIB
# A slow peer takes a few KB/s: this much at a time, this often.
SIP, PAUSE = 1 << 10, 0.1
# How much each has taken when the test has seen enough: after two seconds or so.
ENOUGH = 20 << 10


class SlowPeers(Scenario):
    def setUp(self):
        super().setUp()
        self.end = threading.Event()
        self.addCleanup(self.end.set)
        self.lock = threading.Lock()
        # Bytes of large bodies that were handed to the operating system, and that
        # the slow backend took.
        self.poured = self.sunk = 0
        # All large bodies are copies of this piece. The kernel sends it: dozens of
        # threads that wake up for each few KB would be what the others wait for.
        self.piece = tempfile.TemporaryFile()  # noqa: SIM115
        self.addCleanup(self.piece.close)
        self.piece.truncate(PIECE)

        def handle(origin, request, connection):
            if request.target == "/large":
                connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % GIGABYTE)
                self.pour(connection.socket)
            elif request.target == "/sink":
                # Sips as slowly as a client does.
                connection.socket.recv(SIP)
                while not self.end.wait(PAUSE) and connection.socket.recv(SIP):
                    with self.lock:
                        self.sunk += SIP
            else:
                connection.read_body(request)
                fields = [("X-Request-Id", request.get("X-Request-Id") or "")]
                answer(connection, b"a", fields=fields)

        self.a = self.origin("a", handle, record=False)
        _, (self.dp,) = self.fleet(self.config({"/*": [self.a]}))

    def pour(self, to: socket.socket) -> None:
        to.settimeout(None)
        left = GIGABYTE
        while left:
            offset = -left % PIECE
            n = os.sendfile(to.fileno(), self.piece.fileno(), offset, min(left, PIECE - offset))
            left -= n
            with self.lock:
                self.poured += n

    @contextlib.contextmanager
    def watched(self, peers: int, what: str, bound_mib: float):
        """Others are served meanwhile, and the data plane grows by less than bound."""
        before, peak = self.dp.rss_mib(), 0.0
        done = threading.Event()

        def watch():
            nonlocal peak
            while not done.wait(0.02):
                peak = max(peak, self.dp.rss_mib() or 0)

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            with Load(self.port, {"/": "a"}, keepalive=2, fresh=1) as load:
                yield load
        finally:
            done.set()
            watcher.join()
        self.assert_no_failures(load)
        if before is not None:
            self.say(
                "%d %s: resident memory %.1f MiB before, %.1f MiB at most; %d MiB left the senders; "
                "others: %d requests, longest %.0f ms"
                % (peers, what, before, peak, self.poured // MIB, load.total(), 1000 * load.slowest)
            )
            self.assertLess(peak - before, bound_mib)

    def slow_readers(self, n: int, bound_mib: float) -> None:
        clients = [Client(self.port, timeout=60) for _ in range(n)]
        for c in clients:
            self.addCleanup(c.close)
        taken = [0] * n
        with self.watched(n, "slow readers of a 1 GB response", bound_mib) as load:
            for c in clients:
                # As little as possible of it is to fit into the socket.
                c.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 10)
                c.send(b"GET /large HTTP/1.1\r\nHost: h\r\n\r\n")
            for c in clients:
                self.assertEqual(str(GIGABYTE), c.head().get("Content-Length"))
            while min(taken) < ENOUGH:
                for i, c in enumerate(clients):
                    taken[i] += len(c.exactly(SIP))
                self.assertFalse(self.end.wait(PAUSE))
            self.wait_load(load, 300)
        self.assertLess(self.poured, n * GIGABYTE // 2, "the origin is not held back")

    def test_one_client_that_reads_slowly(self):
        self.slow_readers(1, 16)

    def test_fifty_clients_that_read_slowly(self):
        self.slow_readers(50, 64)

    def test_backends_that_read_slowly(self):
        n = 10
        clients = [Client(self.port, timeout=60) for _ in range(n)]

        def upload(c: Client):
            with contextlib.suppress(ConnectionLost, OSError):  # when the test has seen enough
                c.send(b"POST /sink HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % GIGABYTE)
                self.pour(c.socket)

        threads = [threading.Thread(target=upload, args=(c,)) for c in clients]
        with self.watched(n, "uploads of 1 GB that the backend hardly reads", 32) as load:
            for t in threads:
                t.start()
            eventually(lambda: self.sunk >= n * ENOUGH, "the backend has taken a little")
            self.wait_load(load, 300)
        self.assertLess(self.poured, n * GIGABYTE // 2, "the clients are not held back")
        for c in clients:
            c.socket.shutdown(socket.SHUT_RDWR)
        for t in threads:
            t.join(20)
            self.assertFalse(t.is_alive())
        for c in clients:
            c.close()
