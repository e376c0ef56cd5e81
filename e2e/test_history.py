"""What was accepted: listed, shown, compared and brought back; kept over kill -9 at any
point; taken over from the fleet when it is lost."""

import json
import random
import shutil
import threading
import time

from e2e.harness import Load, Scenario, eventually, get
from e2e.harness.scenario import write

KILLS = 50


class History(Scenario):
    def kept_control_plane(self, config: str):
        self.state = self.dir / "state"
        return self.control_plane(config, "--state-dir", str(self.state))

    def revisions(self, cp) -> list[dict]:
        """The history, the oldest first."""
        r = cp.cli("history", "-o", "json")
        self.assertEqual(0, r.returncode, r.stderr)
        return list(reversed(json.loads(r.stdout)["revisions"]))

    def show(self, cp, revision: int) -> str:
        r = cp.cli("show", str(revision))
        self.assertEqual(0, r.returncode, r.stderr)
        return r.stdout

    def put(self, cp, text: str, *flags: str) -> dict:
        """Applies a text."""
        source = self.dir / "next.yaml"
        source.write_text(text)
        r = cp.cli("apply", str(source), "-o", "json", *flags)
        self.assertEqual(0, r.returncode, r.stderr)
        return json.loads(r.stdout)


class RollingBack(History):
    def test_a_change_is_found_out_and_taken_back(self):
        a, b = self.origin("a"), self.origin("b")
        good, bad = "# the good one\n" + self.config({"/x": [a]}), self.config({"/x": [b]})
        cp = self.kept_control_plane(good)
        dps = [self.data_plane(name, cp) for name in ("dp1", "dp2")]
        self.wait_applied(cp, dps)
        self.put(cp, bad, "--message", "to b", "--wait", "--expect", "2")
        self.assertEqual("b", get(self.port, "/x").text)

        self.assertEqual(["file", "apply"], [r["origin"] for r in self.revisions(cp)])
        self.assertIn("@", self.revisions(cp)[1]["author"])
        self.assertEqual("to b", self.revisions(cp)[1]["message"])
        self.assertEqual(good, self.show(cp, 1))
        r = cp.cli("diff", "1")
        self.assertEqual((0, "+ backend %s of endpoint /x\n- backend %s of endpoint /x\n" % (b.url, a.url)), (r.returncode, r.stdout))
        self.assertIn("-  - %s\n+  - %s\n" % (a.url, b.url), cp.cli("diff", "1", "2", "-o", "unified").stdout)

        r = cp.cli("rollback", "1", "-m", "b is slow", "--wait", "--expect", "2")
        self.assertEqual(0, r.returncode, r.stderr)
        self.assertEqual("a", get(self.port, "/x").text)
        self.assertEqual(good, cp.config.read_text())
        last = self.revisions(cp)[-1]
        self.assertEqual((3, "rollback", 1, "b is slow"), (last["revision"], last["origin"], last["restores"], last["message"]))
        self.assertEqual("Revisions 1 and 3 are the same.\n", cp.cli("diff", "1").stdout)

        r = cp.cli("rollback", "7")
        self.assertEqual(1, r.returncode)
        self.assertIn("there is no revision 7; the history has 1 to 3", r.stderr)

    def test_an_edit_that_means_the_same_is_what_a_rollback_brings_back(self):
        a = self.origin("a")
        text = self.config({"/x": [a]})
        cp = self.kept_control_plane(text)
        write(cp.config, text + "# about a\n")
        eventually(lambda: self.show(cp, 1) == text + "# about a\n", "the edit is in the history")
        self.put(cp, self.config({"/x": [a], "/y": [a]}))
        self.assertEqual(0, cp.cli("rollback", "1").returncode)
        self.assertEqual(text + "# about a\n", cp.config.read_text())

    def test_without_a_state_directory_it_says_that_it_is_not_kept(self):
        a = self.origin("a")
        cp = self.control_plane(self.config({"/x": [a]}))
        r = cp.cli("history")
        self.assertEqual(0, r.returncode)
        self.assertIn("no --state-dir", r.stderr)
        cp.kill()
        cp.start()
        self.wait_control_plane(cp)
        self.assertEqual([1], [r["revision"] for r in self.revisions(cp)])


class Lost(History):
    def test_a_lost_state_directory_is_taken_over_from_the_fleet(self):
        a, b = self.origin("a", record=False), self.origin("b", record=False)
        cp = self.kept_control_plane(self.config({"/x": [a]}))
        dps = [self.data_plane(name, cp) for name in ("dp1", "dp2")]
        self.wait_applied(cp, dps)
        for n in range(3):
            self.put(cp, self.config({"/x": [a], "/y%d" % n: [b]}), "--wait", "--expect", "2")
        before = cp.status()
        self.assertEqual(4, before["revision"])
        updates = {dp.id: dp.metrics().sum("dataplane_config_updates_total") for dp in dps}
        with Load(self.port, {"/x": "a"}) as load:
            cp.kill()
            shutil.rmtree(self.state)
            cp.start()
            self.wait_control_plane(cp)
            eventually(lambda: cp.status()["revision"] == 4, "the revision is taken over")
            after = self.wait_applied(cp, dps)
            self.assertEqual(before["version"], after["version"])
            eventually(lambda: [4] == [r["revision"] for r in self.revisions(cp)], "the history has it")
            self.wait_load(load)
        self.assert_no_failures(load)
        for dp in dps:
            now = dp.metrics().sum("dataplane_config_updates_total")
            self.assertEqual(updates[dp.id], now, "%s got a table" % dp.id)
        self.assertEqual(5, self.put(cp, self.config({"/x": [a]}))["revision"])


class Operations(threading.Thread):
    """Changes the configuration again and again, by apply, rollback and edits, and
    remembers what was acknowledged."""

    def __init__(self, test: History, cp, text, known: list[int], rng: random.Random):
        super().__init__(daemon=True)
        self.test, self.cp, self.text, self.known, self.rng = test, cp, text, list(known), rng
        self.stopped = threading.Event()
        # By revision: what apply and rollback have answered, and what was asked.
        self.acknowledged: dict[int, dict] = {}

    def run(self) -> None:
        while not self.stopped.is_set():
            kind = self.rng.choice(["apply", "apply", "rollback", "edit"])
            number = self.rng.randrange(10**9)
            text = self.text(number)
            if kind == "edit":
                write(self.cp.config, text)
                self.stopped.wait(self.rng.uniform(0, 0.3))  # it is noticed, or it is not
                continue
            message = "%s %d" % (kind, number)
            args = ["-o", "json", "--message", message]
            if kind == "apply":
                source = self.test.dir / "applied.yaml"
                source.write_text(text)
                args = ["apply", str(source), *args]
            else:
                revision = self.rng.choice(self.known)
                args = ["rollback", str(revision), *args]
            r = self.cp.cli(*args)
            if r.returncode == 0 and (answer := json.loads(r.stdout))["changed"]:
                self.known.append(answer["revision"])
                self.acknowledged[answer["revision"]] = {
                    "version": answer["version"], "message": message, "origin": kind,
                    "text": text if kind == "apply" else None, "restores": None if kind == "apply" else revision,
                }  # fmt: skip


class Killed(History):
    """kill -9 at 50 random points."""

    def test_nothing_that_was_acknowledged_is_lost(self):
        seed = random.randrange(10**6)
        rng = random.Random(seed)
        a = self.origin("a", record=False)

        def text(number: int) -> str:
            return self.config({"/x": [a], **{"/e%d" % i: ["%s/?n=%d" % (a.url, number)] for i in range(100)}}) + "# %d\n" % number

        cp = self.kept_control_plane(text(0))
        dp = self.data_plane("dp1", cp)
        self.wait_applied(cp, [dp])
        versions: dict[int, str] = {}  # of every revision there ever was
        highest, acknowledged, cut, completed = 0, 0, 0, 0
        known = [1]
        with Load(self.port, {"/x": "a"}, keepalive=1, fresh=0, pause=0.005) as load:
            for kill in range(KILLS):
                work = Operations(self, cp, text, known, rng)
                work.start()
                self.wait_for_the_moment(rng, kill)
                cp.kill()
                work.stopped.set()
                work.join(60)
                self.assertFalse(work.is_alive())
                left = [f for f in self.state.rglob("*") if f.suffix in (".prepared", ".partial")]
                cut += bool(left)

                cp.start()
                self.wait_control_plane(cp)
                where = "kill %d of seed %d" % (kill + 1, seed)
                history = self.check(cp, work.acknowledged, versions, highest, where)
                completed += any(f.suffix == ".prepared" and f.with_suffix(".revision").exists() for f in left)
                highest = history[-1]["revision"]
                known = [r["revision"] for r in history[-20:]]
                acknowledged += len(work.acknowledged)
                if kill % 10 == 9:
                    self.wait_applied(cp, [dp])
            self.wait_applied(cp, [dp])
            self.wait_load(load)
        self.assert_no_failures(load)
        self.assertGreater(acknowledged, 0)
        self.say(
            "%d times kill -9: %d changes acknowledged, none lost; %d kills cut a change off, %d of these changes were completed; "
            "revision %d; %d requests, 0 failed (seed %d)" % (KILLS, acknowledged, cut, completed, highest, load.total(), seed)
        )

    def wait_for_the_moment(self, rng: random.Random, kill: int) -> None:
        """At any time, or as soon as something is being written."""
        deadline = time.monotonic() + rng.uniform(0.02, 0.4)
        if kill % 2:
            deadline = time.monotonic() + 2
            history = self.state / "history"
            while time.monotonic() < deadline and not any(
                name.endswith((".prepared", ".partial")) for name in (p.name for p in history.iterdir())
            ):
                time.sleep(0.0002)
            deadline = time.monotonic() + rng.choice([0, 0, rng.uniform(0, 0.01)])
        while time.monotonic() < deadline:
            time.sleep(0.0005)

    def check(self, cp, acknowledged: dict[int, dict], versions: dict[int, str], highest: int, where: str) -> list[dict]:
        """What a control plane that was killed and started again must have."""
        history = self.revisions(cp)
        numbers = [r["revision"] for r in history]
        self.assertEqual(sorted(set(numbers)), numbers, where)
        self.assertGreaterEqual(numbers[-1], highest, "%s: revisions went back" % where)
        by_number = {r["revision"]: r for r in history}
        for r in history:
            before = versions.setdefault(r["revision"], r["version"])
            self.assertEqual(before, r["version"], "%s: revision %d was used twice" % (where, r["revision"]))
        for revision, want in acknowledged.items():
            self.assertIn(revision, by_number, "%s: what was acknowledged is lost" % where)
            got = by_number[revision]
            self.assertEqual(
                (want["version"], want["message"], want["origin"]), (got["version"], got["message"], got["origin"]), where
            )
        if acknowledged:
            revision = max(acknowledged)
            text = acknowledged[revision]["text"] or self.show(cp, acknowledged[revision]["restores"])
            self.assertEqual(text, self.show(cp, revision), where)
        status = cp.status()
        self.assertEqual((history[-1]["revision"], history[-1]["version"]), (status["revision"], status["version"]), where)
        self.assertEqual(cp.config.read_text(), self.show(cp, status["revision"]), "%s: file and fleet disagree" % where)
        left = [f.name for f in (*self.state.rglob("*"), *self.dir.iterdir()) if f.suffix in (".prepared", ".partial")]
        self.assertEqual([], left, "%s: leftovers" % where)
        return history
