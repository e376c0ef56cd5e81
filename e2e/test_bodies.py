"""Large and slow bodies: streamed, with back-pressure, in bounded memory."""

import hashlib
import threading

from e2e.harness import Client, Scenario, answer, eventually

MIB = 1 << 20
LARGE = 160 * MIB
# What the process may grow by while bodies of 160 MiB pass through. Buffers per
# connection are some 10 KiB; the rest is the garbage collector's head room.
GROWTH_MIB = 32
PIECE = bytes(range(256)) * (MIB // 256)


class Bodies(Scenario):
    def test_large_both_ways_at_once_in_bounded_memory(self):
        def echo_hash_and_pour(origin, request, connection):
            if request.method == "GET":
                connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % LARGE)
                for _ in range(LARGE // MIB):
                    connection.send(PIECE)
                return
            digest = hashlib.sha1()
            for piece in connection.body(request, MIB):
                digest.update(piece)
            answer(connection, digest.hexdigest().encode())

        a = self.origin("a", echo_hash_and_pour)
        _, (dp,) = self.fleet(self.config({"/x": [a]}))
        before = dp.rss_mib()
        want = hashlib.sha1(PIECE * (LARGE // MIB)).hexdigest()
        peak = [0.0]
        results = {}

        def upload(name: str, head: bytes, before_piece: bytes, after_piece: bytes, end: bytes):
            with Client(self.port, timeout=60) as c:
                c.send(b"POST /x HTTP/1.1\r\nHost: h\r\n" + head)
                for _ in range(LARGE // MIB):
                    c.send(before_piece + PIECE + after_piece)
                    peak[0] = max(peak[0], dp.rss_mib() or 0)
                c.send(end)
                results[name] = c.response().text

        def download():
            digest, left = hashlib.sha1(), LARGE
            with Client(self.port, timeout=60) as c:
                c.send(b"GET /x HTTP/1.1\r\nHost: h\r\n\r\n")
                self.assertEqual(str(LARGE), c.head().get("Content-Length"))
                while left and (piece := c.some(MIB)):
                    digest.update(piece)
                    left -= len(piece)
                results["download"] = digest.hexdigest()

        threads = [
            threading.Thread(target=upload, args=("length", b"Content-Length: %d\r\n\r\n" % LARGE, b"", b"", b"")),
            threading.Thread(
                target=upload,
                args=("chunked", b"Transfer-Encoding: chunked\r\n\r\n", b"%x\r\n" % MIB, b"\r\n", b"0\r\n\r\n"),
            ),
            threading.Thread(target=download),
        ]
        for t in threads:
            t.start()
        for t in threads:
            t.join(120)
        self.assertEqual({"length": want, "chunked": want, "download": want}, results)
        if before is not None:
            self.say("3 bodies of %d MiB: resident memory %.1f MiB before, %.1f MiB at most" % (LARGE // MIB, before, peak[0]))
            self.assertLess(peak[0] - before, GROWTH_MIB)

    def test_a_client_that_does_not_read_stops_the_backend(self):
        sent = [0]

        def pour(origin, request, connection):
            connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % LARGE)
            for _ in range(LARGE // MIB):
                connection.send(PIECE)
                sent[0] += len(PIECE)

        a = self.origin("a", pour)
        _, (dp,) = self.fleet(self.config({"/x": [a]}))
        before = dp.rss_mib()
        with Client(self.port, timeout=60) as c:
            c.send(b"GET /x HTTP/1.1\r\nHost: h\r\n\r\n")
            c.head()
            self.wait_still(sent)
            self.assertLess(sent[0], LARGE // 2, "held by the sockets' buffers, not by the proxy")
            if before is not None:
                self.assertLess(dp.rss_mib() - before, GROWTH_MIB)
            self.assertEqual(LARGE, len(c.exactly(LARGE)))

    def test_a_backend_that_does_not_read_stops_the_client(self):
        release = threading.Event()
        self.addCleanup(release.set)
        received = [0]

        def lazy(origin, request, connection):
            release.wait(60)
            for piece in connection.body(request, MIB):
                received[0] += len(piece)
            answer(connection, b"%d" % received[0])

        a = self.origin("a", lazy)
        _, (dp,) = self.fleet(self.config({"/x": [a]}))
        before = dp.rss_mib()
        sent = [0]
        with Client(self.port, timeout=60) as c:

            def upload():
                c.send(b"POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % LARGE)
                for _ in range(LARGE // MIB):
                    c.send(PIECE)
                    sent[0] += len(PIECE)

            sender = threading.Thread(target=upload)
            sender.start()
            self.wait_still(sent)
            self.assertLess(sent[0], LARGE // 2)
            if before is not None:
                self.assertLess(dp.rss_mib() - before, GROWTH_MIB)
            release.set()
            self.assertEqual(str(LARGE), c.response().text)
            sender.join()

    def test_every_piece_is_passed_on_when_it_comes(self):
        arrived = threading.Semaphore(0)
        go_on = threading.Semaphore(0)

        def trickle(origin, request, connection):
            for _ in connection.body(request):
                arrived.release()
            connection.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            for i in range(5):
                connection.send(b"1\r\n%d\r\n" % i)
                go_on.acquire(timeout=20)
            connection.send(b"0\r\n\r\n")

        a = self.origin("a", trickle)
        self.fleet(self.config({"/x": [a]}))
        with Client(self.port) as c:
            c.send(b"POST /x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n")
            for i in range(5):
                c.send(b"1\r\n%d\r\n" % i)
                # The next piece is sent only after this one has arrived.
                self.assertTrue(arrived.acquire(timeout=10), "piece %d is held back" % i)
            c.send(b"0\r\n\r\n")
            self.assertEqual("chunked", c.head().get("Transfer-Encoding"))
            for i in range(5):
                self.assertEqual(("1", str(i)), (c.line(), c.line()))
                go_on.release()
            self.assertEqual(("0", ""), (c.line(), c.line()))

    def wait_still(self, counter: list[int]) -> None:
        """Waits until the counter has grown and then stands still."""
        last = [0]

        def still():
            now = counter[0]
            stands = now > 0 and now == last[0]
            last[0] = now
            return stands

        eventually(still, "the sender is stopped", within=30, every=0.5)
