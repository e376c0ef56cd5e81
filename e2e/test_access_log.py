"""The access log and request ids, off and on."""

import datetime
import json
import os
import pathlib
import re
import signal
import sys

from e2e.harness import Client, DataPlane, Load, Scenario, eventually, exchange, free_port, get

KEYS = [
    "time", "client", "method", "host", "target", "protocol", "status", "bytesIn", "bytesOut", "durationSeconds",
    "backendSeconds", "endpoint", "backend", "attempts", "byProxy", "error", "requestId", "version", "referer", "userAgent",
]  # fmt: skip
COMBINED = re.compile(
    r'(?P<client>\S+) - - \[(?P<time>[^\]]+)\] "(?P<request>(?:[^"\\]|\\x[0-9A-F]{2})*)" (?P<status>\d{3}) (?P<bytes>\d+)'
    r'(?: "(?P<referer>(?:[^"\\]|\\x[0-9A-F]{2})*)" "(?P<agent>(?:[^"\\]|\\x[0-9A-F]{2})*)")?\Z'
)


class AccessLog(Scenario):
    def setUp(self):
        super().setUp()
        self.path = self.dir / "access.log"

    def logging(self, pools, **settings) -> str:
        """A file with an access log at self.path and request ids."""
        settings = {"path": str(self.path), **settings}
        extra = "accessLog: {%s}\nrequestId: true" % ", ".join("%s: %s" % kv for kv in settings.items())
        return self.config(pools, extra=extra)

    def lines(self, count: int, path: pathlib.Path | None = None) -> list[str]:
        """Waits until the log has this many lines, and returns them."""

        def there():
            lines = _lines(path or self.path)
            assert len(lines) == count, "%d lines: %s" % (len(lines), lines[-1:])
            return lines

        return eventually(there, "%d lines" % count) if count else _lines(path or self.path)

    def records(self, count: int) -> list[dict]:
        return [json.loads(line) for line in self.lines(count)]

    def test_off_by_default(self):
        a = self.origin("a")
        _, (dp,) = self.fleet(self.config({"/x": [a]}))
        self.assertEqual("a", get(self.port, "/x").text)
        self.assertEqual(None, get(self.port, "/x").get("X-Request-Id"))
        self.assertEqual([None, None], [r.get("X-Request-Id") for r in a.seen()])
        m = dp.metrics()
        for name in ("lines", "dropped", "failures"):
            self.assertEqual(0, m.value("dataplane_access_log_%s_total" % name))

    def test_json(self):
        a = self.origin("a")
        dead = "http://127.0.0.1:%d" % free_port()
        cp, _ = self.fleet(self.logging({"/x": [a], "/dead": [dead]}))
        with Client(self.port) as c:
            ok = c.request("/x?q=%22", method="POST", body=b"12345", host="Shop.example:80",
                           fields=[("User-Agent", "me"), ("Referer", "http://r/"), ("X-Request-Id", "mine")])  # fmt: skip
        self.assertEqual(200, ok.status)
        self.assertEqual(502, get(self.port, "/dead").status)
        self.assertEqual(404, get(self.port, "/none").status)
        self.assertIn(b" 400 ", exchange(self.port, b"nonsense\r\n\r\n"))

        records = sorted(self.records(4), key=lambda r: r["time"])
        version = cp.status()["version"]
        now = datetime.datetime.now(datetime.timezone.utc)
        for r in records:
            self.assertEqual(KEYS, list(r))
            self.assertEqual(("127.0.0.1", version), (r["client"], r["version"]))
            self.assertRegex(r["time"], r"\A\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z\Z")
            age = now - datetime.datetime.fromisoformat(r["time"].replace("Z", "+00:00"))
            self.assertLess(abs(age.total_seconds()), 300)
            self.assertGreater(r["bytesOut"], 0)
            self.assertGreaterEqual(r["durationSeconds"], r["backendSeconds"] or 0)
        by_status = {r["status"]: r for r in records}
        self.assertEqual({200, 400, 404, 502}, set(by_status))

        def fields(status, *names):
            return [by_status[status][n] for n in names]

        self.assertEqual(
            ["POST", "Shop.example:80", "/x?q=%22", "HTTP/1.1", "/x", a.url, False, "", "mine", "http://r/", "me"],
            fields(200, "method", "host", "target", "protocol", "endpoint", "backend", "byProxy", "error", "requestId", "referer", "userAgent"),
        )
        self.assertGreater(by_status[200]["backendSeconds"], 0)
        self.assertEqual(
            ["GET", "/dead", "/dead", dead, True, "connect_failed", None],
            fields(502, "method", "target", "endpoint", "backend", "byProxy", "error", "backendSeconds"),
        )
        self.assertEqual(["/none", "none", "", True, ""], fields(404, "target", "endpoint", "backend", "byProxy", "error"))
        self.assertEqual(["", "", "", "none", True], fields(400, "method", "target", "protocol", "endpoint", "byProxy"))

    def test_common_and_combined(self):
        a = self.origin("a")
        cp, (dp,) = self.fleet(self.logging({"/x": [a]}, format="common"))
        get(self.port, "/x?y", fields=[("User-Agent", "me")])
        (line,) = self.lines(1)
        match = COMBINED.match(line)
        self.assertEqual(("127.0.0.1", "GET /x?y HTTP/1.1", "200", "1", None), match.group("client", "request", "status", "bytes", "agent"), line)
        datetime.datetime.strptime(match["time"], "%d/%b/%Y:%H:%M:%S %z")

        self.change(cp, self.logging({"/x": [a]}, format="combined"), dp)
        get(self.port, "/x", fields=[("User-Agent", 'a "b\\c"')])
        match = COMBINED.match(self.lines(2)[1])
        self.assertEqual(("GET /x HTTP/1.1", "-", r"a \x22b\x5Cc\x22"), match.group("request", "referer", "agent"))

    def test_nothing_in_a_request_can_forge_a_line(self):
        a = self.origin("a")
        for name in ("json", "combined"):
            with self.subTest(name):
                self.path = self.dir / ("%s.log" % name)
                if name == "json":
                    cp, (dp,) = self.fleet(self.logging({"/*": [a]}))
                else:
                    self.change(cp, self.logging({"/*": [a]}, format=name), dp)
                evil = b'", "status": 200}\\\x80\xff\xc3( \xe2\x80\xa8\t\xc2\x9b31m'
                head = b"GET /%0a%22?\"<>\\{}| HTTP/1.1\r\nHost: a\r\nUser-Agent: " + evil + b"\r\nReferer: " + evil
                self.assertIn(b" 200 ", exchange(self.port, head + b"\r\nX-Request-Id: \"\\\r\nConnection: close\r\n\r\n"))
                # What would break a line out of the log is refused, and logged all the same.
                for break_out in (b"\r", b"\n", b"\0", b"\x1b"):
                    self.assertIn(b" 400 ", exchange(self.port, b"GET /a" + break_out + b"b HTTP/1.1\r\nHost: a\r\n\r\n"))
                    self.assertIn(b" 400 ", exchange(self.port, head + break_out + b"1.2.3.4 - - \r\n\r\n"))
                lines = self.lines(9)
                for line in lines:
                    self.assertRegex(line, r"\A[ -~]+\Z")
                (good,) = [line for line in lines if "%0a%22" in line]
                if name == "json":
                    record = json.loads(good)
                    self.assertEqual((KEYS, 200), (list(record), record["status"]))
                    self.assertEqual(('/%0a%22?"<>\\{}|', '"\\'), (record["target"], record["requestId"]))
                    self.assertEqual(8, sum(json.loads(line)["status"] == 400 for line in lines))
                else:
                    match = COMBINED.match(good)
                    unescaped = re.sub(r"\\x(..)", lambda m: chr(int(m[1], 16)), match["agent"]).encode("latin-1")
                    self.assertEqual((evil, "200"), (unescaped, match["status"]))
                    self.assertEqual(8, sum(' "-" 400 ' in line for line in lines))

    def test_a_sample(self):
        a = self.origin("a")
        requests = 2000
        _, (dp,) = self.fleet(self.logging({"/x": [a]}, sample="0.25"))
        with Client(self.port) as c:
            for _ in range(requests):
                c.request("/x")
        dp.terminate()
        self.assertEqual(0, dp.wait())
        # 500 expected, standard deviation 19.4: ten of them.
        count = len(_lines(self.path))
        self.assertGreater(count, 500 - 194)
        self.assertLess(count, 500 + 194)

    def test_rotation_under_load_loses_no_line(self):
        a = self.origin("a", record=False)
        _, (dp,) = self.fleet(self.logging({"/x": [a]}))
        with Load(self.port, {"/x": ["a"]}, keepalive=3, fresh=1) as load:
            for i in range(6):
                self.wait_load(load, 100)
                eventually(self.path.exists, "the file is there")
                self.path.rename(self.dir / ("access.log.%d" % i))
                if i % 2 == 0:
                    dp.signal(signal.SIGHUP)
                # Without a signal it is noticed, too.
        self.assert_no_failures(load)
        files = [self.dir / ("access.log.%d" % i) for i in range(6)] + [self.path]

        def all_there():
            ids = [json.loads(line)["requestId"] for f in files for line in _lines(f)]
            assert len(ids) == load.total(), "%d lines, %d requests" % (len(ids), load.total())
            return ids

        ids = eventually(all_there, "a line for each request")
        self.assertEqual(load.sent_ids, set(ids))
        self.assertEqual(0, dp.metrics().value("dataplane_access_log_dropped_total"))
        self.assertEqual(load.total(), dp.metrics().value("dataplane_access_log_lines_total"))
        self.say("%d lines in %s files" % (len(ids), [len(_lines(f)) for f in files]))

    def test_sighup_opens_the_file_again_and_ends_nothing(self):
        a = self.origin("a")
        _, (dp,) = self.fleet(self.config({"/x": [a]}))
        dp.signal(signal.SIGHUP)  # without a log, too
        self.assertEqual("a", get(self.port, "/x").text)

        cp2, (dp2,) = self.fleet_on_own_port(a)
        get(self.port2, "/x")
        self.lines(1)
        self.path.unlink()
        dp2.signal(signal.SIGHUP)
        eventually(self.path.exists, "a new file")
        get(self.port2, "/x")
        self.lines(1)
        self.assertTrue(dp.running() and dp2.running())

    def fleet_on_own_port(self, a):
        self.port2 = free_port()
        cp = self.control_plane(self.logging({"/x": [a]}).replace("port: %d" % self.port, "port: %d" % self.port2), name="cp2")
        dp = self.data_plane("dp2", cp)
        self.wait_applied(cp, [dp])
        return cp, [dp]

    def test_lines_of_a_data_plane_that_stops(self):
        a = self.origin("a")
        _, (dp,) = self.fleet(self.logging({"/x": [a]}))
        for _ in range(5):
            get(self.port, "/x")
        dp.terminate()
        self.assertEqual(0, dp.wait())
        self.assertEqual(5, len(_lines(self.path)))

    def test_two_data_planes_in_one_file(self):
        a = self.origin("a", record=False)
        self.fleet(self.logging({"/x": [a]}), ["dp1", "dp2"])
        with Load(self.port, {"/x": ["a"]}, keepalive=4, fresh=2) as load:
            self.wait_load(load, 2000)
        self.assert_no_failures(load)
        records = self.records(load.total())
        self.assertEqual(load.sent_ids, {r["requestId"] for r in records})

    def test_another_path_and_off_again(self):
        a = self.origin("a", record=False)
        cp, (dp,) = self.fleet(self.logging({"/x": [a]}))
        other = self.dir / "other.log"
        with Load(self.port, {"/x": ["a"]}, keepalive=3, fresh=0) as load:
            self.wait_load(load, 200)
            self.change(cp, self.logging({"/x": [a]}, path=str(other)), dp)
            self.wait_load(load, 200)
            eventually(lambda: not _holds(dp, self.path), "the first file is closed")
        self.assert_no_failures(load)

        def all_there():
            ids = [json.loads(line)["requestId"] for f in (self.path, other) for line in _lines(f)]
            assert len(ids) == load.total(), "%d lines, %d requests" % (len(ids), load.total())
            return ids

        self.assertEqual(load.sent_ids, set(eventually(all_there, "a line for each request")))
        self.assertGreater(len(_lines(other)), 100)
        self.change(cp, self.config({"/x": [a]}), dp)
        eventually(lambda: not _holds(dp, other), "the other file is closed")
        before = len(_lines(other))
        get(self.port, "/x")
        self.assertEqual(load.total(), dp.metrics().value("dataplane_access_log_lines_total"))
        self.assertEqual(before, len(_lines(other)))

    def test_a_full_disk(self):
        if not os.path.exists("/dev/full"):
            self.skipTest("there is no /dev/full")
        a = self.origin("a", record=False)
        cp, (dp,) = self.fleet(self.config({"/x": [a]}), flags=("--threads", "1"))
        # The very change to it is not refused: it can be opened.
        self.change(cp, self.logging({"/x": [a]}, path="/dev/full"), dp)
        agent = "u" * 8000
        with Client(self.port) as c:
            for i in range(700):  # a thread holds 4 MiB
                self.assertEqual("a", c.request("/x", fields=[("User-Agent", agent)]).text, "request %d" % i)
        eventually(lambda: dp.metrics().value("dataplane_access_log_failures_total") > 1, "failures are counted")
        m = dp.metrics()
        self.assertGreater(m.value("dataplane_access_log_dropped_total"), 0)
        self.assertEqual(0, m.value("dataplane_access_log_lines_total"))
        told = [r for r in dp.records() if r.get("msg", "").startswith("access log fails")]
        self.assertEqual(1, len(told), told)
        self.assertIn("no space left on device", told[0]["error"])

        # To another file: that one works at once, and all of it is counted.
        self.change(cp, self.logging({"/x": [a]}), dp)
        eventually(lambda: dp.metrics().value("dataplane_access_log_dropped_total") == 700, "the lines are given up")
        get(self.port, "/x")
        self.lines(1)

    def test_a_path_that_cannot_be_opened(self):
        a, b = self.origin("a"), self.origin("b")
        bad = self.dir / "missing" / "access.log"
        # There is nothing else to serve: served, and told.
        cp, (dp,) = self.fleet(self.logging({"/x": [a]}, path=str(bad)))
        self.assertEqual("a", get(self.port, "/x").text)
        eventually(lambda: [r for r in dp.records() if r.get("msg", "").startswith("access log fails")], "the error is told")
        self.assertGreater(dp.metrics().value("dataplane_access_log_failures_total"), 0)
        # Another change is not refused because of it.
        self.change(cp, self.logging({"/x": [b]}, path=str(bad)), dp)
        self.assertEqual("b", get(self.port, "/x").text)
        # As soon as it can be opened, it is, and nothing has been lost.
        bad.parent.mkdir()
        self.lines(2, bad)
        # Whoever moves the log to a path that cannot be opened is told, and
        # nothing changes.
        worse = self.dir / "nowhere" / "access.log"
        p = self.dir / "worse.yaml"
        p.write_text(self.logging({"/x": [a]}, path=str(worse)))
        r = cp.cli("apply", str(p), "--wait")
        self.assertEqual(1, r.returncode, r)
        self.assertIn("access_log.path", r.stdout + r.stderr)
        self.assertIn("no such file or directory", r.stdout + r.stderr)
        self.assertEqual("b", get(self.port, "/x").text)

    def test_standard_output_whose_reader_is_gone(self):
        a = self.origin("a")
        cp = self.control_plane(self.logging({"/x": [a]}, path="stdout"))
        dp = self.data_plane("dp1", cp)
        self.wait_applied(cp, [dp])
        get(self.port, "/x", fields=[("X-Request-Id", "on-stdout")])
        eventually(lambda: [r for r in dp.records() if r.get("requestId") == "on-stdout"], "a line on standard output")
        dp.stop()

        out, dp.stdout = os.pipe()
        dp.start()
        os.close(dp.stdout)
        self.wait_applied(cp, [dp])
        os.close(out)
        for _ in range(3):
            self.assertEqual("a", get(self.port, "/x").text)
        eventually(lambda: dp.metrics().value("dataplane_access_log_failures_total") > 0, "the failure is counted")
        self.assertEqual("a", get(self.port, "/x").text)
        dp.terminate()
        self.assertEqual(0, dp.wait())

    def test_standard_output_that_nobody_reads(self):
        a = self.origin("a", record=False)
        cp = self.control_plane(self.logging({"/x": [a]}, path="stdout"))
        dp = DataPlane("dp1", [cp.server], self.dir / "dp1.state", self.dir / "dp1.log")
        out, dp.stdout = os.pipe()
        self.addCleanup(os.close, out)
        self.program(dp)
        os.close(dp.stdout)
        self.wait_applied(cp, [dp])
        agent = "u" * 8000
        with Client(self.port) as c:
            for _ in range(100):  # a pipe holds 64 KiB
                self.assertEqual("a", c.request("/x", fields=[("User-Agent", agent)]).text)
        if sys.platform == "linux":
            # Elsewhere nothing but the reader ends such a write.
            self.change(cp, self.logging({"/x": [a]}), dp)
            get(self.port, "/x")
            self.lines(1)
            m = dp.metrics()
            self.assertGreater(m.value("dataplane_access_log_failures_total"), 0)
            written, dropped = (m.value("dataplane_access_log_%s_total" % n) for n in ("lines", "dropped"))
            self.assertGreater(dropped, 0)
            self.assertEqual(101, written + dropped)
        dp.terminate()
        self.assertEqual(0, dp.wait(), "it waits for the reader")

    def test_request_ids(self):
        a = self.origin("a")
        dead = "http://127.0.0.1:%d" % free_port()
        self.fleet(self.config({"/x": [a], "/dead": [dead]}, extra="requestId: true"))
        kept = get(self.port, "/x", fields=[("X-Request-Id", "from-the-client_1")])
        self.assertEqual(["from-the-client_1"], kept.all("X-Request-Id"))
        made = [get(self.port, "/x"), get(self.port, "/x", fields=[("X-Request-Id", "not one word")]),
                get(self.port, "/x", fields=[("X-Request-Id", "x" * 129)]),
                get(self.port, "/x", fields=[("X-Request-Id", "a"), ("X-Request-Id", "a")])]  # fmt: skip
        ids = [r.get("X-Request-Id") for r in made]
        for r in made:
            self.assertEqual(1, len(r.all("X-Request-Id")))
            self.assertRegex(r.get("X-Request-Id"), r"\A[0-9a-f]{32}\Z")
        self.assertEqual(4, len(set(ids)))
        self.assertEqual([["from-the-client_1"], *([i] for i in ids)], [r.all("X-Request-Id") for r in a.seen()])
        # The proxy's own answers have one, too.
        self.assertEqual(["mine"], get(self.port, "/none", fields=[("X-Request-Id", "mine")]).all("X-Request-Id"))
        self.assertRegex(get(self.port, "/dead").get("X-Request-Id"), r"\A[0-9a-f]{32}\Z")


def _lines(path: pathlib.Path) -> list[str]:
    """Whole lines only, and no line in pieces."""
    try:
        text = path.read_bytes().decode("ascii")
    except FileNotFoundError:
        return []
    return text.split("\n")[:-1]


def _holds(dp, path: pathlib.Path) -> bool:
    """Whether the data plane has the file open; False where /proc does not tell."""
    try:
        return any(os.readlink(f) == str(path) for f in pathlib.Path("/proc/%d/fd" % dp.pid).iterdir())
    except OSError:
        return False
