"""What somebody does in the first five minutes: make run, the three things it
prints, Ctrl-C."""

import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import uuid

from e2e import demo
from e2e.harness import Program, Scenario, eventually, get
from e2e.harness.processes import ROOT

MARK = "REVERSEPROXY_E2E_MARK"


class Newcomer(Scenario):
    def setUp(self):
        super().setUp()
        # The demo's ports are part of what is printed and documented, so they
        # are the ones that are tested, when nobody else has them.
        for port in [*demo.BACKENDS, demo.CONTROL_PLANE, demo.CONTROL_PLANE_ADMIN, *demo.DATA_PLANES.values(), 8000, demo.PORT_OF_SECOND]:
            with socket.socket() as s:
                s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    s.bind(("127.0.0.1", port))
                except OSError:
                    self.skipTest("port %d of the demo is in use on this machine" % port)
        # A copy, because the scenario edits it.
        self.config = self.dir / "demo.yaml"
        shutil.copy(ROOT / "configs" / "demo.yaml", self.config)
        self.mark = uuid.uuid4().hex

    def make_run(self) -> Program:
        # As from a fresh shell, also when these tests were started by make.
        clean = ["env", "-u", "MAKEFLAGS", "-u", "MFLAGS", "-u", "MAKELEVEL", "%s=%s" % (MARK, self.mark)]
        p = Program("make run", [*clean, "make", "run", "CONFIG=%s" % self.config], self.dir / "make.log", ROOT)
        self.addCleanup(self.kill_marked)
        return self.program(p)

    def marked(self) -> list[int]:
        """Everything that make run started and that still lives."""
        pids = []
        for environ in pathlib.Path("/proc").glob("[0-9]*/environ"):
            try:
                if self.mark.encode() in environ.read_bytes():
                    pids.append(int(environ.parent.name))
            except OSError:
                continue
        return pids

    def kill_marked(self) -> None:
        for pid in self.marked():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue

    def shell(self, command: str) -> str:
        p = subprocess.run(command, shell=True, cwd=ROOT, capture_output=True, text=True, timeout=30)
        self.assertEqual(0, p.returncode, "%s: %s" % (command, p.stdout + p.stderr))
        return p.stdout

    def test_make_run_try_what_it_prints_and_stop(self):
        run = self.make_run()
        # With nothing built yet, make builds first.
        eventually(lambda: "Ctrl-C stops everything" in run.log(), "it says that it runs", within=180, every=0.1)
        commands = re.findall(r"(?m)^ {8,}(\S.*)$", run.log())
        self.assertEqual(2, len(commands), run.log())

        if shutil.which("curl"):
            answers = self.shell(commands[0])
        else:
            answers = "".join(get(8000, "/index").text for _ in range(2))
        self.assertEqual(["backend 5000", "backend 5002"], re.findall(r"backend \d+", answers))
        self.assertIn("/index-proxied", answers)

        text = self.config.read_text()
        self.assertIn("- from: /home", text)
        self.config.write_text(text.replace("- from: /home", "- from: /hello"))
        for port in (8000, demo.PORT_OF_SECOND):
            eventually(lambda: get(port, "/hello").status == 200, "the edit is applied on port %d" % port)

        def all_applied():
            # It is reported when it is also stored, a moment after it is served.
            lines = self.shell(commands[1]).splitlines()
            return all(any(name in line and "applied" in line for line in lines) for name in demo.DATA_PLANES)

        eventually(all_applied, "the status says that both have applied it")

        # Ctrl-C in a terminal signals the whole process group.
        os.killpg(run.pid, signal.SIGINT)
        run.wait(30)
        eventually(lambda: not self.marked(), "no process is left", within=10)
        self.assertNotIn("Traceback", run.log())

    def test_it_says_when_a_port_is_taken(self):
        with socket.create_server(("127.0.0.1", 5001)):
            run = self.make_run()
            self.assertNotEqual(0, run.wait(180))
        self.assertIn("port 5001 of this machine is in use", run.log())
        self.assertEqual([], self.marked())

    def test_it_says_when_one_of_them_dies(self):
        run = self.make_run()
        eventually(lambda: "Ctrl-C stops everything" in run.log(), "it says that it runs", within=180, every=0.1)
        (victim,) = [
            pid for pid in self.marked() if b"dp2" in pathlib.Path("/proc/%d/cmdline" % pid).read_bytes().split(b"\0")
        ]
        os.kill(victim, signal.SIGKILL)
        self.assertNotEqual(0, run.wait(30))
        self.assertIn("dp2 has ended", run.log())
        eventually(lambda: not self.marked(), "no process is left", within=10)


if not pathlib.Path("/proc/self/environ").exists():
    del Newcomer  # how it finds what is left needs Linux
