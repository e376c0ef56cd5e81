"""Clients that never finish a request head are shed by limits.headerTimeout, and
nobody else notices."""

import json
import subprocess
import sys
import threading
import time

from e2e.harness import Client, ConnectionLost, Load, Scenario, allow_files, eventually
from e2e.harness.processes import ROOT

HALF_OPEN = 10_000


class Slowloris(Scenario):
    def start(self, header_timeout: str):
        self.a = self.origin("a")
        extra = "limits: {headerTimeout: %s, maxConnections: %d}" % (header_timeout, 2 * HALF_OPEN)
        _, (self.dp,) = self.fleet(self.config({"/x": [self.a]}, extra=extra))

    def test_a_byte_now_and_then_does_not_buy_time(self):
        self.start("500ms")
        # The head would take minutes; every byte comes well within the timeout.
        head = b"GET /x HTTP/1.1\r\nHost: test.example\r\n" + b"X-Y: z\r\n" * 1000
        slow = [Client(self.port) for _ in range(20)]
        done = threading.Event()
        self.addCleanup(done.set)

        def trickle(c: Client):
            for i in range(len(head)):
                try:
                    c.send(head[i : i + 1])
                except ConnectionLost:
                    return  # has been shed
                if done.wait(0.05):
                    return

        threads = [threading.Thread(target=trickle, args=(c,)) for c in slow]
        with Load(self.port, {"/x": "a"}, keepalive=1, fresh=1) as load:
            began = time.monotonic()
            for t in threads:
                t.start()
            for c in slow:
                self.assertEqual(408, c.response().status)
                self.assertTrue(c.at_end())
            self.say("a head a byte at a time: 408 and the end after %.2f s" % (time.monotonic() - began))
            self.wait_load(load)
        done.set()
        for t in threads:
            t.join(20)
        for c in slow:
            c.close()
        self.assert_no_failures(load)
        self.assertEqual(load.total(), self.a.count(), "no backend sees any of the others")

    def test_ten_thousand_half_open_heads(self):
        self.start("2s")
        before = self.dp.rss_mib()
        # A connection each, and some for everything else.
        can = allow_files(self.dp.pid, HALF_OPEN + 500) - 500
        n = min(HALF_OPEN, can)
        if n < HALF_OPEN:
            self.say("the hard limit of open files allows %d half-open heads only" % n)
        with Load(self.port, {"/x": "a"}, keepalive=1, fresh=1) as load:
            self.wait_load(load)
            flood = subprocess.Popen(
                [sys.executable, "-B", "-m", "e2e.harness.half_open", str(self.port), str(n), "60"],
                cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True,
            )  # fmt: skip
            self.addCleanup(flood.stdout.close)
            self.addCleanup(flood.wait)
            self.addCleanup(flood.kill)
            self.assertEqual("sent\n", flood.stdout.readline())
            peak = self.dp.rss_mib()
            result = json.loads(flood.stdout.readline())
            self.assertEqual(0, flood.wait(20))
            self.wait_load(load)
        n = result["connections"]
        self.say(
            "%d half-open heads: %s, the last %.1f s after the last byte; resident memory %.1f MiB before, %.1f MiB with them; "
            "others: %d requests, longest %.0f ms"
            % (n, result["answers"], result["last"], before or 0, peak or 0, load.total(), 1000 * load.slowest)
        )
        self.assert_no_failures(load)
        self.assertEqual((0, 0), (result["failed"], result["open"]))
        self.assertEqual({"408": n}, result["answers"])
        eventually(lambda: self.dp.metrics().sum("dataplane_connections") <= 2, "their connections are gone")
