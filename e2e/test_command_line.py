"""What the programs print, and their exit statuses."""

from e2e.harness import Scenario, get, run
from e2e.harness.processes import ROOT

CONFIG = """\
port: 8000
endpoints:
- name: shop
  from: /index
  host: shop.example.com
  methods: [GET]
  pool: [http://localhost:5000/index-proxied]
- name: assets
  from: /assets/*
  pool:
  - http://localhost:5003/static?v=1
- name: beta
  from: /index
  headers: {x-beta: "1"}
  pool: [http://localhost:5001]
"""


class CommandLine(Scenario):
    def write(self, text: str, name: str = "c.yaml") -> str:
        path = self.dir / name
        path.write_text(text)
        return str(path)


class Programs(CommandLine):
    def test_help_and_version(self):
        versions = []
        for program in ("controlplane", "dataplane"):
            with self.subTest(program):
                p = run(program, "--help")
                self.assertEqual(0, p.returncode, p.stderr)
                self.assertIn("--log-level", p.stdout + p.stderr)
                p = run(program, "--version")
                self.assertEqual(0, p.returncode, p.stderr)
                versions.append(p.stdout.removeprefix(program).strip())
        # Both were built by the same make.
        self.assertNotIn("", versions)
        self.assertEqual(1, len(set(versions)), versions)

    def test_both_programs_of_a_build_have_one_version(self):
        versions = {run(program, "--version").stdout.split()[-1] for program in ("controlplane", "dataplane")}
        self.assertEqual(1, len(versions), versions)

    def test_wrong_usage_is_exit_status_2(self):
        for args in (
            ["controlplane"],
            ["controlplane", "--no-such-flag", "x.yaml"],
            ["controlplane", "validate"],
            ["controlplane", "explain"],
            ["controlplane", "apply"],
            ["controlplane", "status", "-o", "xml"],
            ["controlplane", "serve", "a.yaml", "b.yaml"],
            ["dataplane", "--no-such-flag"],
            ["dataplane", "surplus"],
            ["dataplane", "--log-format", "xml"],
        ):
            with self.subTest(" ".join(args)):
                p = run(*args, timeout=10)
                self.assertEqual(2, p.returncode, p.stdout + p.stderr)
                self.assertNotEqual("", p.stderr.strip())

    def test_an_address_that_is_taken_is_exit_status_1(self):
        a = self.origin("a")
        cp, (dp,) = self.fleet(self.config({"/x": [a]}))
        p = run("controlplane", "serve", "--listen", cp.server, "--admin", "127.0.0.1:0", str(cp.config), timeout=20)
        self.assertEqual(1, p.returncode, p.stderr)
        self.assertIn(cp.server, p.stderr)
        p = run("dataplane", "--admin", "127.0.0.1:%d" % dp.admin_port, "--state-dir", str(self.dir / "s"), timeout=20)
        self.assertEqual(1, p.returncode, p.stderr)
        self.assertIn(str(dp.admin_port), p.stderr)

    def test_grpc_off_loopback_needs_a_decision(self):
        path = self.write(CONFIG)
        p = run("controlplane", "serve", "--listen", "0.0.0.0:0", "--admin", "127.0.0.1:0", path, timeout=20)
        self.assertIn(p.returncode, (1, 2), p.stderr)
        self.assertIn("--insecure", p.stderr)


class Validate(CommandLine):
    def test_good_files(self):
        p = run("controlplane", "validate", self.write(CONFIG), str(ROOT / "configs" / "demo.yaml"))
        self.assertEqual(0, p.returncode, p.stdout + p.stderr)

    def test_the_samples_are_valid(self):
        samples = [p for p in sorted((ROOT / "configs").glob("*.yaml"))]
        self.assertIn("demo.yaml", [s.name for s in samples])
        for sample in samples:
            with self.subTest(sample.name):
                p = run("controlplane", "validate", str(sample))
                self.assertEqual(0, p.returncode, p.stdout + p.stderr)

    def test_every_problem_of_every_file_is_printed(self):
        one = self.write("port: 8000\nendpoints:\n- fron: /x\n  pool: [http://h]\n- from: y\n  pool: []\n", "one.yaml")
        two = self.write("prot: 1\nendpoints: []\n", "two.yaml")
        p = run("controlplane", "validate", self.write(CONFIG), one, two)
        output = p.stdout + p.stderr
        self.assertEqual(1, p.returncode, output)
        self.assertRegex(output, r'one\.yaml:3:3: .*fron.*did you mean "from"\?')
        self.assertRegex(output, r"one\.yaml:5:9: ")
        self.assertRegex(output, r"one\.yaml:6:9: .*pool")
        self.assertRegex(output, r'two\.yaml:1:1: .*did you mean "port"\?')
        self.assertNotIn("c.yaml", p.stderr)

    def test_a_file_that_is_not_there(self):
        p = run("controlplane", "validate", str(self.dir / "none.yaml"))
        self.assertEqual(1, p.returncode)
        self.assertIn("none.yaml", p.stdout + p.stderr)


class Explain(CommandLine):
    def explain(self, *args: str) -> str:
        p = run("controlplane", "explain", "--config", self.write(CONFIG), *args)
        self.assertIn(p.returncode, (0, 1), p.stderr)
        return p.stdout + p.stderr

    def test_the_endpoint_and_what_the_backend_gets(self):
        out = self.explain("http://shop.example.com/index?q=1")
        self.assertIn("shop", out)
        self.assertIn("GET /index-proxied?q=1 HTTP/1.1", out)
        # Why not the others.
        self.assertRegex(out, r"(?m)beta.*x-beta")

        out = self.explain("http://any/assets/a%2Fb?x=1")
        self.assertIn("GET /static/a%2Fb?v=1&x=1 HTTP/1.1", out)

        out = self.explain("-H", "X-Beta: 1", "http://other/index")
        self.assertIn("GET /index HTTP/1.1", out)

    def test_answers_of_the_proxy_itself(self):
        self.assertIn("404", self.explain("http://shop.example.com/nowhere"))
        self.assertIn("405", self.explain("-X", "POST", "http://shop.example.com/index"))
        self.assertIn("400", self.explain("http://shop.example.com/../x"))

    def test_asked_of_a_running_control_plane_it_says_the_truth(self):
        a = self.origin("a")
        cp, _ = self.fleet(self.config({"/x/*": [a.url + "/base"]}))
        p = cp.cli("explain", "http://h/x/y?z")
        self.assertEqual(0, p.returncode, p.stderr)
        target = get(self.port, "/x/y?z").get("X-Target")
        self.assertEqual("/base/y?z", target)
        self.assertIn("GET %s HTTP/1.1" % target, p.stdout)
