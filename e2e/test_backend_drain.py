"""Draining a backend, with proof: when the command returns, no request of any data
plane is in flight to it, and none comes after."""

import subprocess
import threading
import time

from e2e.harness import Client, Load, Origin, Scenario, answer, eventually, get
from e2e.harness.processes import BUILD


class Diary(Origin):
    """An origin that writes down when each request began and ended. Those for /slow
    are answered when the test says so; others are upgraded if they ask for it."""

    def __init__(self, name: str):
        self.began: list[float] = []
        self.ended: list[float] = []
        self.release = threading.Event()
        super().__init__(name, Diary._handle)

    @staticmethod
    def _handle(self: "Diary", request, connection) -> bool | None:
        connection.read_body(request)
        self.began.append(time.monotonic())
        if request.get("Upgrade"):
            connection.send(b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n")
            while piece := connection.file.read1():
                connection.send(piece)
            self.ended.append(time.monotonic())
            return False
        if request.target == "/slow":
            self.release.wait(20)
        # Before the answer goes out: the proxy cannot know it sooner.
        self.ended.append(time.monotonic())
        answer(connection, self.name.encode(), fields=[("X-Request-Id", request.get("X-Request-Id") or "")])

    def slow(self) -> int:
        """Requests for /slow so far."""
        return sum(r.target == "/slow" for r in self.seen())


class BackendDrain(Scenario):
    def setUp(self):
        super().setUp()
        self.a, self.b = Diary("a"), Diary("b")
        for origin in (self.a, self.b):
            self.addCleanup(origin.stop)
            self.addCleanup(origin.release.set)
        self.pools = {"/x": [self.a, self.b], "/slow": [self.a, self.b]}

    def drained_fleet(self):
        """A control plane that keeps its state, and two data planes."""
        cp = self.control_plane(self.config(self.pools), "--state-dir", str(self.dir / "state"))
        dps = [self.data_plane(name, cp) for name in ("dp1", "dp2")]
        self.wait_applied(cp, dps)
        return cp, dps

    def drain(self, cp, url: str, *flags: str) -> subprocess.Popen:
        """controlplane drain backend, in the background."""
        p = subprocess.Popen(
            [BUILD / "controlplane", "drain", "--server", cp.server, "backend", url, *flags],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        self.addCleanup(p.stdout.close)
        self.addCleanup(p.wait, 10)
        self.addCleanup(lambda: p.poll() is None and p.kill())
        return p

    def in_flight(self, cp) -> int:
        """What the status says about the drained backend; -1 while a data plane has
        not told."""
        (d,) = cp.status()["draining"]
        return -1 if d["unsettled"] and not d["inFlight"] else d["inFlight"]

    def test_wait_returns_after_the_last_request(self):
        cp, dps = self.drained_fleet()
        with Load(self.port, {"/x": ["a", "b"]}, keepalive=2, fresh=1) as load:
            slow = [threading.Thread(target=self._slow, daemon=True) for _ in range(12)]
            self.slow_answers: list[str] = []
            for t in slow:
                t.start()
            eventually(lambda: self.a.slow() >= 3, "slow requests have reached the backend")
            self.wait_load(load)
            p = self.drain(cp, self.a.url, "--wait", "--timeout", "60s")
            self.wait_applied(cp, dps, after=1)
            eventually(lambda: self.in_flight(cp) == self.a.slow(), "the slow ones are what is in flight")
            # From now on the other one gets everything.
            load.expect("/x", "b")
            before = self.a.count()
            self.wait_load(load, 200)
            self.assertIsNone(p.poll(), "it returns although requests are in flight")
            self.a.release.set()
            self.b.release.set()
            output, _ = p.communicate(timeout=30)
            returned = time.monotonic()
            self.assertEqual(0, p.returncode, output)
            self.assertIn("no request is in flight to it on 2 data planes", output)
            last = max(self.a.ended)
            self.assertEqual(len(self.a.began), len(self.a.ended), "a request had not ended when it returned")
            self.assertLessEqual(last, returned)
            self.wait_load(load, 200)
            for t in slow:
                t.join(20)
        self.assertEqual(before, self.a.count(), "requests came after the drain")
        self.assertLess(max(self.a.began), returned)
        self.assertEqual(12, len(self.slow_answers), self.slow_answers)
        self.assert_no_failures(load)
        self.say(
            "drain --wait returned %.0f ms after the last of %d requests of the backend had ended; %d requests, 0 lost"
            % (1000 * (returned - last), len(self.a.ended), load.total() + len(self.slow_answers))
        )

    def _slow(self) -> None:
        self.slow_answers.append(get(self.port, "/slow").text)

    def test_a_tunnel_is_in_flight(self):
        cp, _ = self.drained_fleet()
        tunnels = []
        for _ in range(20):
            c = Client(self.port)
            self.addCleanup(c.close)
            self.assertEqual(101, c.request("/x", fields=[("Connection", "upgrade"), ("Upgrade", "echo")]).status)
            tunnels.append(c)
        p = cp.cli("drain", "backend", self.a.url, "--wait", "--timeout", "1s")
        self.assertEqual(1, p.returncode, p.stdout + p.stderr)
        self.assertIn("IN FLIGHT", p.stdout)
        self.assertIn("it stays drained", p.stderr)
        held = self.in_flight(cp)
        self.assertEqual(len(self.a.began), held)
        for c in tunnels:
            c.close()
        p = cp.cli("drain", "backend", self.a.url, "--wait", "--timeout", "20s")
        self.assertEqual(0, p.returncode, p.stdout + p.stderr)
        self.assertEqual(len(self.a.began), len(self.a.ended))
        self.say("%d tunnels held up the drain until they were closed" % held)

    def test_it_outlives_both_planes(self):
        cp, (dp1, dp2) = self.drained_fleet()
        p = cp.cli("drain", "backend", self.a.url, "--wait", "--expect", "2")
        self.assertEqual((0, ""), (p.returncode, p.stderr), p.stdout)
        drained = self.a.count()
        with Load(self.port, {"/x": ["b"]}, keepalive=1) as load:
            cp.kill()
            self.wait_load(load)
        self.assert_no_failures(load)
        # A data plane that starts without a control plane has it from its disk.
        for dp in (dp1, dp2):
            dp.kill()
        dp1.start()
        self.wait_ready(dp1)
        self.assertEqual({"b"}, {get(self.port, "/x").text for _ in range(20)})
        # And so does the control plane; nothing has to be told again.
        cp.start()
        dp2.start()
        self.wait_applied(cp, [dp1, dp2])
        p = cp.cli("drain", "backend", self.a.url, "--wait", "--expect", "2")
        self.assertEqual(0, p.returncode, p.stdout + p.stderr)
        self.assertIn("was drained already", p.stdout)
        # A file that is saved changes nothing about it.
        self.change(cp, self.config({**self.pools, "/y": [self.b]}), dp1, dp2)
        self.assertEqual({"b"}, {get(self.port, "/x").text for _ in range(20)})
        self.assertEqual(drained, self.a.count())

        p = cp.cli("undrain", "backend", self.a.url, "--wait", "--expect", "2")
        self.assertEqual(0, p.returncode, p.stdout + p.stderr)
        self.assertEqual([], cp.status()["draining"])
        self.assertEqual({"a", "b"}, {get(self.port, "/x").text for _ in range(20)})

    def test_the_last_one_is_not_drained(self):
        cp, _ = self.fleet(self.config({"/x": [self.a]}))
        p = cp.cli("drain", "backend", self.a.url, "--wait")
        self.assertEqual(1, p.returncode, p.stdout + p.stderr)
        self.assertIn("--force", p.stderr)
        self.assertEqual("a", get(self.port, "/x").text)
        p = cp.cli("drain", "backend", self.a.url + "/", "--force")
        self.assertEqual(1, p.returncode, p.stdout + p.stderr)
        self.assertIn("did you mean " + self.a.url, p.stderr)
        p = cp.cli("drain", "backend", self.a.url, "--wait", "--force")
        self.assertEqual(0, p.returncode, p.stdout + p.stderr)
        self.assertIn("--state-dir", p.stderr)
        self.assertEqual(503, get(self.port, "/x").status)
