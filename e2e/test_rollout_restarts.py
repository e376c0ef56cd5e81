"""A roll-out outlives whatever happens to the control plane."""

import json
import random
import time

from e2e import test_rollout as rollout
from e2e.harness import Load, eventually
from e2e.harness.scenario import write


class Restarts(rollout.Rollout):
    def test_kill_9_in_the_middle(self):
        cp, dps = self.staged(self.text(self.a))
        old = cp.status()["version"]
        with Load(self.port, {"/x": ["a", "b"]}) as load:
            write(cp.config, self.text(self.b, more="minRequests: 1"))
            self.wait_phase(cp, "baking", 2)
            new, canary = cp.status()["version"], self.rollout(cp)["chosen"]
            steps = []
            while len(steps) < 8 and self.rollout(cp)["phase"] != "done":
                time.sleep(random.uniform(0, 3))  # what is shown is that the moment does not matter
                cp.kill()
                cp.start()
                self.wait_control_plane(cp)
                r = self.rollout(cp)
                steps.append(r["step"])
                self.assertEqual((2, 1, new), (r["revision"], r["baseRevision"], r["version"]))
                self.assertLessEqual(set(canary), set(r["chosen"]))
            self.wait_phase(cp, "done", within=120)
            self.wait_applied(cp, dps)
        self.assertEqual(sorted(steps), steps)
        self.assert_no_failures(load)
        for seen in self.served(dps).values():
            self.assertEqual([old, new], seen)
        self.assertEqual("rolled out in 3 steps", json.loads(cp.cli("history", "-o", "json").stdout)["revisions"][0]["outcome"])
        self.say("%d times kill -9, in steps %s" % (len(steps), steps))

    def test_parked_until_it_changes(self):
        cp, dps = self.staged(self.text(self.a))
        bad = self.text(self.b, more="onNoTraffic: abort")
        write(cp.config, bad)
        self.wait_phase(cp, "aborted", 2)
        self.wait_applied(cp, dps, after=2)

        def refused():
            status = cp.status()
            self.assertEqual(("error", "aborted", 3), (status["config"]["lastLoad"], status["rollout"]["phase"], status["revision"]))
            self.assertIn("parked", status["config"]["error"])
            self.assertEqual({status["version"]}, {dp.version() for dp in dps})

        refused()
        write(cp.config, bad)  # the same text again is no change
        self.assertEqual(1, cp.cli("status", "--wait").returncode)
        cp.kill()
        cp.start()
        self.wait_control_plane(cp)
        self.wait_applied(cp, dps)
        refused()
        # Somebody wants it.
        p = cp.cli("apply", str(cp.config), "--wait")
        self.assertEqual(1, p.returncode, p.stdout + p.stderr)
        self.assertIn("the roll-out of revision 4 was aborted in step 1 of 3: too few requests to judge step 1", p.stderr)
        self.wait_applied(cp, dps, after=4)
        # Another text, and then this one, which has changed now.
        write(cp.config, self.text(self.a, more="onNoTraffic: abort"))
        eventually(lambda: cp.status()["config"]["lastLoad"] == "ok", "it is good again")
        self.assertNotIn("rollout", cp.status())
        write(cp.config, bad)
        self.wait_phase(cp, "aborted", 6)

    def test_a_file_that_has_changed_while_nobody_looked(self):
        cp, dps = self.staged(self.text(self.a))
        old = cp.status()["version"]
        cp.kill()
        write(cp.config, self.text(self.b, more="onNoTraffic: continue, bake: 1h").replace("bake: 1s, ", ""))
        cp.start()
        r = self.wait_phase(cp, "baking", 2)
        self.assertEqual((1, 1), (r["step"], r["baseRevision"]))
        # And once more, in the middle of it.
        cp.kill()
        write(cp.config, self.text(self.a, self.b, more="onNoTraffic: continue, bake: 1h").replace("bake: 1s, ", ""))
        cp.start()
        r3 = self.wait_phase(cp, "baking", 3)
        self.assertEqual((3, 1, r["chosen"]), (r3["revision"], r3["baseRevision"], r3["chosen"]))
        for id_, seen in self.served(dps).items():
            self.assertEqual([old, r["version"], r3["version"]] if [id_] == r["chosen"] else [old], seen)

    def test_lost_and_damaged_states_are_said(self):
        cp, dps = self.staged(self.text(self.a))
        old = cp.status()["version"]
        write(cp.config, self.text(self.b, more="onNoTraffic: continue, bake: 1h").replace("bake: 1s, ", ""))
        chosen = self.wait_phase(cp, "baking", 2)["chosen"]
        cp.kill()
        state = self.dir / "state"
        file, base = state / "rollout.json", sorted((state / "history").iterdir())[0]
        text, kept = file.read_text(), base.read_bytes()
        for damage, said in (
            (lambda: file.write_text(text[: len(text) // 2]), "which keeps the roll-out, is damaged"),
            (lambda: base.unlink(), "revision 1, which it can return to, is not in the history"),
        ):
            damage()
            cp.start()
            self.assertEqual(1, cp.wait())
            self.assertIn(said, cp.log())
            self.assertIn("remove", cp.log())
            file.write_text(text)
            base.write_bytes(kept)
        for dp in dps:
            self.assertEqual([dp.id] != chosen, dp.version() == old, "they stay as they are")
        cp.start()
        self.wait_control_plane(cp)
        self.assertEqual(chosen, self.wait_phase(cp, "baking", 2)["chosen"])

    def test_a_crash_between_two_files(self):
        # What a crash leaves is made by hand. The order is: roll-out, configuration, history.
        cp, dps = self.staged(self.text(self.a))
        old, history = cp.status()["version"], self.dir / "state" / "history"
        text = self.text(self.b, more="onNoTraffic: abort, bake: 1h").replace("bake: 1s, ", "")

        def again(*lost: str) -> dict:
            """Kills the control plane, forgets the newest revisions, and starts it."""
            cp.kill()
            for name in lost:
                (history / name).unlink()
            cp.start()
            self.wait_control_plane(cp)
            return cp.status()

        write(cp.config, text)
        chosen = self.wait_phase(cp, "baking", 2)["chosen"]
        new = cp.status()["version"]
        # Before the history had it: it goes on.
        again("%016d.revision" % 2)
        r = self.wait_phase(cp, "baking", 2)
        self.assertEqual((2, chosen, new), (r["revision"], r["chosen"], r["version"]))
        # Before what was there before was accepted again.
        self.steer(cp, "abort")
        self.wait_applied(cp, dps, after=2)
        status = again("%016d.revision" % 3)
        self.assertEqual((3, old, "error"), (status["revision"], status["version"], status["config"]["lastLoad"]))
        self.wait_applied(cp, dps)
        # Before the file was written.
        p = cp.cli("apply", str(cp.config))
        self.assertEqual(0, p.returncode, p.stderr)
        self.wait_phase(cp, "baking", 4)
        cp.kill()
        write(cp.config, self.text(self.a))
        status = again("%016d.revision" % 4)
        self.assertEqual((3, old, "ok"), (status["revision"], status["version"], status["config"]["lastLoad"]))
        self.assertNotIn("rollout", status)
        self.wait_applied(cp, dps)
        for id_, seen in self.served(dps).items():
            self.assertEqual([old, new, old, new, old] if [id_] == chosen else [old], seen)
