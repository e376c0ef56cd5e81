"""The page shows the truth about real processes, and nothing that they say is more
than text to it."""

import json

from e2e.browser.scenario import PageScenario, Simulated
from e2e.harness import eventually
from e2e.harness.scenario import write

class Fleet(PageScenario):
    def test_it_shows_what_runs_where_as_it_changes(self):
        a = self.origin("a")
        cp, (one, two) = self.fleet(self.config({"/x": [a]}), ["one", "two"], ["--label", "zone=north"])
        self.open(cp)
        self.wait_equal({"one": "applied", "two": "applied"}, self.states)
        status = cp.status()
        self.assertIn("Revision\n1", self.browser.text("#facts"))
        self.assertIn(status["version"][:12], self.browser.text("#facts"))
        self.assertEqual("2/2 on r1 – Fleet", self.browser.script("return document.title"))
        self.assertIn("2 applied", self.browser.script("return document.querySelector('#mosaic').getAttribute('aria-label')"))

        self.browser.click("#fleet-rows .open")
        details = self.browser.text("#details")
        for part in ("one", "zone=north", status["version"], "127.0.0.1:%d" % one.admin_port):
            self.assertIn(part, details)
        self.browser.press("\ue00c")  # Escape
        eventually(lambda: not self.browser.script("return document.querySelector('#details').open"), "the details are closed")

        self.browser.click("#fleet-rows .open")
        self.browser.click("#details .close")
        eventually(lambda: not self.browser.script("return document.querySelector('#details').open"), "the details are closed again")

        two.kill()
        self.wait_row("two", "disconnected")
        self.assertEqual("applied", self.states()["one"])
        two.start()
        self.wait_row("two", "applied")

        write(cp.config, self.config({"/x": [a], "/y": [a]}))
        eventually(lambda: "Revision\n2" in self.browser.text("#facts"), "the new revision is shown")
        eventually(lambda: all(row[2] == "2" and row[1] == "applied" for row in self.rows()), "it runs everywhere")
        self.assert_nothing_went_wrong()

    def test_endpoints_are_shown_with_their_backends(self):
        a = self.origin("a")
        cp, _ = self.fleet(self.config({"/x": [a], "/y/*": [a, "http://127.0.0.1:9"]}))
        self.open(cp, "#endpoints")
        self.wait_equal(["/x", "/y/*"], lambda: sorted(row[1] for row in self.rows("endpoints")))
        self.assertEqual("2", self.browser.text("#count-endpoints"))
        self.assertEqual("page", self.browser.script("return document.querySelector('.views [href=\"#endpoints\"]').getAttribute('aria-current')"))

        self.browser.type("#endpoints-search", "/Y")
        self.wait_equal(["/y/*"], lambda: [row[1] for row in self.rows("endpoints")])
        self.browser.click("#endpoints-rows .open")
        eventually(lambda: "http://127.0.0.1:9" in self.browser.text("#details table"), "its backends are shown")
        self.assertIn(a.url, self.browser.text("#details table"))
        self.browser.click("#details .close")

        self.assertEqual(0, cp.cli("drain", "backend", "--force", a.url).returncode)
        eventually(lambda: a.url in self.browser.text("#drained"), "what is drained is shown")

        self.browser.click(".views [href='#fleet']")
        self.wait_equal({"dp1": "applied"}, self.states)
        self.assert_nothing_went_wrong()

    def test_the_history_is_shown_with_what_differs(self):
        a = self.origin("a")
        cp, (dp,) = self.fleet(self.config({"/x": [a]}))

        def changes() -> list[str]:
            return self.browser.texts("#details .changes li")

        self.open(cp, "#history")
        self.wait_equal(["1"], lambda: [row[0] for row in self.rows("history")])
        self.change(cp, self.config({"/x": [a], "/y": [a]}), dp)
        self.change(cp, self.config({"/y": [a], "/z": [a]}), dp)
        self.wait_equal(["3", "2", "1"], lambda: [row[0] for row in self.rows("history")])
        self.wait_equal(["3"], lambda: self.browser.texts("#history-rows tr.running .open"))

        self.browser.click("#history-rows .open")
        self.wait_equal(["removed endpoint /x", "added endpoint /z"], changes)
        self.browser.click("#details summary")
        eventually(lambda: "-- from: /x" in self.browser.text("#details .unified"), "the texts are compared")
        self.browser.type("#details select", "revision 1")
        self.wait_equal(["removed endpoint /x", "added endpoint /y", "added endpoint /z"], changes)
        self.assert_nothing_went_wrong()

    def test_a_refused_file_is_shown_with_its_reason(self):
        a = self.origin("a")
        good = self.config({"/x": [a], "/y": [a]})
        cp, _ = self.fleet(good)
        self.open(cp)
        self.assertEqual("", self.browser.text("#notices"))
        write(cp.config, good.replace("- from: /x", "- fron: /x"))
        eventually(lambda: 'did you mean "from"?' in self.browser.text("#notices"), "the reason is shown")
        self.assertIn("revision 1 goes on", self.browser.text("#notices"))
        write(cp.config, good)
        eventually(lambda: self.browser.text("#notices") == "", "it is gone when the file is good again")
        self.assert_nothing_went_wrong()

    def test_it_says_when_the_control_plane_cannot_be_reached(self):
        a = self.origin("a")
        cp, _ = self.fleet(self.config({"/x": [a]}))
        self.open(cp)
        eventually(lambda: len(self.rows()) == 1, "the data plane is shown")
        cp.kill()
        eventually(lambda: "cannot be reached" in self.browser.text("#notices"), "it is said")
        eventually(lambda: self.live().startswith("not reached; as of "), "the age of what is shown is said")
        self.assertEqual(1, len(self.rows()), "what was known last stays")
        cp.start()
        eventually(lambda: self.live() == "live" and self.browser.text("#notices") == "", "it is live again", within=60)
        # A browser writes a line for each connection that is refused, whatever the page does.
        self.assert_nothing_went_wrong("net::ERR_")

    def test_nobody_is_asked_while_nobody_looks(self):
        a = self.origin("a")
        cp, _ = self.fleet(self.config({"/x": [a]}))
        self.open(cp)
        hide = """
            Object.defineProperty(document, "hidden", { value: arguments[0], configurable: true });
            document.dispatchEvent(new Event("visibilitychange"));
            window.asked = performance.getEntriesByType("resource").length;
            window.seconds = 0;
            clearInterval(window.clock);
            window.clock = setInterval(() => window.seconds++, 1000);
        """
        self.browser.script(hide, True)
        eventually(lambda: self.browser.script("return window.seconds") >= 3, "three questions would have been asked")
        # One may have been on its way.
        self.assertLessEqual(self.browser.script("return performance.getEntriesByType('resource').length - window.asked"), 1)
        self.browser.script(hide, False)
        eventually(lambda: self.browser.script("return performance.getEntriesByType('resource').length - window.asked") >= 2, "it goes on")
        self.assert_nothing_went_wrong()


class Rollout(PageScenario):
    def test_it_is_shown_step_by_step(self):
        a = self.origin("a")
        steps = "rollout: {steps: [1, 100%], bake: 1h, canary: {canary: 'yes'}}"
        cp = self.control_plane(self.config({"/x": [a]}, extra=steps))
        dps = [self.data_plane(name, cp, flags=["--label", "canary=" + is_canary]) for name, is_canary in (("one", "no"), ("two", "yes"), ("three", "no"))]
        self.wait_applied(cp, dps)
        self.open(cp)
        self.wait_equal({"one": "applied", "two": "applied", "three": "applied"}, self.states)
        self.assertFalse(self.shown(), "there has been none")

        write(cp.config, self.config({"/x": [a], "/y": [a]}, extra=steps))
        self.wait_equal({"one": "pending", "two": "applied", "three": "pending"}, self.states)
        self.wait_equal("baking", lambda: self.browser.text("#rollout-phase"))
        self.assertIn("Roll-out of revision 2, from 1", self.browser.text("#rollout"))
        self.assertEqual("1", self.browser.text("#rollout-steps .current b"))
        self.assertIn("left", self.browser.text("#rollout-steps .current"))
        self.wait_equal("1 of 3 data planes runs it", lambda: self.browser.text("#rollout-sub"))
        self.wait_equal(["1", "2"], lambda: self.browser.texts("#rollout-windows td:nth-child(2)"))

        self.assertEqual(0, cp.cli("rollout", "promote").returncode)
        self.wait_equal({"one": "applied", "two": "applied", "three": "applied"}, self.states)
        self.wait_equal("100%", lambda: self.browser.text("#rollout-steps .current b"))

        # One that is taken back says why, and stays as long as the file has it.
        write(cp.config, self.config({"/x": [a], "/z": [a]}, extra=steps))
        self.wait_equal({"one": "pending", "two": "applied", "three": "pending"}, self.states)
        self.assertEqual(0, cp.cli("rollout", "abort", "--reason", "it looks <b>wrong</b>").returncode)
        self.wait_equal("aborted", lambda: self.browser.text("#rollout-phase"))
        self.assertIn("it looks <b>wrong</b>", self.browser.text("#rollout-reason"))
        self.wait_equal({"one": "applied", "two": "applied", "three": "applied"}, self.states)
        self.assert_nothing_went_wrong()

    def shown(self) -> bool:
        return self.browser.script("return document.querySelector('#rollout').offsetParent !== null")


class Hostile(PageScenario):
    """Whoever connects chooses an id, labels and errors."""

    def test_what_data_planes_and_files_say_is_text(self):
        a = self.origin("a")
        evil = "<img src=x onerror=window.ran=1>"
        good = self.config({"/x": [a]})
        cp = self.control_plane(good)
        self.data_plane("plain", cp)
        names = [evil, "\"><script>window.ran=1</script>", "javascript:window.ran=1", "'-window.ran=1-'", "{{window.ran=1}}", "a&lt;b&amp;"]
        for i, name in enumerate(names):
            dp = self.data_plane("evil%d" % i, cp, flags=["--id", name, "--label", "x=" + evil])
            self.assertTrue(dp)
        self.open(cp)
        self.wait_equal({"plain", *names}, lambda: set(self.states()))
        self.assertIn("x=" + evil, [row[7] for row in self.rows()])

        write(cp.config, good.replace("- from: /x", "- %s: /x" % json.dumps(evil)))
        eventually(lambda: evil in self.browser.text("#notices"), "the problem is shown as it is")
        for i in range(len(names) + 1):
            self.browser.script("document.querySelectorAll('#fleet-rows .open')[arguments[0]].click()", i)
            self.assertIn(self.browser.text("#details-title"), {"plain", *names})
            self.browser.script("document.querySelector('#details').close()")
        self.assertEqual(0, self.browser.script("return document.querySelectorAll('main img, main script, #details img, #notices img').length"))
        self.assert_nothing_went_wrong()

    def test_no_script_can_be_brought_in(self):
        a = self.origin("a")
        cp, _ = self.fleet(self.config({"/x": [a]}))
        self.open(cp)
        # A text that is used as HTML is refused, whoever tries it.
        tried = """
            const outcome = [];
            for (const attempt of [
              () => { document.querySelector("main").innerHTML = "<b>x</b>"; },
              () => { const s = document.createElement("script"); s.textContent = "window.ran = 1"; document.body.append(s); },
              () => { const s = document.createElement("script"); s.src = "data:text/javascript,window.ran=1"; document.body.append(s); },
              () => { document.querySelector("main").setAttribute("onclick", "window.ran = 1"); document.querySelector("main").click(); },
            ]) {
              try { attempt(); } catch (e) { outcome.push(e.name); }
            }
            return outcome;
        """
        self.browser.script(tried)
        eventually(lambda: len(self.browser.script("return window.violations")) >= 3, "the policy stops them")
        self.assertEqual(0, self.browser.script("return window.ran"))
        self.assertEqual(0, self.browser.script("return document.querySelectorAll('main b').length"))


class Large(PageScenario):
    COUNT = 1000

    def test_a_thousand_data_planes(self):
        a = self.origin("a")
        cp = self.control_plane(self.config({"/x": [a]}))
        self.program(Simulated(cp, self.COUNT, self.dir / "dataplanes.log"))
        eventually(lambda: sum(d["state"] == "applied" for d in cp.data_planes().values()) == self.COUNT, "all have applied", within=60)
        self.open(cp)
        eventually(lambda: self.browser.text("#planes-total") == "1,000", "all are counted", within=60)
        ids = sorted(cp.data_planes())
        self.assertEqual(str(self.COUNT + 1), self.browser.script("return document.querySelector('#fleet-table').getAttribute('aria-rowcount')"))
        self.assertLess(len(self.rows()), 100, "only what is seen is made")

        sent, plain = self.browser.script("const e = performance.getEntriesByName(location.origin + '/api/v1/status').at(-1); return [e.transferSize, e.decodedBodySize]")
        self.say("the status of 1,000 data planes: %d bytes, uncompressed %d" % (sent, plain))

        # Every row is there when one scrolls to it.
        seen: set[str] = set()
        self.browser.script("scrollTo(0, 0)")
        while True:
            before = self.browser.script("return scrollY")
            eventually(lambda: not seen.issuperset(new := {row[0] for row in self.rows()}) and (seen.update(new) or True) or len(seen) == self.COUNT, "there are more rows")
            self.browser.script("scrollBy(0, innerHeight)")
            if self.browser.script("return scrollY") == before:
                break
        eventually(lambda: seen.update(row[0] for row in self.rows()) or len(seen) == self.COUNT, "all have been seen")
        self.assertEqual(ids, sorted(seen))

        # The search finds one of a thousand, from the keyboard.
        self.browser.press("/")
        self.assertEqual("fleet-search", self.browser.script("return document.activeElement.id"))
        self.browser.type("#fleet-search", ids[617])
        self.wait_equal([ids[617]], lambda: [row[0] for row in self.rows()])
        self.assertEqual("1 of 1,000 data planes", self.browser.text("#fleet-shown"))
        self.browser.script("const s = document.querySelector('#fleet-search'); s.value = ''; s.dispatchEvent(new Event('input'))")

        # Sorted the other way round by a click on the head, which says so.
        self.browser.script("scrollTo(0, 0)")
        self.browser.click("#fleet-head .id button")
        eventually(lambda: self.rows()[0][0] == max(ids, key=natural), "the last one is the first")
        self.assertEqual("descending", self.browser.script("return document.querySelector('#fleet-head .id').getAttribute('aria-sort')"))
        self.assert_nothing_went_wrong()


def natural(name: str) -> tuple[str, int]:
    """Sorts names that end with a number as people do."""
    head = name.rstrip("0123456789")
    return head, int(name[len(head):] or 0)
