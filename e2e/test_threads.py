"""How many threads forward requests: what the flag says, else the CPUs that the
data plane may use."""

import contextlib
import os
import unittest

from e2e.harness import Client, Scenario


class Threads(Scenario):
    def setUp(self):
        super().setUp()
        self.a = self.origin("a")
        self.cp = self.control_plane(self.config({"/x": [self.a]}))

    def threads(self, *flags: str, **env: str) -> int:
        """Starts a data plane, has it answer on several connections, stops it, and
        returns how many threads it says it has."""
        # The test may run under a setting of its own.
        dp = self.data_plane("dp1", self.cp, flags=flags, env={"GOMAXPROCS": "", **env})
        self.wait_applied(self.cp, [dp])
        with contextlib.ExitStack() as stack:
            for c in [stack.enter_context(Client(self.port)) for _ in range(8)]:
                self.assertEqual(200, c.request("/x").status)
        n = dp.metrics().value("dataplane_threads")
        dp.terminate()
        self.assertEqual(0, dp.wait())
        return int(n)

    def test_the_flag_says_how_many(self):
        for n in (1, 3):
            self.assertEqual(n, self.threads("--threads", str(n)))

    def test_gomaxprocs_is_the_default(self):
        self.assertEqual(1, self.threads(GOMAXPROCS="1"))
        self.assertEqual(3, self.threads(GOMAXPROCS="3"))

    def test_the_flag_wins_over_gomaxprocs(self):
        self.assertEqual(2, self.threads("--threads", "2", GOMAXPROCS="1"))

    @unittest.skipUnless(hasattr(os, "sched_setaffinity"), "this system cannot bind a process to CPUs")
    def test_only_the_cpus_it_is_bound_to_count(self):
        cpus = os.sched_getaffinity(0)
        self.addCleanup(os.sched_setaffinity, 0, cpus)
        self.assertEqual(len(cpus), self.threads())
        # Of this thread, which children inherit.
        os.sched_setaffinity(0, {min(cpus)})
        self.assertEqual(1, self.threads())
