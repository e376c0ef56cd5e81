"""What the fleet says about the backends of an endpoint."""

import json
import os
import pty
import select
import signal
import subprocess
import time

from e2e.harness import Load, Scenario, eventually, free_port, get
from e2e.harness.processes import BUILD


class StatusOfAnEndpoint(Scenario):
    def setUp(self):
        super().setUp()
        self.a, self.b = self.origin("a"), self.origin("b")
        self.cp = self.control_plane(self.config({"/x": [self.a, self.b], "/y": [self.b]}))
        # Each has a port of its own, so that a test knows which one it asks.
        self.ports = [free_port(), free_port()]
        self.dps = [self.data_plane("dp%d" % i, self.cp, flags=["--port", str(p)]) for i, p in enumerate(self.ports)]
        self.wait_applied(self.cp, self.dps)

    def backends(self, name: str = "/x") -> dict[str, dict]:
        """The backends of an endpoint by URL, from the command line."""
        p = self.cp.cli("status", "endpoint", name, "-o", "json")
        self.assertEqual(0, p.returncode, p.stdout + p.stderr)
        return {b["url"]: b for b in json.loads(p.stdout)["backends"]}

    def test_healthy_on_one_of_two(self):
        def both():
            rows = self.backends().values()
            return all((b["healthy"], b["dataplanes"]) == (2, 2) for b in rows)

        eventually(both, "both data planes have reported")
        self.a.stop()
        statuses = {get(self.ports[0], "/x").status for _ in range(4)}
        self.assertLessEqual(statuses, {200, 502})

        def one():
            row = self.backends()[self.a.url]
            return row if row["healthy"] == 1 else None

        began = time.monotonic()
        row = eventually(one, "one of them says that it cannot be used")
        self.say("the fleet knew of a backend that one data plane cannot use after %.0f ms" % (1000 * (time.monotonic() - began)))
        self.assertEqual((1, 2), (row["healthy"], row["dataplanes"]))
        self.assertEqual(1, sum(t["dataplanes"] for t in row["troubles"]), row)
        self.assertGreater(row["errorsTotal"], 0)
        self.assertEqual(2, self.backends()[self.b.url]["healthy"])
        self.assertEqual(1, self.cp.status()["unhealthyBackends"])

        p = self.cp.cli("status", "endpoint", "/x")
        self.assertEqual(0, p.returncode, p.stderr)
        (line,) = [line for line in p.stdout.splitlines() if self.a.url in line]
        self.assertIn("1/2", line)
        p = self.cp.cli("status")
        self.assertIn("unhealthy somewhere: 1 backend", p.stdout)
        p = self.cp.cli("status", "endpoint", "/z")
        self.assertEqual(1, p.returncode)
        self.assertIn("no endpoint is named /z", p.stderr)

    def test_rates_survive_a_restart(self):
        with Load(self.ports[0], {"/x": ["a", "b"]}, keepalive=1, fresh=0) as load:

            def busy():
                rows = self.backends()
                return rows if all(b["requestsPerSecond"] > 0 for b in rows.values()) else None

            rows = eventually(busy, "there are rates")
            shown = sum(b["requestsPerSecond"] for b in rows.values())
            total = load.total()
            self.wait_load(load, 500)
            total = load.total()
            eventually(lambda: sum(b["requestsTotal"] for b in self.backends().values()) >= total, "all are counted")
            load.stop()
        self.assert_no_failures(load)
        self.assertEqual(0, self.backends("/y")[self.b.url]["requestsPerSecond"])

        def quiet():
            rows = self.backends()
            self.assertTrue(all(b["requestsPerSecond"] == 0 and b["inFlight"] == 0 for b in rows.values()), rows)
            self.assertEqual(load.total(), sum(b["requestsTotal"] for b in rows.values()))
            return True

        eventually(quiet, "the rates end with the requests")
        self.say("status endpoint showed %.0f requests/s of a load of %d requests" % (shown, load.total()))

        # The counters of a data plane start anew, and nothing is ever negative.
        self.dps[0].kill()
        self.dps[0].start()
        self.wait_ready(self.dps[0])
        get(self.ports[0], "/x")

        def anew():
            rows = self.backends()
            for b in rows.values():
                self.assertGreaterEqual(min(b["requestsPerSecond"], b["errorsPerSecond"]), 0)
            return sum(b["requestsTotal"] for b in rows.values()) == 1

        eventually(anew, "it counts from the start")

    def test_top(self):
        with Load(self.ports[1], {"/x": ["a", "b"]}, keepalive=1, fresh=0) as load:
            self.wait_load(load)

            def shown():
                p = self.cp.cli("top", "--once", "-n", "2")
                self.assertEqual(0, p.returncode, p.stderr)
                lines = p.stdout.splitlines()
                self.assertTrue(lines[2].startswith("ENDPOINT"), p.stdout)
                # The busiest first.
                self.assertTrue(all(line.startswith("/x") for line in lines[3:5]), p.stdout)
                self.assertEqual("and 1 more", lines[5])
                return float(lines[3].split()[3]) > 0

            eventually(shown, "the busy backends are on top")
            self.assertNotIn("\x1b", self.cp.cli("top").stdout)
            self._live()
        self.assert_no_failures(load)

    def _live(self) -> None:
        """On a terminal it goes on until Ctrl-C."""
        ours, theirs = pty.openpty()
        self.addCleanup(os.close, ours)
        p = subprocess.Popen([BUILD / "controlplane", "top", "--server", self.cp.server], stdin=theirs, stdout=theirs, stderr=theirs)
        os.close(theirs)
        self.addCleanup(p.wait, 10)
        self.addCleanup(lambda: p.poll() is None and p.kill())
        seen = b""

        def refreshed():
            nonlocal seen
            if select.select([ours], [], [], 0.1)[0]:
                seen += os.read(ours, 1 << 16)
            return seen.count(b"\x1b[2J") >= 3 and b"/x" in seen

        eventually(refreshed, "it is shown again and again")
        p.send_signal(signal.SIGINT)
        self.assertEqual(0, p.wait(10))
