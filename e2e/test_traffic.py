"""What data planes tell the control plane about requests, and what they do not."""

import collections
import json

from e2e.harness import Client, Load, Origin, Request, Scenario, answer, eventually, free_port, get
from e2e.harness.origin import Connection
from e2e.harness.processes import ControlPlane
from e2e.harness.tap import Tap, fields, varints

SECRET = "Sw0rdf1sh"


def busy(origin: Origin, request: Request, connection: Connection) -> None:
    """Cannot answer."""
    connection.read_body(request)
    answer(connection, b"busy", "503 Service Unavailable")


class Traffic(Scenario):
    def setUp(self):
        super().setUp()
        self.a, self.bad = self.origin("a"), self.origin("bad", busy)

    def start(self, *flags: str) -> tuple[ControlPlane, Tap]:
        """A control plane and a data plane, and what the one tells the other."""
        cp = self.control_plane(
            self.config({"/x/*": [self.a], "/bad": [self.bad], "/dead": ["http://127.0.0.1:%d" % free_port()]})
        )
        tap = Tap(cp.server)
        self.addCleanup(tap.stop)
        dp = self.data_plane("dp", tap, flags=flags)
        self.wait_applied(cp, [dp])
        return cp, tap

    def requests(self, secret_path: str = "y") -> int:
        """Requests of all kinds, full of what is nobody's business."""
        with Client(self.port) as client:
            for target, status, times in (
                ("/x/../x/%s?token=%s" % (secret_path, SECRET), 200, 300),
                ("/bad?%s" % SECRET, 503, 20),
                ("/dead", 502, 5),
                ("/nothing?%s=1" % SECRET, 404, 10),
            ):
                for _ in range(times):
                    client.send(
                        (
                            "GET %s HTTP/1.1\r\nHost: Shop.example.com:8080\r\nCookie: a=%s\r\nAuthorization: Bearer %s\r\n"
                            "Referer: http://h/?%s\r\nUser-Agent: %s\r\nX-Forwarded-For: %s\r\nContent-Length: 9\r\n\r\n%s"
                            % (target, *[SECRET] * 6)
                        ).encode()
                    )
                    self.assertEqual(status, client.response("GET").status)
        return 335

    def told(self, cp: ControlPlane, tap: Tap, requests: int) -> list[dict]:
        """All heartbeats, when the newest one that has news tells of all requests."""

        def all_of_them():
            cp.cli("top", "--once")  # asks for a heartbeat at once
            beats = tap.heartbeats()
            news = [b for b in beats if 7 in b]
            return beats if news and fields(news[-1][6][0]).get(1) == [requests] else None

        return eventually(all_of_them, "the control plane has been told")

    def check_counts(self, beats: list[dict], requests: int) -> None:
        totals = fields(beats[-1][6][0])
        self.assertEqual(([requests], [25], [5]), (totals[1], totals[2], totals[3]), "requests, server errors, gateway errors")
        self.assertEqual(requests, sum(varints(totals[4][0])), "durations")
        rows: dict[str, tuple[int, int]] = {}
        new: collections.Counter[str] = collections.Counter()
        for beat in beats:
            for row in map(fields, beat.get(7, [])):
                name = row[1][0].decode()
                rows[name] = (row.get(2, [0])[0], row.get(3, [0])[0])
                new[name] += row.get(6, [0])[0]
        self.assertEqual({"/x/*": (300, 0), "/bad": (20, 20), "/dead": (5, 5), "none": (10, 0)}, rows)
        self.assertEqual({name: requests for name, (requests, _) in rows.items()}, new, "each request is new once")

    def test_counts_and_samples(self):
        cp, tap = self.start()
        requests = self.requests()
        beats = self.told(cp, tap, requests)
        self.check_counts(beats, requests)

        weights: collections.Counter[tuple] = collections.Counter()
        for beat in beats:
            self.assertLessEqual(len(beat.get(8, [])), 100)
            for sample in map(fields, beat.get(8, [])):
                weight = sample.pop(5)[0]
                weights[tuple(sample.get(n, [b""])[0].decode() for n in range(1, 5))] += weight
        kinds = {
            ("GET", "shop.example.com", "/x/y", "/x/*"),
            ("GET", "shop.example.com", "/bad", "/bad"),
            ("GET", "shop.example.com", "/dead", "/dead"),
            ("GET", "shop.example.com", "/nothing", ""),
        }
        self.assertLessEqual(set(weights), kinds)
        # The last one may have been sampled a heartbeat before it was answered.
        self.assertTrue(requests - 1 <= round(sum(weights.values()), 3) <= requests, weights)
        for said in tap.said():
            self.assertNotIn(SECRET.encode(), said)
        self.say("%d requests: samples stand for %s" % (requests, sorted((k[2], round(w)) for k, w in weights.items())))

    def test_no_sample(self):
        cp, tap = self.start("--no-sample")
        requests = self.requests(secret_path=SECRET)
        beats = self.told(cp, tap, requests)
        self.check_counts(beats, requests)
        self.assertFalse([b for b in beats if 8 in b], "samples")
        for said in tap.said():
            self.assertNotIn(SECRET.encode(), said)
            self.assertNotIn(b"shop.example.com", said.lower())


class Rates(Scenario):
    def test_rates_of_the_fleet(self):
        a = self.origin("a", record=False)
        cp = self.control_plane(self.config({"/x": [a], "/y": [a]}))
        ports = [free_port(), free_port()]
        dps = [self.data_plane("dp%d" % i, cp, flags=["--port", str(p)]) for i, p in enumerate(ports)]
        self.wait_applied(cp, dps)

        def rates() -> dict:
            cp.cli("top", "--once")  # asks for a heartbeat at once
            document = json.loads(get(cp.admin_port, "/api/v1/endpoints").body)
            document["endpoints"] = {e["name"]: e for e in document["endpoints"]}
            return document

        with Load(ports[0], {"/x": ["a"], "/y": ["a"]}, keepalive=1, fresh=0) as one, Load(ports[1], {"/x": ["a"]}, keepalive=1, fresh=0) as two:

            def at_work():
                now, total = rates(), one.total() + two.total()
                x, y = now["endpoints"]["/x"], now["endpoints"]["/y"]
                if (x["dataplanes"], y["dataplanes"]) != (2, 1):
                    return None
                # No rate is over less than 0.4 s.
                for rate in (x["requestsPerSecond"] + y["requestsPerSecond"], now["requestsPerSecond"]):
                    self.assertLess(0, rate)
                    self.assertLessEqual(rate, 2 * total / 0.4)
                return now, total

            shown, total = eventually(at_work, "both data planes have rates")
            self.say("%.0f requests/s at %d endpoints after %d requests" % (shown["requestsPerSecond"], len(shown["endpoints"]), total))
            # One that is gone has no rate; one that starts again counts from zero.
            dps[1].kill()
            eventually(lambda: rates()["endpoints"]["/x"]["dataplanes"] == 1, "the rates of one that is gone are gone")
            two.stop()
        self.assert_no_failures(one)
        dps[1].start()
        self.wait_ready(dps[1])
        self.assertEqual(200, get(ports[1], "/x").status)

        def quiet():
            now = rates()
            for e in now["endpoints"].values():
                self.assertGreaterEqual(min(e["requestsPerSecond"], e["errorsPerSecond"]), 0)
            self.assertEqual(2, now["dataplanes"])
            return all(e["requestsPerSecond"] == 0 for e in now["endpoints"].values()) and now["requestsPerSecond"] == 0

        eventually(quiet, "the rates end with the requests")
