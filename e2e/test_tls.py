"""Mutual TLS between the planes and the command line."""

import json
import pathlib
import shlex

from e2e.harness import ControlPlane, DataPlane, Load, Scenario, eventually, get, run
from e2e.harness.certificates import expire


class Encrypted(Scenario):
    """Certificates in self.certs: a CA, a control plane main, an operator admin."""

    def setUp(self):
        super().setUp()
        self.certs = self.dir / "certs"
        self.make("init")

    def make(self, *args: str, certs: pathlib.Path | None = None) -> str:
        """Runs controlplane certs."""
        p = run("controlplane", "certs", args[0], "--dir", str(certs or self.certs), *args[1:])
        self.assertEqual(0, p.returncode, p.stderr)
        return p.stdout

    def issue(self, name: str, certs: pathlib.Path | None = None) -> None:
        self.make("issue", "--dataplane", name, certs=certs)

    def flags(self, owner: str, certs: pathlib.Path | None = None, ca: pathlib.Path | None = None) -> list[str]:
        """--tls-… for an owner such as dataplane-dp1."""
        base = (certs or self.certs) / owner
        return ["--tls-ca", str(ca or base.parent / "ca.crt"), "--tls-cert", "%s.crt" % base, "--tls-key", "%s.key" % base]

    def operator(self, name: str = "operator-admin", certs: pathlib.Path | None = None) -> dict[str, str]:
        """The same as an environment."""
        names = ("CONTROLPLANE_TLS_CA", "CONTROLPLANE_TLS_CERT", "CONTROLPLANE_TLS_KEY")
        return dict(zip(names, self.flags(name, certs)[1::2]))

    def encrypted(self, config: str) -> ControlPlane:
        cp = self.control_plane(config, *self.flags("controlplane-main"))
        cp.client_env = self.operator()
        return cp

    def edge(self, name: str, cp: ControlPlane) -> DataPlane:
        """A data plane with a certificate of its own."""
        if not (self.certs / ("dataplane-%s.crt" % name)).exists():
            self.issue(name)
        return self.data_plane(name, cp, flags=self.flags("dataplane-%s" % name))

    def logs(self, program, text: str) -> None:
        """Waits for a record that has the text in its message or error."""
        eventually(
            lambda: any(text in r.get("msg", "") + " " + str(r.get("error", "")) for r in program.records()),
            "%s logs %r" % (program.name, text),
        )


class Fleet(Encrypted):
    def test_two_commands_and_what_they_print_make_a_fleet(self):
        config = self.dir / "config.yaml"
        a = self.origin("a")
        config.write_text(self.config({"/x": [a]}))
        shown = self.make("init", certs=self.dir / "more")
        (serve,) = [line for line in shown.splitlines() if line.startswith("  controlplane --listen")]
        shown = self.make("issue", "--dataplane", "edge 1", certs=self.dir / "more")
        (start,) = [line for line in shown.splitlines() if line.startswith("  dataplane ")]

        cp = self.encrypted(config.read_text())
        cp.kill()
        serve = serve.replace("0.0.0.0:18000", cp.server).replace("CONFIG", str(cp.config))
        cp.argv = [cp.argv[0], *shlex.split(serve)[1:], "--admin", "127.0.0.1:%d" % cp.admin_port, "--log-format", "json"]
        cp.start()
        self.wait_control_plane(cp)
        dp = self.data_plane("edge 1", cp)
        dp.kill()
        # It is called what its certificate says.
        own = dp.argv[dp.argv.index("--admin") :]
        del own[own.index("--id") : own.index("--id") + 2]
        dp.argv = [dp.argv[0], *shlex.split(start.replace("HOST:18000", cp.server))[1:], *own]
        dp.start()
        self.wait_applied(cp, [dp])
        self.assertEqual("a", get(self.port, "/x").text)

        cp.client_env = self.operator(certs=self.dir / "more")
        b = self.origin("b")
        config.write_text(self.config({"/x": [b]}))
        p = cp.cli("apply", str(config), "--wait")
        self.assertEqual(0, p.returncode, p.stdout + p.stderr)
        self.assertEqual("b", get(self.port, "/x").text)
        p = cp.cli("history", "-o", "json")
        self.assertEqual(0, p.returncode, p.stderr)
        self.assertEqual("admin", json.loads(p.stdout)["revisions"][0]["author"], "the author is in the certificate")
        for plane, metrics in ("controlplane", cp.metrics()), ("dataplane", dp.metrics()):
            self.assertGreater(metrics.value(plane + "_tls_certificate_expiry_timestamp_seconds"), 0)

    def test_who_may_not_is_told_why(self):
        a = self.origin("a")
        config = self.config({"/x": [a]})
        cp = self.encrypted(config)
        dp = self.edge("dp1", cp)
        self.wait_applied(cp, [dp])
        other = self.dir / "other"
        self.make("init", certs=other)
        self.issue("dp3", other)
        self.issue("dp4")
        expire(self.certs / "dataplane-dp4.crt", self.certs / "ca.key")

        with self.subTest("another's id"):
            liar = self.data_plane("dp2", cp, flags=self.flags("dataplane-dp1"))
            text = 'says that it is "dp2", and its certificate is that of "dp1"'
            self.logs(liar, text)
            self.logs(cp, text)
        with self.subTest("a CA that the control plane does not know"):
            stranger = self.data_plane("dp3", cp, flags=self.flags("dataplane-dp3", other, self.certs / "ca.crt"))
            self.logs(stranger, "the control plane refuses the certificate in ")
            self.logs(stranger, "unknown certificate authority")
            self.logs(cp, "the certificate of data plane dp3 is from ")
        with self.subTest("a CA that the data plane does not know"):
            stranger = self.data_plane("dp5", cp, flags=self.flags("dataplane-dp3", other))
            self.logs(stranger, "the certificate of control plane main is from ")
            self.logs(stranger, "which is none of the CAs in %s" % (other / "ca.crt"))
        with self.subTest("expired"):
            late = self.data_plane("dp4", cp, flags=self.flags("dataplane-dp4"))
            self.logs(late, "certificate has expired: nobody will accept it")
            self.logs(late, "expired on 2001-01-01 00:00 UTC): expired certificate")
            self.logs(cp, "the certificate of data plane dp4 expired on 2001-01-01 00:00 UTC")
            # A new one is all that it needs.
            self.make("issue", "--dataplane", "dp4", "--force")
            self.wait_applied(cp, [dp, late])
        with self.subTest("plaintext"):
            plain = self.data_plane("dp6", cp)
            self.logs(plain, "as a control plane with encryption does: give --tls-ca, --tls-cert and --tls-key")
            self.logs(cp, "the client speaks without encryption")
        with self.subTest("a plaintext control plane"):
            open_cp = self.control_plane(config, name="open")
            self.logs(self.edge("dp7", open_cp), "what listens there speaks without encryption")
        with self.subTest("an operator as data plane, and a data plane as control plane"):
            p = run("dataplane", "--admin", "127.0.0.1:0", *self.flags("operator-admin"))
            self.assertEqual(1, p.returncode)
            self.assertIn("is the certificate of operator admin, and that of a data plane is needed", p.stderr)
            p = run("controlplane", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", *self.flags("dataplane-dp1"), str(cp.config))
            self.assertEqual(1, p.returncode)
            self.assertIn("is the certificate of data plane dp1, and that of a control plane is needed", p.stderr)
        with self.subTest("a data plane that applies"):
            new = self.dir / "new.yaml"
            new.write_text(self.config({"/x": [a], "/y": [a]}))
            cp.client_env = self.operator("dataplane-dp1")
            for args in (["apply", str(new)], ["status"]):
                p = cp.cli(*args)
                self.assertEqual(1, p.returncode, p.stdout)
                self.assertIn("is for operators, and this is the certificate of data plane dp1", p.stderr)
            self.assertEqual(config, cp.config.read_text())
            cp.client_env = {}
            p = cp.cli("status")
            self.assertEqual(1, p.returncode, p.stdout)
            self.assertIn("as a control plane with encryption does", p.stderr)

        # None of this has changed anything.
        self.assertEqual(["dp1", "dp4"], [d["id"] for d in cp.status()["dataplanes"]])
        self.assertEqual(1, cp.status()["revision"])
        self.assertEqual("a", get(self.port, "/x").text)

    def test_plaintext_beyond_this_machine_and_half_of_the_files_are_wrong_usage(self):
        some = self.flags("controlplane-main")[:4]
        for args, text in (
            (["controlplane", "--listen", "0.0.0.0:0", "x.yaml"], "--tls-ca, --tls-cert and --tls-key"),
            (["controlplane", *some, "x.yaml"], "no --tls-key"),
            (["controlplane", "status", *some], "no --tls-key"),
            (["controlplane", "status", "--server", "192.0.2.1:18000"], "--tls-ca, --tls-cert and --tls-key"),
            (["dataplane", *some], "no --tls-key"),
            (["dataplane", "--controlplane", "192.0.2.1:18000"], "--tls-ca, --tls-cert and --tls-key"),
        ):
            with self.subTest(args):
                p = run(*args, timeout=20)
                self.assertEqual(2, p.returncode, p.stderr)
                self.assertIn(text, p.stderr)


class Rotation(Encrypted):
    def setUp(self):
        super().setUp()
        a = self.origin("a", record=False)
        self.cp = self.encrypted(self.config({"/x": [a]}))
        self.dp = self.edge("dp1", self.cp)
        self.wait_applied(self.cp, [self.dp])

    def replaced(self, program) -> int:
        """How often a program has taken new files into use."""
        return sum(r.get("msg") == "certificates replaced" for r in program.records())

    def rotate(self, what: str, do, *programs) -> None:
        """Waits until the programs use what do has put there."""
        before = [self.replaced(p) for p in programs]
        do()
        for p, n in zip(programs, before):
            eventually(lambda p=p, n=n: self.replaced(p) > n, "%s: %s" % (p.name, what))

    def assert_accepted(self, certs: pathlib.Path | None = None) -> None:
        """A new connection of the command line."""
        self.cp.client_env = self.operator(certs=certs)
        p = self.cp.cli("status")
        self.assertEqual(0, p.returncode, p.stderr)

    def test_leaves_and_ca_are_replaced_while_the_stream_stays_open(self):
        new = self.dir / "new"
        self.make("init", certs=new)
        self.issue("dp1", new)
        self.issue("dp2", new)
        ca = self.certs / "ca.crt"
        old_ca, new_ca = ca.read_text(), (new / "ca.crt").read_text()
        session = self.session()

        def renew_leaves():
            self.make("issue", "--controlplane", "main", "--days", "30", "--force")
            self.make("issue", "--dataplane", "dp1", "--days", "30", "--force")

        def take_new_leaves():
            for owner in ("controlplane-main", "dataplane-dp1"):
                for kind in (".crt", ".key"):
                    save(self.certs / (owner + kind), (new / (owner + kind)).read_text())

        with Load(self.port, {"/x": "a"}) as load:
            self.wait_load(load)
            year = self.cp.metrics().value("controlplane_tls_certificate_expiry_timestamp_seconds")
            self.rotate("new leaves", renew_leaves, self.cp, self.dp)
            self.assertLess(self.cp.metrics().value("controlplane_tls_certificate_expiry_timestamp_seconds"), year)
            self.assert_accepted()
            self.rotate("both CAs", lambda: save(ca, old_ca + new_ca), self.cp, self.dp)
            self.rotate("leaves of the new CA", take_new_leaves, self.cp, self.dp)
            self.assert_accepted()
            old = {**self.operator(), "CONTROLPLANE_TLS_CA": str(new / "ca.crt")}
            self.rotate("the new CA alone", lambda: save(ca, new_ca), self.cp, self.dp)
            self.assert_accepted(new)
            self.cp.client_env = old
            p = self.cp.cli("status")
            self.assertEqual(1, p.returncode, p.stdout)
            self.assertIn("unknown certificate authority", p.stderr)
            # One that comes now, and one whose stream has been open all the time.
            dp2 = self.data_plane("dp2", self.cp, flags=self.flags("dataplane-dp2", new))
            self.wait_applied(self.cp, [self.dp, dp2])
            self.wait_load(load)
        self.assert_no_failures(load)
        self.assertEqual(session, self.session())
        messages = [r["msg"] for r in self.dp.records()]
        self.assertEqual(1, messages.count("control plane connected"), messages)
        self.assertNotIn("control plane lost", messages)
        self.say("leaf and CA replaced under load: %d requests, 0 lost, 1 stream" % load.total())

        # And it comes back with what it has now.
        self.cp.kill()
        self.cp.start()
        self.wait_control_plane(self.cp)
        self.wait_applied(self.cp, [self.dp, dp2])

    def session(self) -> tuple:
        """What tells the stream of dp1 from another one."""
        return [r["session"] for r in self.cp.records() if r.get("msg") == "data plane connected" and r.get("id") == "dp1"]

    def test_files_that_do_not_fit_are_said_once_and_change_nothing(self):
        key = self.certs / "controlplane-main.key"
        good = key.read_text()
        for bad, text in (
            (good[: len(good) // 2], "failed to find any PEM data in key input"),
            ((self.certs / "operator-admin.key").read_text(), "private key does not match public key"),
        ):
            key.write_text(bad)
            self.logs(self.cp, "controlplane-main.key: tls: " + text)
            self.assert_accepted()
            self.rotate("the good key is back", lambda: key.write_text(good), self.cp)
        said = [r["error"] for r in self.cp.records() if r["msg"].startswith("certificates cannot be used")]
        self.assertEqual(2, len(said), said)


def save(path: pathlib.Path, text: str) -> None:
    """In the place of the file, in one step."""
    beside = path.with_suffix(".new")
    beside.write_text(text)
    beside.replace(path)
