"""A bad file never takes traffic down, and whoever saved it learns why."""

import re

from e2e.harness import Load, Scenario, eventually, get, run
from e2e.harness.scenario import write


class BadFile(Scenario):
    def wait_refused(self, cp) -> dict:
        def refused():
            status = cp.status()
            return status if status["config"]["lastLoad"] == "error" else None

        return eventually(refused, "the file is refused")

    def test_traffic_goes_on_and_the_reason_is_shown(self):
        a = self.origin("a")
        good = self.config({"/x": [a], "/y": [a]})
        cp, dps = self.fleet(good, ["dp1", "dp2"])
        before = cp.status()
        with Load(self.port, {"/x": "a", "/y": "a"}) as load:
            write(cp.config, good.replace("- from: /x", "- fron: /x"))
            status = self.wait_refused(cp)
            self.assertRegex(status["config"]["error"], r'controlplane\.yaml:\d+:\d+: .*did you mean "from"\?')
            self.assertEqual((before["version"], before["revision"]), (status["version"], status["revision"]))
            self.assertEqual({"applied"}, {d["state"] for d in status["dataplanes"]})
            self.assertEqual(0, cp.metrics().value("controlplane_config_last_load_successful"))
            self.assertIn("did you mean", cp.log())
            self.wait_load(load)

            write(cp.config, self.config({"/x": [a], "/y": [a], "/z": [a]}))
            status = self.wait_applied(cp, dps, after=before["revision"])
            self.assertEqual("ok", status["config"]["lastLoad"])
            self.assertFalse(status["config"].get("error"))
            self.assertEqual(1, cp.metrics().value("controlplane_config_last_load_successful"))
            self.wait_load(load)
        self.assert_no_failures(load)

    def test_a_file_that_vanishes_changes_nothing(self):
        a = self.origin("a")
        cp, (dp,) = self.fleet(self.config({"/x": [a]}))
        cp.config.unlink()
        self.wait_refused(cp)
        self.assertEqual("a", get(self.port, "/x").text)
        before = cp.status()["revision"]
        write(cp.config, self.config({"/x": [a], "/y": [a]}))
        self.wait_applied(cp, [dp], after=before)

    def test_half_a_file_is_refused(self):
        a = self.origin("a")
        cp, _ = self.fleet(self.config({"/x": [a]}))
        for text in ("", "# nothing\n", "port: %d\n" % self.port, "port: %d\nendpoints:\n" % self.port):
            with self.subTest(text=text):
                write(cp.config, text)
                self.wait_refused(cp)
                self.assertEqual("a", get(self.port, "/x").text)
                write(cp.config, self.config({"/x": [a]}))
                eventually(lambda: cp.status()["config"]["lastLoad"] == "ok", "the good file is accepted")

    def test_an_invalid_file_at_the_start_is_exit_status_1(self):
        path = self.dir / "bad.yaml"
        path.write_text("port: 70000\nendpoints:\n- from: index\n  pool: []\n")
        p = run("controlplane", "serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", str(path), timeout=30)
        self.assertEqual(1, p.returncode, p.stderr)
        # All problems in one go.
        for line in (1, 3, 4):
            self.assertRegex(p.stderr, r"bad\.yaml:%d:\d+: " % line)


class Guard(Scenario):
    """An update that would drop most endpoints is refused until told."""

    def setUp(self):
        super().setUp()
        self.a = self.origin("a")

    def text(self, n: int, first: str = "") -> str:
        text = self.config({"/%d" % i: [self.a] for i in range(n)})
        if n == 0:
            text = "port: %d\nendpoints: []\n" % self.port
        return first + text

    def refused(self, cp, status_code_of="/11") -> str:
        status = eventually(
            lambda: (s := cp.status())["config"]["lastLoad"] == "error" and s, "the loss of endpoints is refused"
        )
        self.assertEqual(200, get(self.port, status_code_of).status)
        return status["config"]["error"]

    def test_dropping_more_than_half_needs_the_line_that_the_error_shows(self):
        cp, (dp,) = self.fleet(self.text(12))
        write(cp.config, self.text(5))
        error = self.refused(cp)
        line = re.search(r"acknowledgeDrop: *\"?[0-9a-f]{8,}\"?", error)
        self.assertIsNotNone(line, error)
        self.change(cp, self.text(5, line[0] + "\n"), dp)
        self.assertEqual((200, 404), (get(self.port, "/4").status, get(self.port, "/5").status))

        # An acknowledgement is for one table: left in the file, it does nothing.
        self.change(cp, self.text(12, line[0] + "\n"), dp)
        write(cp.config, self.text(5, line[0] + "\n# again\n"))
        # The version that is replaced is the same as the first time, so this
        # one does count; the next, from another table, does not.
        self.wait_applied(cp, [dp])
        self.change(cp, self.text(13, line[0] + "\n"), dp)
        write(cp.config, self.text(5, line[0] + "\n# and again\n"))
        self.refused(cp)

    def test_dropping_everything_needs_force(self):
        cp, (dp,) = self.fleet(self.text(12))
        nothing = self.dir / "nothing.yaml"
        nothing.write_text(self.text(0))
        p = cp.cli("apply", str(nothing))
        self.assertEqual(1, p.returncode, p.stdout + p.stderr)
        self.assertIn("--force", p.stdout + p.stderr)
        self.assertEqual(200, get(self.port, "/0").status)
        p = cp.cli("apply", "--force", "--wait", "--timeout", "20s", str(nothing))
        self.assertEqual(0, p.returncode, p.stdout + p.stderr)
        self.assertEqual(404, get(self.port, "/0").status)

    def test_dropping_half_of_a_few_is_everyday_work(self):
        cp, (dp,) = self.fleet(self.text(4))
        self.change(cp, self.text(1), dp)
        self.assertEqual(404, get(self.port, "/3").status)
