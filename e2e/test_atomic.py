"""apply --atomic: all data planes change at the same moment, or none does."""

import json
import random
import re
import signal
import socket
import subprocess
import time

from e2e.harness import Load, Reservation, Scenario, eventually, get
from e2e.harness.processes import BUILD
from e2e.harness.scenario import write


class Atomic(Scenario):
    """Four data planes, each on a port of its own."""

    def setUp(self):
        super().setUp()
        self.a, self.b = self.origin("a", record=False), self.origin("b", record=False)
        self.new = self.dir / "new.yaml"

    def four(self, *flags: str) -> None:
        self.cp = self.control_plane(self.config({"/x": [self.a]}), *flags)
        self.dps, self.ports = [], []
        for i in range(4):
            own = Reservation()
            self.addCleanup(own.release)
            self.ports.append(own.port)
            self.dps.append(self.data_plane("dp%d" % i, self.cp, flags=["--port", str(own.port)]))
        self.wait_applied(self.cp, self.dps)

    def apply(self, text: str, *flags: str) -> subprocess.CompletedProcess:
        write(self.new, text)
        return self.cp.cli("apply", self.new, "--atomic", *flags)

    def everything(self) -> dict:
        """What must be the same when nothing has changed."""
        status = self.cp.status()
        return {
            "version": status["version"],
            "revision": status["revision"],
            "file": self.cp.config.read_text(),
            "history": self.cp.cli("history", "-o", "json").stdout,
            "in force": {dp.id: (dp.version(), dp.metrics().value("dataplane_config_updates_total", result="applied")) for dp in self.dps},
            "stored": {dp.id: (dp.state_dir / "routetable.bin").read_bytes() for dp in self.dps},
        }

    def assert_answers(self, want: str) -> None:
        self.assertEqual([want] * 4, [get(port, "/x").text for port in self.ports])

    def test_all_switch_under_load_and_no_request_is_lost(self):
        self.four()
        loads = [Load(port, {"/x": "a"}) for port in self.ports]
        try:
            for load in loads:
                load.__enter__()
                self.wait_load(load, 50)
            spreads = []
            names = "ab"
            for i in range(10):
                to = (self.b, self.a)[i % 2]
                for load in loads:
                    load.expect("/x", *names)
                p = self.apply(self.config({"/x": [to]}), "-o", "json")
                self.assertEqual(0, p.returncode, p.stdout + p.stderr)
                answer = json.loads(p.stdout)
                self.assertTrue(answer["changed"])
                spreads.append(answer["spreadSeconds"])
                # Everybody has switched when apply returns.
                for load in loads:
                    load.expect("/x", to.name)
                self.assert_answers(to.name)
        finally:
            for load in loads:
                load.__exit__(None, None, None)
        for load in loads:
            self.assert_no_failures(load)
        self.assertEqual(11, self.cp.status()["revision"])
        self.assertEqual(10, self.cp.metrics().value("controlplane_switch_spread_seconds_count"))
        self.assertEqual(self.config({"/x": [self.a]}), self.cp.config.read_text())
        spreads.sort()
        self.say(
            "10 switches of 4 data planes under load, %d requests, 0 lost: spread p50 %.1f ms, max %.1f ms"
            % (sum(load.total() for load in loads), 1000 * spreads[5], 1000 * spreads[-1])
        )

    def test_people_are_told_the_spread(self):
        self.four()
        p = self.apply(self.config({"/x": [self.b]}), "--expect", "4")
        self.assertEqual(0, p.returncode, p.stdout + p.stderr)
        self.assertRegex(p.stdout, r"revision 2 .* is the running configuration now\nall data planes changed within \d")
        self.assert_answers("b")
        p = self.apply(self.config({"/x": [self.b]}))
        self.assertEqual(0, p.returncode, p.stdout + p.stderr)
        self.assertIn("was the running configuration already", p.stdout)

    def test_a_data_plane_that_cannot_keeps_all_as_they_are(self):
        """One of four follows the file's port, which a foreign program has."""
        self.four()
        follower = self.data_plane("follower", self.cp)
        self.wait_applied(self.cp, [*self.dps, follower])
        before = self.everything()
        with socket.socket() as foreign:
            foreign.bind(("127.0.0.1", 0))
            foreign.listen()
            taken = foreign.getsockname()[1]
            with Load(self.ports[0], {"/x": "a"}) as load:
                p = self.apply(self.config({"/x": [self.b]}, port=taken))
                self.wait_load(load)
            self.assert_no_failures(load)
        self.assertEqual(1, p.returncode, p.stdout + p.stderr)
        self.assertRegex(p.stdout, r"(?m)^data plane follower: port: %d cannot be opened" % taken)
        self.assertNotIn("dp0", p.stdout)
        self.assertIn("nothing has changed", p.stderr)
        self.assertEqual(before, self.everything())
        self.assert_answers("a")
        # The port is free now: it was opened by nobody, and can be.
        p = self.apply(self.config({"/x": [self.b]}, port=taken))
        self.assertEqual(0, p.returncode, p.stdout + p.stderr)
        self.assertEqual("b", get(taken, "/x").text)

    def test_a_stopped_data_plane_keeps_all_as_they_are(self):
        self.four()
        before = self.everything()
        self.dps[2].freeze()
        for seconds in (1, 4, 16):  # in which all but this one are ready
            p = self.apply(self.config({"/x": [self.b]}), "--timeout", "%ds" % seconds)
            self.assertEqual(1, p.returncode, p.stdout + p.stderr)
            late = re.findall(r"(?m)^data plane.*", p.stdout)
            if len(late) == 1:
                break
        self.assertEqual(["data plane dp2: did not say within %ds that it is ready" % seconds], late)
        self.dps[2].thaw()
        self.wait_applied(self.cp, self.dps)
        self.assertEqual(before, self.everything())
        self.assert_answers("a")
        p = self.apply(self.config({"/x": [self.b]}))
        self.assertEqual(0, p.returncode, p.stdout + p.stderr)
        self.assert_answers("b")

    def test_one_that_is_disconnected_fails_it_at_once(self):
        self.four()
        self.dps[3].kill()
        self.wait_state(self.cp, self.dps[3], "disconnected")
        p = self.apply(self.config({"/x": [self.b]}), "-o", "json", "--expect", "4")
        self.assertEqual(1, p.returncode, p.stdout + p.stderr)
        (row,) = json.loads(p.stdout)["unprepared"]
        self.assertRegex(row, r"^data plane dp3: is disconnected")
        self.assertEqual(1, self.cp.status()["revision"])
        self.assertEqual(["a"] * 3, [get(port, "/x").text for port in self.ports[:3]])

    def test_an_ordinary_change_is_made_at_once_and_ends_it(self):
        self.four()
        self.dps[0].freeze()
        write(self.new, self.config({"/x": [self.b]}))
        waiting = subprocess.Popen(
            [str(BUILD / "controlplane"), "apply", "--server", self.cp.server, str(self.new), "--atomic", "--timeout", "60s"],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        eventually(lambda: "preparing a configuration everywhere" in self.cp.log(), "it has begun")
        write(self.cp.config, self.config({"/x": [self.a, self.b]}))
        output, _ = waiting.communicate(timeout=30)
        self.assertEqual(1, waiting.returncode, output)
        self.assertIn("the configuration changed while this one was being prepared", output)
        self.assertEqual(self.config({"/x": [self.a, self.b]}), self.cp.config.read_text())
        self.dps[0].thaw()
        self.wait_applied(self.cp, self.dps, after=1)
        for port in self.ports:
            self.assertEqual({"a", "b"}, {get(port, "/x").text for _ in range(2)})

    def test_kill_minus_9_of_the_control_plane_at_any_moment(self):
        """Before the file is written nothing has happened; after it, all get it."""
        self.four("--state-dir", str(self.dir / "cp.state"))
        content = {"a": self.config({"/x": [self.a]}), "b": self.config({"/x": [self.b]})}
        names = dict(zip(content.values(), content))
        outcomes = {"nothing happened": 0, "reached all afterwards": 0, "acknowledged": 0}
        now = "a"
        seed = time.time_ns()
        chance = random.Random(seed)
        for _ in range(8):
            then = "b" if now == "a" else "a"
            write(self.new, content[then])
            revision = self.cp.status()["revision"]
            run = subprocess.Popen(
                [str(BUILD / "controlplane"), "apply", "--server", self.cp.server, str(self.new), "--atomic", "-o", "json"],
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            )  # fmt: skip
            begun = "preparing a configuration everywhere"
            eventually(lambda: begun in self.cp.log().rpartition("--- start: ")[2], "it has begun", every=0.001)
            moment = time.monotonic() + chance.random() * 0.03
            while time.monotonic() < moment:
                pass
            self.cp.signal(signal.SIGKILL)
            self.cp.process.wait(10)
            output, _ = run.communicate(timeout=30)
            acknowledged = run.returncode == 0
            self.cp.start()
            self.wait_control_plane(self.cp)
            status = self.wait_applied(self.cp, self.dps)
            found = names[self.cp.config.read_text()]
            self.assertTrue(found == then or not acknowledged, "seed %d: an acknowledged change is lost: %s" % (seed, output))
            self.assertEqual(revision + (found == then), status["revision"], "seed %d" % seed)
            self.assert_answers(found)
            outcomes["acknowledged" if acknowledged else "reached all afterwards" if found == then else "nothing happened"] += 1
            now = found
        self.assertFalse(re.search("panic", self.cp.log()))
        self.say("kill -9 of the control plane in the middle of 8 atomic changes: %s" % outcomes)
