"""A change is planned against the requests that the fleet has seen, and a file says itself what it is to do."""

import json
import os
import pty
import signal
import subprocess
import threading

from e2e.harness import Scenario, eventually, get
from e2e.harness.processes import BUILD, ControlPlane, run
from e2e.harness.scenario import write

SECRET = "Sw0rdf1sh"


class Plan(Scenario):
    def setUp(self):
        super().setUp()
        self.a, self.b = self.origin("a"), self.origin("b")
        self.new = self.dir / "new.yaml"

    def plan(self, cp: ControlPlane, config: str) -> tuple[int, dict, str]:
        """The exit status, the JSON form and the words of a plan."""
        self.new.write_text(config)
        words = cp.cli("plan", str(self.new))
        form = cp.cli("plan", "-o", "json", str(self.new))
        self.assertEqual((words.returncode, ""), (form.returncode, words.stderr + form.stderr))
        return form.returncode, json.loads(form.stdout), words.stdout

    def send(self, path: str, times: int) -> None:
        for _ in range(times):
            self.assertEqual(200, get(self.port, path, host="shop.example.com").status)

    def wait_seen(self, cp: ControlPlane, samples: int, *requests: str) -> None:
        """Waits for so many samples, and until these requests are among them, by a plan
        that removes everything. A few are missing that came while samples were collected."""
        nothing = self.config({"/nothing": [self.a]})

        def seen():
            plan = self.plan(cp, nothing)[1]
            return plan["basis"]["samples"] >= samples and set(requests) <= {e for i in plan["impacts"] for e in i["examples"]}

        eventually(seen, "they are sampled")

    def test_what_live_and_idle_endpoints_mean(self):
        pools = {"/home/*": [self.a], "/cart": [self.a, self.b], "/idle": [self.a], "/*": [self.b]}
        cp, dps = self.fleet(self.config(pools), ["dp1", "dp2"])
        status, plan, words = self.plan(cp, self.config({"/home/*": [self.a], "/cart": [self.a]}))
        self.assertEqual((0, []), (status, plan["impacts"]), "nothing has been seen")

        self.send("/cart", 10)
        self.send("/home/x?token=%s" % SECRET, 30)
        self.send("/home/new/y?%s" % SECRET, 10)
        # An endpoint without requests.
        rest = {path: pool for path, pool in pools.items() if path != "/idle"}
        self.wait_seen(cp, 45, *("GET shop.example.com" + path for path in ("/home/x", "/home/new/y", "/cart")))
        status, plan, words = self.plan(cp, self.config(rest))
        self.assertEqual((0, False, []), (status, plan["losesTraffic"], plan["impacts"]), words)
        self.assertEqual([{"kind": "removed", "subject": "endpoint /idle", "detail": "", "endpoint": "/idle"}], plan["changes"])
        self.assertIn("all would go where they go now", words)
        self.assertEqual(2, plan["basis"]["dataplanes"])

        # One that has some, and nobody else takes them.
        status, plan, words = self.plan(cp, self.config({"/cart": [self.a, self.b]}))
        self.assertEqual((3, True), (status, plan["losesTraffic"]), words)
        self.assertAlmostEqual(0.8, plan["basis"]["lost"], delta=0.1)
        home = next(i for i in plan["impacts"] if "removes endpoint /home/*" in i["text"])
        self.assertTrue(home["losesTraffic"] and home["text"].endswith(", which would get 404"), home)
        self.assertEqual({"GET shop.example.com/home/x", "GET shop.example.com/home/new/y"}, set(home["examples"]))
        self.assertIn("! removes endpoint /home/*", words)

        # Another one takes them.
        status, plan, words = self.plan(cp, self.config({"/cart": [self.a, self.b], "/*": [self.b]}))
        self.assertEqual((0, False), (status, plan["losesTraffic"]), words)
        self.assertIn("which endpoint /* would take", words)

        # A share of them moves, and a pool shrinks.
        status, plan, words = self.plan(cp, self.config({**pools, "/cart": [self.a], "/home/new/*": [self.b]}))
        self.assertEqual(0, status, words)
        self.assertAlmostEqual(0.2, plan["basis"]["moved"], delta=0.1)
        self.assertRegex(words, r"% of the sampled requests would go from endpoint /home/\* to /home/new/\*")
        self.assertIn("leaves endpoint /cart 1 of 2 backends", words)

        # One is left without a backend.
        drained = '{url: "%s", weight: 0}' % self.a.url
        status, plan, words = self.plan(cp, self.config({**pools, "/home/*": [drained]}))
        self.assertEqual(3, status, words)
        self.assertRegex(words, r"! leaves endpoint /home/\* without a backend: .*, which would get 503")

        # Nothing of that has changed anything, and nobody was told of the query.
        self.assertEqual(1, cp.status()["revision"])
        self.assertNotIn(SECRET, json.dumps(plan) + words + "".join(p.log() for p in (cp, *dps)))

    def test_what_is_said_when_little_is_known(self):
        pools = {"/home": [self.a], "/cart": [self.a]}
        less = self.config({"/cart": [self.a]})
        cp = self.control_plane(self.config(pools))
        status, plan, words = self.plan(cp, less)
        self.assertEqual((0, 0), (status, plan["basis"]["dataplanes"]))
        self.assertIn("no traffic has been seen", words)

        # Without samples the rates are left, and what the endpoints match.
        dp = self.data_plane("dp", cp, flags=["--no-sample"])
        self.wait_applied(cp, [dp])

        def lost():
            self.send("/home", 5)
            status, plan, words = self.plan(cp, less)
            return (plan, words) if status == 3 else None

        plan, words = eventually(lost, "the rate is known")
        self.assertEqual((0, 0), (plan["basis"]["samples"], plan["basis"]["lost"]))
        self.assertRegex(words, r"! removes endpoint /home: .*, which would get 404")

    def test_a_bad_file_has_no_plan(self):
        cp = self.control_plane(self.config({"/x": [self.a]}))
        self.new.write_text(self.config({"/x": []}))
        p = cp.cli("plan", str(self.new))
        self.assertEqual((1, ""), (p.returncode, p.stdout))
        self.assertRegex(p.stderr, r"new\.yaml:\d+:\d+: ")


class Terminal:
    """apply with a terminal as its input and output."""

    def __init__(self, cp: ControlPlane, *args: str):
        self.main, end = pty.openpty()
        argv = [str(BUILD / "controlplane"), "apply", "--server", cp.server, *args]
        self.process = subprocess.Popen(
            argv, stdin=end, stdout=end, stderr=subprocess.STDOUT, start_new_session=True, env={**os.environ, "TERM": "xterm"}
        )
        os.close(end)
        self.text = ""
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self) -> None:
        try:
            while data := os.read(self.main, 4096):
                self.text += data.decode(errors="replace")
        except OSError:
            pass  # the program has ended

    def asked(self) -> None:
        eventually(lambda: "Apply? [y/N] " in self.text, "it asks; so far: " + self.text)

    def end(self) -> int:
        status = self.process.wait(20)
        self.reader.join(20)
        os.close(self.main)
        return status


class Consent(Scenario):
    def setUp(self):
        super().setUp()
        self.a = self.origin("a")
        self.cp, _ = self.fleet(self.config({"/x": [self.a], "/y": [self.a]}))
        self.new = self.dir / "new.yaml"
        self.new.write_text(self.config({"/x": [self.a]}))

    def terminal(self, *args: str) -> Terminal:
        t = Terminal(self.cp, str(self.new), *args)
        self.addCleanup(t.process.kill)
        return t

    def test_nothing_is_applied_without_a_yes(self):
        for name, answer in (("no", b"n\n"), ("nothing", b"\n"), ("something else", b"maybe\n"), ("the end of the input", b"\x04")):
            with self.subTest(name):
                t = self.terminal()
                t.asked()
                os.write(t.main, answer)
                self.assertEqual(1, t.end(), t.text)
                self.assertIn("not applied; nothing has changed", t.text)
                self.assertIn("endpoint /y", t.text)
                self.assertEqual(1, self.cp.status()["revision"])
        with self.subTest("interrupted"):
            t = self.terminal()
            t.asked()
            t.process.send_signal(signal.SIGINT)
            self.assertEqual(1, t.end(), t.text)
            self.assertEqual(1, self.cp.status()["revision"])

    def test_it_is_applied_after_a_yes(self):
        t = self.terminal("--wait")
        t.asked()
        os.write(t.main, b"y\n")
        self.assertEqual(0, t.end(), t.text)
        self.assertIn("applied by 1 data plane", t.text)
        self.assertEqual((2, 404), (self.cp.status()["revision"], get(self.port, "/y").status))
        self.assertEqual(self.new.read_text(), self.cp.config.read_text())

    def test_it_is_not_asked_where_nobody_could_answer_or_nothing_changes(self):
        t = self.terminal("--yes")
        self.assertEqual(0, t.end(), t.text)
        self.assertNotIn("[y/N]", t.text)
        self.assertEqual(2, self.cp.status()["revision"])
        t = self.terminal()  # once more
        self.assertEqual(0, t.end(), t.text)
        self.assertIn("nothing would change", t.text)
        # A script, whose input may be anything.
        self.new.write_text(self.config({"/x": [self.a], "/z": [self.a]}))
        p = self.cp.cli("apply", str(self.new))
        self.assertEqual(0, p.returncode, p.stdout + p.stderr)
        self.assertIn("+ endpoint /z", p.stdout)
        self.assertEqual(3, self.cp.status()["revision"])
        self.new.write_text(self.config({"/x": [self.a]}))
        p = self.cp.cli("apply", "-o", "json", str(self.new))
        self.assertEqual((0, 4), (p.returncode, json.loads(p.stdout)["revision"]))
        # What is refused is not asked about.
        self.new.write_text("port: %d\nendpoints: []\n" % self.port)
        t = self.terminal()
        self.assertEqual(1, t.end(), t.text)
        self.assertNotIn("[y/N]", t.text)


class Assertions(Scenario):
    def test_a_file_that_does_something_else_than_it_says_is_refused(self):
        a, b = self.origin("a"), self.origin("b")
        tests = 'tests:\n- {request: {url: /x}, expect: {endpoint: /x, backendPath: /x}}\n- {request: {url: "/y?q"}, expect: {status: 404}}'
        cp, (dp,) = self.fleet(self.config({"/x": [a]}, extra=tests))
        before = cp.status()

        write(cp.config, self.config({"/x": [b], "/*": [b]}, extra=tests))
        status = eventually(
            lambda: cp.status() if cp.status()["config"]["lastLoad"] == "error" else None, "the edit is refused"
        )
        self.assertIn("tests[1].expect.status: GET /y?q: endpoint /* takes it", status["config"]["error"])
        self.assertEqual(before["version"], status["version"])
        self.assertEqual("a", get(self.port, "/x").text)
        validated = run("controlplane", "validate", str(cp.config))
        for p in (validated, cp.cli("plan", str(cp.config)), cp.cli("apply", str(cp.config))):
            self.assertEqual(1, p.returncode, p.stdout + p.stderr)
            self.assertIn("tests[1].expect.status: GET /y?q: endpoint /* takes it", p.stderr)

        # Without that endpoint it does what it says.
        self.change(cp, self.config({"/x": [b]}, extra=tests), dp)
        self.assertEqual(("b", 404), (get(self.port, "/x").text, get(self.port, "/y?q").status))
