"""A change goes through the fleet in steps, and is taken back by itself when it fails."""

import itertools
import json
import socket
import threading
import time

from e2e.harness import Load, Origin, Request, Scenario, answer, eventually, free_port, get
from e2e.harness.origin import Connection
from e2e.harness.scenario import write

STEPS = "[1, 50%, 100%]"
FLEET = ["dp1", "dp2", "dp3", "dp4"]


def broken(origin: Origin, request: Request, connection: Connection) -> None:
    """Answers 500 to everything."""
    connection.read_body(request)
    answer(connection, b"broken", status="500 Internal Server Error")


class Rollout(Scenario):
    def setUp(self):
        super().setUp()
        self.a, self.b = self.origin("a", record=False), self.origin("b", record=False)
        self.states = 0

    def text(self, *pool, steps: str = STEPS, more: str = "minRequests: 20", port: int | None = None) -> str:
        # How long requests take on a busy machine is no matter of these tests.
        rollout = "rollout: {steps: %s, bake: 1s, abortOn: {latencyP99: 1000x}, %s}" % (steps, more)
        return self.config({"/x": pool}, port=port, extra=rollout)

    def staged(self, config: str, names=FLEET, flags=()):
        """A control plane with a state directory, and data planes that have applied the config."""
        cp = self.control_plane(config, "--state-dir", str(self.dir / "state"), *flags)
        dps = [self.data_plane(name, cp, flags=["--label", "name=" + name]) for name in names]
        self.wait_applied(cp, dps)
        return cp, dps

    def rollout(self, cp) -> dict:
        p = cp.cli("rollout", "status", "-o", "json")
        self.assertEqual(0, p.returncode, p.stderr)
        return json.loads(p.stdout) or {}

    def wait_phase(self, cp, phase: str, revision: int = 0, within: float = 60) -> dict:
        def there():
            r = self.rollout(cp)
            assert r.get("phase") == phase and r.get("revision", 0) >= revision, r
            return r

        return eventually(there, "the roll-out is %s" % phase, within)

    def steer(self, cp, *args: str) -> str:
        p = cp.cli("rollout", *args)
        self.assertEqual(0, p.returncode, p.stdout + p.stderr)
        return p.stdout

    def served(self, dps) -> dict[str, list[str]]:
        """Every version that each data plane has ever served, in order, from its log."""
        versions = {}
        for dp in dps:
            lines = [json.loads(line) for line in dp.log().splitlines() if '"msg":"serving"' in line]
            versions[dp.id] = [v for v, _ in itertools.groupby(r["version"] for r in lines)]
        return versions


class Steps(Rollout):
    def test_one_then_half_then_all(self):
        cp, dps = self.staged(self.text(self.a))
        before = cp.status()
        new = self.dir / "new.yaml"
        new.write_text(self.text(self.b))
        sizes = set()
        with Load(self.port, {"/x": ["a", "b"]}) as load:
            self.wait_load(load)
            apply = threading.Thread(target=lambda: setattr(self, "applied", cp.cli("apply", str(new), "--wait")))
            apply.start()
            while apply.is_alive():
                status = cp.status()
                sizes.add(sum(dp.version() == status["version"] != before["version"] for dp in dps))
                time.sleep(0.02)
            apply.join()
        self.assertEqual(0, self.applied.returncode, self.applied.stdout + self.applied.stderr)
        self.assertLessEqual({1, 2, 4}, sizes)
        self.assertLessEqual(sizes, {0, 1, 2, 3, 4})
        self.assert_no_failures(load)
        status = cp.status()
        self.assertNotIn("rollout", status)
        for seen in self.served(dps).values():
            self.assertEqual([before["version"], status["version"]], seen)
        r = self.rollout(cp)
        self.assertEqual(("done", 3, 2, 1), (r["phase"], r["step"], r["revision"], r["baseRevision"]))
        self.assertEqual(1, cp.metrics().value("controlplane_rollouts_total", result="done"))

    def test_a_failing_change_is_rolled_back(self):
        bad = self.origin("bad", broken, record=False)
        cp, dps = self.staged(self.text(self.a))
        before = cp.status()["version"]
        new = self.dir / "new.yaml"
        new.write_text(self.text(bad))
        with Load(self.port, {"/x": ["a"]}, keepalive=0, fresh=4) as load:
            self.wait_load(load, 50)
            p = cp.cli("apply", str(new), "--wait")
            self.assertEqual(1, p.returncode, p.stdout + p.stderr)
            self.assertIn("server errors", p.stderr)
            self.wait_applied(cp, dps)
            failed, total = len(load.failures), load.total()
            self.wait_load(load, 50)
            self.assertEqual(failed, len(load.failures), load.failures[-3:])
        bad_version = self.rollout(cp)["version"]
        had = [dp for dp, seen in self.served(dps).items() if bad_version in seen]
        self.assertEqual(1, len(had), "only the canary has ever had it")
        self.assertEqual(self.rollout(cp)["chosen"], had)
        status = cp.status()
        self.assertEqual((before, 3, "error", "aborted"), (
            status["version"], status["revision"], status["config"]["lastLoad"], status["rollout"]["phase"]))
        self.assertIn("parked", status["config"]["error"])
        share = failed / (failed + total)
        self.assertLess(share, 0.5, "the canary's share is a quarter")
        self.say("%d of %d requests failed (%.1f %%) while one of four data planes had the bad change" % (failed, failed + total, 100 * share))

    def test_a_rejected_change_is_rolled_back(self):
        port = free_port()
        foreign = socket.create_server(("127.0.0.1", port))
        self.addCleanup(foreign.close)
        cp, dps = self.staged(self.text(self.a, more="canary: {name: dp3}"))
        before = cp.status()["version"]
        write(cp.config, self.text(self.b, more="canary: {name: dp3}", port=port))
        r = self.wait_phase(cp, "aborted")
        self.assertIn("1 data plane rejected it: dp3", r["reason"])
        self.assertIn(str(port), r["reason"])
        self.wait_applied(cp, dps)
        for seen in self.served(dps).values():
            self.assertEqual([before], seen)
        p = cp.cli("status", "--wait", "--timeout", "20s")
        self.assertEqual(1, p.returncode, p.stdout)
        self.assertIn("parked", p.stderr)

    def test_a_canary_that_vanishes(self):
        cp, dps = self.staged(self.text(self.a, steps="[1, 100%]", more="canary: {name: dp1}"), flags=["--apply-deadline", "1s"])
        write(cp.config, self.text(self.b, steps="[1, 100%]", more="canary: {name: dp1}, bake: 1m").replace("bake: 1s, ", ""))
        self.wait_phase(cp, "baking")
        dps[0].kill()
        r = self.wait_phase(cp, "aborted")
        self.assertIn("1 data plane that has it vanished or did not answer: dp1", r["reason"])
        dps[0].start()
        self.wait_applied(cp, dps)
        self.assertEqual(["a"] * 8, [get(self.port, "/x").text for _ in range(8)])


class Steering(Rollout):
    SLOW = "onNoTraffic: continue, canary: {name: dp2}"

    def begin(self, steps=STEPS, names=FLEET):
        """A roll-out that bakes its first step for an hour."""
        cp, dps = self.staged(self.text(self.a), names)
        write(cp.config, self.text(self.b, steps=steps, more=self.SLOW).replace("bake: 1s", "bake: 1h"))
        self.wait_phase(cp, "baking", 2)
        self.assertEqual(["dp2"], self.on(dps, cp.status()["version"]))
        return cp, dps

    def on(self, dps, version: str) -> list[str]:
        return [dp.id for dp in dps if dp.version() == version]

    def test_pause_resume_promote_abort(self):
        cp, dps = self.begin()
        new = cp.status()["version"]
        self.assertIn("paused", self.steer(cp, "pause", "--reason", "lunch"))
        self.assertIn("lunch", self.rollout(cp)["reason"])
        p = cp.cli("rollout", "pause")
        self.assertEqual(1, p.returncode)
        self.assertIn("paused already", p.stderr)
        p = cp.cli("rollout", "resume", "--revision", "7")
        self.assertEqual(1, p.returncode)
        self.assertIn("revision 2, not of 7", p.stderr)
        self.steer(cp, "resume")
        self.wait_phase(cp, "baking")
        self.steer(cp, "promote")
        eventually(lambda: len(self.on(dps, new)) == 4, "everybody has it")
        self.assertEqual(3, self.wait_phase(cp, "baking")["step"])
        late = self.data_plane("late", cp)
        eventually(lambda: late.version() == new, "who comes now gets it too")
        self.steer(cp, "abort", "--reason", "no")
        status = self.wait_applied(cp, [*dps, late])
        self.assertEqual(3, status["revision"])
        self.assertIn("no", status["rollout"]["reason"])
        self.assertEqual("a", get(self.port, "/x").text)
        self.assertEqual(1, cp.cli("rollout", "promote").returncode)
        history = cp.cli("history").stdout
        self.assertIn("aborted in step 3 of 3", history)

    def test_who_comes_in_the_middle(self):
        cp, dps = self.begin()
        new = cp.status()["version"]
        old = dps[0].version()
        late = self.data_plane("late", cp)
        self.wait_ready(late)
        dps[1].kill()
        dps[0].kill()
        self.wait_state(cp, dps[1], "disconnected")
        dps[0].start()
        dps[1].start()
        self.wait_state(cp, dps[1], "applied")
        self.wait_state(cp, dps[0], "pending")
        seen = self.served([*dps, late])
        self.assertEqual({"dp1": [old], "dp2": [old, new], "dp3": [old], "dp4": [old], "late": [old]}, seen)
        self.assertEqual("baking", self.rollout(cp)["phase"])
        # A clean stop is no failure.
        dps[1].terminate()
        self.assertEqual(0, dps[1].wait())
        r = eventually(lambda: self._replaced(cp), "another takes its place", 60)
        self.assertEqual(1, len(r["chosen"]))

    def _replaced(self, cp) -> dict:
        r = self.rollout(cp)
        assert r["phase"] == "baking" and r["chosen"] != ["dp2"], r
        return r

    def test_another_change_takes_its_place(self):
        c = self.origin("c", record=False)
        cp, dps = self.begin()
        first, old = cp.status()["version"], dps[0].version()
        write(cp.config, self.text(c, more=self.SLOW).replace("bake: 1s", "bake: 1h"))
        r = self.wait_phase(cp, "baking", 3)
        self.assertEqual((3, 1, ["dp2"]), (r["revision"], r["baseRevision"], r["chosen"]))
        self.assertEqual("superseded by revision 3", json.loads(cp.cli("history", "-o", "json").stdout)["revisions"][1]["outcome"])
        # Back to what was there before: nobody has to wait for that.
        write(cp.config, self.text(self.a))
        status = self.wait_applied(cp, dps, after=3)
        self.assertNotIn("rollout", status)
        self.assertEqual((old, "ok"), (status["version"], status["config"]["lastLoad"]))
        seen = self.served(dps)
        self.assertEqual([old, first, r["version"], old], seen["dp2"])
        for other in ("dp1", "dp3", "dp4"):
            self.assertEqual([old], seen[other])

    def test_a_backend_is_drained_in_both_tables(self):
        spare = self.origin("spare", record=False)
        cp, dps = self.staged(self.text(self.a, spare))
        write(cp.config, self.text(self.b, spare, more=self.SLOW).replace("bake: 1s", "bake: 1h"))
        chosen = self.wait_phase(cp, "baking", 2)["chosen"]
        p = cp.cli("drain", "backend", spare.url, "--wait")
        self.assertEqual(0, p.returncode, p.stdout + p.stderr)
        self.assertEqual({"a", "b"}, {get(self.port, "/x").text for _ in range(40)})
        r = self.rollout(cp)
        self.assertEqual(("baking", 1, chosen, 4, 3), (r["phase"], r["step"], r["chosen"], r["revision"], r["baseRevision"]))
        self.assertEqual(r["chosen"], self.on(dps, r["version"]))
        p = cp.cli("undrain", "backend", spare.url)
        self.assertEqual(0, p.returncode, p.stdout + p.stderr)
        eventually(lambda: "spare" in {get(self.port, "/x").text for _ in range(20)}, "it is used again")
        self.assertEqual(chosen, self.on(dps, cp.status()["version"]))

    def test_too_little_traffic(self):
        cp, dps = self.staged(self.text(self.a))
        write(cp.config, self.text(self.b, more="onNoTraffic: pause"))
        r = self.wait_phase(cp, "paused", 2)
        self.assertIn("too few requests to judge step 1: 0 of 100", r["reason"])
        self.steer(cp, "resume")
        eventually(lambda: self.rollout(cp)["step"] == 2, "the next step")
        self.wait_phase(cp, "paused", 2)
        p = cp.cli("apply", str(cp.config), "--wait", "--timeout", "1s")
        self.assertEqual(1, p.returncode)
        self.assertIn("the roll-out is in step 2 of 3, paused: too few requests", p.stderr)
        # These steps instead of those in the file: at once.
        new = self.dir / "new.yaml"
        new.write_text(self.text(self.a, self.b))
        p = cp.cli("apply", str(new), "--steps", "100%", "--wait")
        self.assertEqual(0, p.returncode, p.stdout + p.stderr)
        self.assertNotIn("rollout", self.wait_applied(cp, dps))
        p = cp.cli("apply", str(new), "--steps", "1,50%")
        self.assertEqual(2, p.returncode)
        self.assertIn("the last step must be 100%", p.stderr)
