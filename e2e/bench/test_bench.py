"""The parts of the benchmark that compute. What it measures is asserted nowhere."""

import contextlib
import dataclasses
import io
import os
import unittest

from e2e.bench import calls, catalogue, commandline, procfs, report, rounds, stats, targets, work, wrk
from e2e.bench.cells import Cell
from e2e.bench.cost import Cost
from e2e.bench.procfs import CPU
from e2e.bench.rounds import Outcome, Result, Sample

WRK = """Running 2s test @ http://127.0.0.1:20001/bench
  1 threads and 64 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     0.85ms  250.77us   8.24ms   92.15%
    Req/Sec    73.86k     3.22k   79.05k    85.00%
  Latency Distribution
     50%  816.00us
     75%    0.90ms
     90%    1.02ms
     99%    1.75s
  147193 requests in 2.00s, 177.48MB read
"""
WRONG = """  Socket errors: connect 0, read 3, write 0, timeout 0
  Non-2xx or 3xx responses: 12
"""
STRACE = """% time     seconds  usecs/call     calls    errors syscall
------ ----------- ----------- --------- --------- ----------------
 55.10    0.204000          10     20000           sendto
 44.80    0.166000           8     20450       430 recvfrom
  0.10    0.000400           4       100           epoll_wait
------ ----------- ----------- --------- --------- ----------------
100.00    0.370400           9     40550       430 total
"""


class Wrk(unittest.TestCase):
    def test_what_it_prints_is_read(self):
        r = wrk.parse(WRK + "Requests/sec:  73596.11\nTransfer/sec:     88.74MB\n")
        self.assertEqual((147193, 2.0, 816.0, 1.75e6, ""), (r.requests, r.seconds, r.p50, r.p99, r.errors))

    def test_errors_are_kept(self):
        errors = wrk.parse(WRK + WRONG).errors
        self.assertEqual("Socket errors: connect 0, read 3, write 0, timeout 0; Non-2xx or 3xx responses: 12", errors)

    def test_something_else_is_refused(self):
        with self.assertRaises(ValueError):
            wrk.parse("unable to connect to 127.0.0.1:1 Connection refused\n")

    def test_times(self):
        for text, want in {"12.5us": 12.5, "1.50ms": 1500, "2.00s": 2e6, "1.00m": 60e6}.items():
            with self.subTest(text):
                self.assertAlmostEqual(want, wrk.micros(text))


class CommandLine(unittest.TestCase):
    def test_cells_are_chosen_by_name(self):
        parser = commandline.parser("make bench", "Measures.", catalogue.ALL)
        chosen = lambda names: [c.name for c in commandline.chosen(parser, names, catalogue.ALL)]
        self.assertEqual(["c256", "c64"], chosen("c256,c64,"))
        self.assertEqual([c.name for c in catalogue.ALL], chosen(""))
        with contextlib.redirect_stderr(io.StringIO()) as told, self.assertRaises(SystemExit):
            chosen("c64,c65")
        self.assertIn("no cell 'c65'; there are: c1, c64, ", told.getvalue())


class Calls(unittest.TestCase):
    def test_the_table_of_strace_is_read(self):
        self.assertEqual({"sendto": 20000, "recvfrom": 20450, "epoll_wait": 100}, calls.parse(STRACE))


class Stats(unittest.TestCase):
    def test_median(self):
        self.assertEqual([0, 5, 2, 2.5], [stats.median(v) for v in ([], [5], [9, 1, 2], [4, 1, 2, 3])])

    def test_quantile(self):
        values = list(range(1, 1001))
        self.assertEqual([1, 500, 990, 1000], [stats.quantile(values, q) for q in (0, 0.4995, 0.99, 1)])

    def test_one_round_that_stands_out_does_not_count_as_spread(self):
        self.assertEqual(0, stats.spread([10, 10, 10, 10, 30]))
        self.assertAlmostEqual(0.2, stats.spread([9, 9, 10, 11, 11]))


def sample(micros: float, origin: float = 7, foreign: float = 0, errors: str = "") -> Sample:
    """A thousand requests in a second that cost so much each."""
    cost = Cost(1, CPU(micros / 1e3, micros / 4e3), CPU(origin / 1e3), foreign, 0)
    return Sample(Outcome(1000, 1, 800, 2000, errors=errors), cost, 5_000_000)


class Rounds(unittest.TestCase):
    def measure(self, runs: dict[str, list[Sample]], n: int) -> Result:
        left = {name: iter(samples) for name, samples in runs.items()}
        return rounds.measure(list(runs), lambda name: next(left[name]), n, lambda line: None)

    def test_a_disturbed_round_is_run_again(self):
        r = self.measure({"a": [sample(10), sample(99, foreign=0.5), sample(10)], "b": [sample(20)] * 3}, 2)
        self.assertEqual(([10, 10], 1, ""), (r.values("a", lambda s: round(s.micros, 6)), r.repeated, r.disturbed))

    def test_but_not_for_ever(self):
        r = self.measure({"a": [sample(m, foreign=m / 100) for m in (80, 10, 40, 20)]}, 2)
        self.assertEqual([10, 20], [round(m) for m in r.values("a", lambda s: s.micros)])
        self.assertEqual("only 0 of 4 rounds were quiet; in those shown other work took up to 20 % of the machine", r.disturbed)

    def test_rounds_that_differ_are_followed_by_more(self):
        r = self.measure({"a": [sample(10), sample(20), sample(15), sample(15), sample(15), sample(15)]}, 3)
        self.assertEqual((4, ""), (len(r.rounds), r.disturbed))

    def test_everybody_is_first_in_turn(self):
        order = []

        def run(name):
            order.append(name)
            return sample(10)

        rounds.measure(["a", "b", "c"], run, 3, lambda line: None)
        self.assertEqual("abc" "bca" "cab", "".join(order))

    def test_errors_are_reported(self):
        r = self.measure({"a": [sample(1, errors="12 × reset")], "b": [sample(1)]}, 1)
        self.assertEqual({"a": "12 × reset"}, r.errors)


class Targets(unittest.TestCase):
    def test_the_better_peer_is_the_cheaper_one(self):
        self.assertEqual("haproxy", targets.better_peer({"ours": [1], "nginx": [5, 5, 5], "haproxy": [9, 4, 4], "relay": [1]}))
        self.assertEqual("nginx", targets.better_peer({"nginx": [5]}))
        self.assertIsNone(targets.better_peer({"ours": [1]}))

    def test_the_ratio_is_taken_in_each_round(self):
        self.assertEqual(0.5, targets.ratio([5, 50, 6], [10, 100, 11.9]))

    def test_a_verdict_does_not_contradict_what_is_shown(self):
        self.assertEqual([True, False], [targets.at_most("x", v, 0.85).met for v in (0.8549, 0.856)])
        self.assertEqual([True, False], [targets.at_least("x", v, 4.3).met for v in (4.296, 4.294)])


def cell(name: str) -> Cell:
    return Cell(name, "some work", lambda stage, proxy, seconds: Outcome(1, 1, 1, 1))


class Report(unittest.TestCase):
    def result(self, **errors: str) -> Result:
        micros = {"ours": 9, "nginx": 12, "haproxy": 15}
        return Result([{name: sample(m, errors=errors.get(name, "")) for name, m in micros.items()}] * 3, repeated=2)

    def finding(self, name: str, result: Result) -> report.Finding:
        return work.finding(cell(name), result)

    def test_a_cell(self):
        f = self.finding("c256", self.result())
        self.assertEqual(
            """c256: some work
           CPU µs/request  user  system  × better peer  × origin  requests/s  p50 ms  p99 ms  memory MB
  ours               9.00  2.25    6.75           0.75      1.29        1000    0.80    2.00        5.0
  nginx             12.00  3.00    9.00           1.00      1.71        1000    0.80    2.00        5.0
  haproxy           15.00  3.75   11.25           1.25      2.14        1000    0.80    2.00        5.0
  2 of 5 rounds were run again""",
            report.figures(f),
        )
        self.assertEqual(
            """                      measured  target
  some work, × nginx      0.75  ≤ 0.82  met""",
            report.verdicts([f]),
        )

    def test_what_depends_on_the_machine_is_judged_by_what_others_had_there(self):
        r = self.result()
        for samples in r.rounds:
            samples["relay"] = sample(8)
        f = work.finding(dataclasses.replace(cell("1m"), bulk=1 << 20), r)
        self.assertIn(("some work, GB per CPU second × relay", "0.89", "≥ 0.91", False), [dataclasses.astuple(v) for v in f.verdicts])
        f = work.finding(cell("c64"), r)
        self.assertIn(("user time per request at c=64, × nginx", "0.75", "≤ 0.67", False), [dataclasses.astuple(v) for v in f.verdicts])

    def test_a_failed_peer_is_no_measure(self):
        f = self.finding("c256", self.result(nginx="3 × reset"))
        self.assertEqual([("some work, × haproxy", "0.60")], [(v.what, v.value) for v in f.verdicts])
        self.assertIn("  nginx: FAILED: 3 × reset", report.figures(f))

    def test_a_failure_of_ours_meets_no_target(self):
        self.assertEqual([], self.finding("c256", self.result(ours="3 × reset")).verdicts)


class Procfs(unittest.TestCase):
    def test_own_cpu_time_and_memory(self):
        if not os.path.exists("/proc/self/smaps_rollup"):
            self.skipTest("no /proc of Linux")
        self.assertGreater(procfs.cpu(os.getpid()).total, 0)
        self.assertGreater(procfs.memory(os.getpid()), 1 << 20)
