"""A change goes through the fleet in steps, and is taken back by itself when it fails."""

import json
import random
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
        rollout = "rollout: {steps: %s, bake: 1s, %s}" % (steps, more)
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

    def watch(self, dps) -> "Watch":
        w = Watch(dps)
        self.addCleanup(w.stop)
        return w


class Watch:
    """Asks data planes again and again which version they run."""

    def __init__(self, dps):
        self.seen = {dp.id: [] for dp in dps}
        self._dps = dps
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self):
        while not self._stop.wait(0.05):
            for dp in self._dps:
                try:
                    version = dp.version()
                except Exception:
                    continue
                if version and version not in self.seen[dp.id][-1:]:
                    self.seen[dp.id].append(version)

    def stop(self):
        self._stop.set()
        self._thread.join(20)
        return self.seen


class Steps(Rollout):
    def test_one_then_half_then_all(self):
        cp, dps = self.staged(self.text(self.a))
        watch = self.watch(dps)
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
        for seen in watch.stop().values():
            self.assertEqual([before["version"], status["version"]], seen)
        r = self.rollout(cp)
        self.assertEqual(("done", 3, 2, 1), (r["phase"], r["step"], r["revision"], r["baseRevision"]))
        self.assertEqual(1, cp.metrics().value("controlplane_rollouts_total", result="done"))

    def test_a_failing_change_is_rolled_back(self):
        bad = self.origin("bad", broken, record=False)
        cp, dps = self.staged(self.text(self.a))
        watch = self.watch(dps)
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
        had = [dp for dp, seen in watch.stop().items() if bad_version in seen]
        self.assertEqual(1, len(had), watch.seen)
        self.assertEqual(self.rollout(cp)["chosen"], had)
        status = cp.status()
        self.assertEqual((before, 3, "error", "aborted"), (
            status["version"], status["revision"], status["config"]["lastLoad"], status["rollout"]["phase"]))
        self.assertIn("parked", status["config"]["error"])
        share = failed / (failed + total)
        self.assertLess(share, 0.5, "the canary's share is a quarter")
        self.say("%d of %d requests failed (%.1f %%) while one of four data planes had the bad change" % (failed, failed + total, 100 * share))
