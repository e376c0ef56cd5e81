"""Names of backends: looked up again and again, and all addresses are used."""

from e2e.harness import Load, Scenario, eventually, get
from e2e.harness.dns import NameServer
from e2e.harness.origin import Origin, name_yourself
from e2e.harness.ports import free_port


class Names(Scenario):
    def name_server(self, **hosts: list[str]) -> NameServer:
        server = NameServer(**hosts)
        self.addCleanup(server.close)
        return server

    def origins(self, *hosts: str) -> tuple[int, list[Origin]]:
        """Origins on one port of several addresses, each named after its address."""
        port = free_port()
        origins = []
        for host in hosts:
            o = Origin(host, name_yourself, False, port, host)
            self.addCleanup(o.stop)
            origins.append(o)
        return port, origins

    def serve(self, server: NameServer, *backends: str):
        config = self.config({"/x": list(backends)}, extra="dns: {interval: 200ms}\ndefaults: {timeouts: {connect: 500ms}}")
        cp = self.control_plane(config)
        dp = self.data_plane("dp1", cp, flags=["--dns-server", server.address])
        self.wait_applied(cp, [dp])
        return cp, dp

    def answers(self, n: int = 6) -> list[str]:
        """Who has answered n requests."""
        return sorted({get(self.port, "/x").text for _ in range(n)})

    def wait_answers(self, *hosts: str) -> None:
        eventually(lambda: self.answers() == sorted(hosts), "%s answer" % (hosts,))

    def test_addresses_come_and_go_under_load(self):
        one, two, three = "127.0.0.1", "127.0.0.2", "127.0.0.3"
        port, _ = self.origins(one, two, three)
        server = self.name_server(shop_example=[one])
        cp, dp = self.serve(server, "http://shop.example:%d" % port)
        with Load(self.port, {"/x": [one, two, three]}, keepalive=3, fresh=2) as load:
            self.wait_load(load)
            for change in ([one, two], [one, two, three], [three], [two, one]):
                server.set("shop.example", *change)
                self.wait_answers(*change)
            server.stop()  # the name server dies: the last addresses stay
            asked = server.asked()
            eventually(lambda: server.asked() >= asked + 4, "lookups without an answer")
            # Under load both are drawn by chance.
            self.assertEqual([one, two], self.answers(50))
            eventually(
                lambda: dp.metrics().value("dataplane_dns_lookups_total", host="shop.example", result="failure") > 0, "counted"
            )
            self.wait_load(load)
        self.assert_no_failures(load)
        self.assertEqual(2, dp.metrics().value("dataplane_dns_addresses", host="shop.example"))
        self.say("a name whose addresses changed four times, and whose server died: %d requests, 0 lost" % load.total())

    def test_a_name_that_is_not_found(self):
        port, _ = self.origins("127.0.0.1", "127.0.0.2")
        server = self.name_server()
        cp, dp = self.serve(server, "http://missing.example:%d" % port, "http://127.0.0.1:%d" % port)
        self.wait_answers("127.0.0.1")
        self.assertEqual(["127.0.0.1"], self.answers(20), "requests go to the others")
        server.set("missing.example", "127.0.0.2")
        self.wait_answers("127.0.0.1", "127.0.0.2")

        self.change(cp, self.config({"/x": ["http://other.example:%d" % port]}, extra="dns: {interval: 200ms}"), dp)
        eventually(lambda: get(self.port, "/x").status == 503, "no backend is left")
        self.assertGreater(dp.metrics().value("dataplane_requests_refused_total", endpoint="/x", reason="no_address"), 0)
        server.set("other.example", "127.0.0.2")
        self.wait_answers("127.0.0.2")

    def test_no_request_fails_because_a_name_is_new(self):
        port, _ = self.origins("127.0.0.1", "127.0.0.2")
        server = self.name_server(**{"h%d_example" % i: ["127.0.0.1", "127.0.0.2"] for i in range(20)})
        url = "http://h%d.example:%d"
        cp, dp = self.serve(server, url % (0, port))
        with Load(self.port, {"/x": ["127.0.0.1", "127.0.0.2"]}, keepalive=3, fresh=2) as load:
            for i in range(1, 20):
                self.change(cp, self.config({"/x": [url % (i, port)]}, extra="dns: {interval: 200ms}"), dp)
        self.assert_no_failures(load)
        self.say("19 changes to a backend with a name that was not known: %d requests, 0 lost" % load.total())
