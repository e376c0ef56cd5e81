"""The file changes, the fleet follows, and no request notices."""

import signal
import statistics
import time

from e2e.harness import Load, Scenario, eventually, get
from e2e.harness.scenario import write

CHANGES = 100
# So many of them wait for the control plane to notice the file by itself; the
# others are announced by SIGHUP, which is faster and must be as safe.
UNANNOUNCED = 15


class Reload(Scenario):
    def test_a_hundred_changes_under_load_lose_nothing(self):
        a, b = self.origin("a", record=False), self.origin("b", record=False)
        pools = ({"/stable": [a, b], "/moving": [a]}, {"/stable": [a, b], "/moving": [b]})
        cp, dps = self.fleet(self.config(pools[0]), ["dp1", "dp2"])
        took = []
        with Load(self.port, {"/stable": "ab", "/moving": "a"}, keepalive=2, fresh=2) as load:
            for i in range(1, CHANGES + 1):
                load.expect("/moving", "a", "b")
                before = cp.status()["revision"]
                write(cp.config, self.config(pools[i % 2]))
                saved = time.monotonic()
                if i > UNANNOUNCED:
                    cp.signal(signal.SIGHUP)
                self.wait_applied(cp, dps, after=before)
                if i <= UNANNOUNCED:
                    took.append(time.monotonic() - saved)
                # Applied means: every request from here on is answered by the
                # new pool.
                load.expect("/moving", "ab"[i % 2])
                self.wait_load(load, 20)
        self.assert_no_failures(load)
        self.assertEqual([], load.duplicates(a, b))
        self.assertEqual(1 + CHANGES, cp.status()["revision"])
        self.say(
            "%d changes, %d requests, 0 lost; saved to applied on both data planes: median %.0f ms, longest %.0f ms"
            % (CHANGES, load.total(), 1000 * statistics.median(took), 1000 * max(took))
        )

    def test_sighup_reads_the_file_at_once(self):
        a, b = self.origin("a"), self.origin("b")
        cp, (dp,) = self.fleet(self.config({"/x": [a]}))
        before = cp.status()["revision"]
        write(cp.config, self.config({"/x": [b]}))
        saved = time.monotonic()
        cp.signal(signal.SIGHUP)
        self.wait_applied(cp, [dp], after=before)
        self.say("SIGHUP to applied: %.0f ms" % (1000 * (time.monotonic() - saved)))
        self.assertEqual("b", get(self.port, "/x").text)

    def test_every_way_of_saving_a_file_is_noticed(self):
        a = self.origin("a")
        cp, (dp,) = self.fleet(self.config({"/0": [a]}))

        def in_place(text):
            with open(cp.config, "r+") as f:
                f.write(text)
                f.truncate()

        def removed_and_created(text):
            cp.config.unlink()
            cp.config.write_text(text)

        def through_a_symbolic_link(text):
            target = self.dir / "elsewhere.yaml"
            target.write_text(text)
            link = self.dir / "link"
            link.symlink_to(target)
            link.replace(cp.config)

        def the_target_of_the_link(text):
            write(self.dir / "elsewhere.yaml", text)

        ways = [in_place, removed_and_created, through_a_symbolic_link, the_target_of_the_link]
        for i, save in enumerate(ways, 1):
            with self.subTest(save.__name__):
                before = cp.status()["revision"]
                save(self.config({"/%d" % i: [a]}))
                self.wait_applied(cp, [dp], after=before)
                self.assertEqual(200, get(self.port, "/%d" % i).status)
                self.assertEqual(404, get(self.port, "/%d" % (i - 1)).status)

    def test_the_same_content_is_not_a_change(self):
        a = self.origin("a")
        cp, (dp,) = self.fleet(self.config({"/x": [a]}))
        before = cp.status()
        write(cp.config, "# a comment, and another order of keys\n" + self.config({"/x": [a]}))
        cp.signal(signal.SIGHUP)
        loads = "controlplane_config_loads_total"
        eventually(lambda: cp.metrics().sum(loads) >= 2, "the file has been read again")
        after = cp.status()
        self.assertEqual((before["version"], before["revision"]), (after["version"], after["revision"]))
