"""Proxies in front: whose word is taken for who the client is."""

import json
import socket
import struct
import threading

from e2e.harness import Client, ConnectionLost, Scenario, eventually, exchange, get
from e2e.harness.client import head

LINE = b"PROXY TCP4 203.0.113.9 192.0.2.2 4711 80\r\n"
SAID = [("X-Forwarded-For", "198.51.100.1, 203.0.113.9"), ("X-Forwarded-Proto", "https"), ("X-Forwarded-Host", "shop.example")]
SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"


def binary(source: str, command: int = 0x21, extra: bytes = b"") -> bytes:
    """A header of version 2, for an IPv4 or IPv6 source."""
    family, code = (socket.AF_INET6, 0x21) if ":" in source else (socket.AF_INET, 0x11)
    content = socket.inet_pton(family, source) * 2 + struct.pack("!HH", 4711, 80) + extra
    return SIGNATURE + struct.pack("!BBH", command, code, len(content)) + content


class Trusted(Scenario):
    def setUp(self):
        super().setUp()
        self.a = self.origin("a")
        self.log = self.dir / "access.log"

    def settings(self, *lines: str) -> str:
        return self.config({"/x": [self.a]}, extra="\n".join(lines))

    def forwarded(self) -> dict[str, list[str]]:
        """What the backend was told last."""
        return {name: self.a.seen()[-1].all(name) for name, _ in SAID}

    def clients(self, count: int) -> list[str]:
        def there():
            lines = self.log.read_text().splitlines() if self.log.exists() else []
            assert len(lines) == count, lines
            return [json.loads(line)["client"] for line in lines]

        return eventually(there, "%d lines" % count)

    def errors(self, dp, reason: str) -> float:
        return dp.metrics().value("dataplane_client_errors_total", reason=reason)

    def test_what_anybody_says_is_replaced(self):
        logging = "accessLog: {path: %s}" % self.log
        cp, (dp,) = self.fleet(self.settings(logging))
        seen = {"X-Forwarded-For": ["127.0.0.1"], "X-Forwarded-Proto": ["http"], "X-Forwarded-Host": ["test.example"]}
        said = {
            "X-Forwarded-For": ["198.51.100.1, 203.0.113.9, 127.0.0.1"], "X-Forwarded-Proto": ["https"],
            "X-Forwarded-Host": ["shop.example"],
        }  # fmt: skip
        with Client(self.port) as c:
            c.request("/x", fields=SAID)
            self.assertEqual(seen, self.forwarded())
            self.change(cp, self.settings(logging, "trustedProxies: [10.0.0.0/8]"), dp)
            c.request("/x", fields=SAID)
            self.assertEqual(seen, self.forwarded())
            # The same connection is believed as soon as its peer is trusted, and no longer.
            self.change(cp, self.settings(logging, "trustedProxies: [127.0.0.0/8]"), dp)
            c.request("/x", fields=SAID)
            self.assertEqual(said, self.forwarded())
            self.change(cp, self.settings(logging, "trustedProxies: [127.0.0.1, 203.0.113.9]"), dp)
            c.request("/x", fields=SAID)
            self.assertEqual(said, self.forwarded())
            self.change(cp, self.settings(logging), dp)
            c.request("/x", fields=SAID)
            self.assertEqual(seen, self.forwarded())
        self.assertEqual(["127.0.0.1", "127.0.0.1", "203.0.113.9", "198.51.100.1", "127.0.0.1"], self.clients(5))

    def test_clients_behind_a_proxy_are_told_apart(self):
        self.fleet(
            self.settings("trustedProxies: [127.0.0.0/8]", "defaults: {rateLimit: {requests: 2, per: 1h, key: clientIP}}")
        )
        with Client(self.port) as c:
            for client in ("203.0.113.1", "203.0.113.2"):
                got = [c.request("/x", fields=[("X-Forwarded-For", "9.9.9.%d, %s" % (i, client))]).status for i in range(3)]
                self.assertEqual([200, 200, 429], got)

    def test_proxy_protocol(self):
        _, (dp,) = self.fleet(self.settings("proxyProtocol: true", "accessLog: {path: %s}" % self.log))
        headers = {
            LINE: "203.0.113.9",
            b"PROXY TCP6 2001:db8::1 2001:db8::2 1 2\r\n": "2001:db8::1",
            b"PROXY UNKNOWN\r\n": "127.0.0.1",
            binary("203.0.113.9"): "203.0.113.9",
            binary("2001:db8::1", extra=b"\x04\x00\x03abc"): "2001:db8::1",
            binary("203.0.113.9", command=0x20): "127.0.0.1",
        }
        for header, client in headers.items():
            with Client(self.port) as c:
                c.send(header + head("GET", "/x"))
                self.assertEqual("a", c.response().text)
                self.assertEqual([client], self.a.seen()[-1].all("X-Forwarded-For"))
                self.assertEqual("a", c.request("/x", method="POST", body=b"abc").text)
                self.assertEqual([client], self.a.seen()[-1].all("X-Forwarded-For"))
        self.assertEqual(sorted(list(headers.values()) * 2), sorted(self.clients(2 * len(headers))))
        # Byte by byte, each in a packet of its own.
        for header in (LINE, binary("203.0.113.9")):
            with Client(self.port) as c:
                for i in range(len(header)):
                    c.send(header[i : i + 1])
                self.assertEqual("a", c.request("/x").text)
                self.assertEqual(["203.0.113.9"], self.a.seen()[-1].all("X-Forwarded-For"))
        self.assertEqual(0, self.errors(dp, "no_proxy_header"))

    def test_connections_without_a_header_are_closed(self):
        _, (dp,) = self.fleet(self.settings("proxyProtocol: true", "limits: {headerTimeout: 300ms}"))
        for bad in (
            head("GET", "/x"),
            b"\r\n" + LINE + head("GET", "/x"),
            b"PROXY TCP4 203.0.113.9 192.0.2.2 4711\r\n" + head("GET", "/x"),
            b"PROXY TCP4 203.0.113.9\r\nX: y 192.0.2.2 4711 80\r\n" + head("GET", "/x"),
            SIGNATURE + b"\x31\x11\x00\x0c" + bytes(12) + head("GET", "/x"),
            SIGNATURE + b"\x21\x11\xff\xff" + bytes(5000),
        ):
            try:
                self.assertEqual(b"", exchange(self.port, bad), bad)
            except ConnectionLost:
                pass  # a reset, since something was left unread
        self.assertEqual(6, self.errors(dp, "no_proxy_header"))
        self.assertEqual(0, self.a.count())
        # One that sends nothing in time, or not enough.
        for begun in (b"", LINE[:9]):
            self.assertEqual(b"", exchange(self.port, begun))
        eventually(lambda: self.errors(dp, "proxy_header_timeout") == 2, "both are counted")
        # A probe that only connects is no error.
        for _ in range(3):
            Client(self.port).close()
        with Client(self.port) as c:
            c.send(LINE + head("GET", "/x"))
            self.assertEqual("a", c.response().text)
        eventually(lambda: dp.metrics().sum("dataplane_connections") == 0, "all are gone")
        self.assertEqual((6, 2), (self.errors(dp, "no_proxy_header"), self.errors(dp, "proxy_header_timeout")))

    def test_proxy_protocol_from_trusted_proxies_only(self):
        cp, (dp,) = self.fleet(self.settings("proxyProtocol: true", "trustedProxies: [10.0.0.0/8]"))
        try:
            self.assertEqual(b"", exchange(self.port, LINE + head("GET", "/x")))
        except ConnectionLost:
            pass
        self.assertEqual(1, self.errors(dp, "untrusted_proxy_header"))
        self.assertEqual(0, self.a.count())
        self.change(cp, self.settings("proxyProtocol: true", "trustedProxies: [127.0.0.0/8, 10.0.0.0/8]"), dp)
        for source, chain in {"203.0.113.9": "203.0.113.9", "10.0.0.1": "198.51.100.1, 203.0.113.9, 10.0.0.1"}.items():
            with Client(self.port) as c:
                c.send(binary(source) + head("GET", "/x", SAID))
                self.assertEqual("a", c.response().text)
                self.assertEqual([chain], self.forwarded()["X-Forwarded-For"])

    def test_switched_on_and_off(self):
        cp, (dp,) = self.fleet(self.settings())
        with Client(self.port) as old:
            self.assertEqual("a", old.request("/x").text)
            self.change(cp, self.settings("proxyProtocol: true"), dp)
            self.assertEqual("a", old.request("/x").text)  # it began without a header
            with Client(self.port) as new:
                new.send(LINE + head("GET", "/x"))
                self.assertEqual("a", new.response().text)
                self.change(cp, self.settings(), dp)
                self.assertEqual("a", new.request("/x").text)
                self.assertEqual(["203.0.113.9"], self.a.seen()[-1].all("X-Forwarded-For"))
        self.assertEqual("a", get(self.port, "/x").text)

    def test_many_connections_with_headers(self):
        _, (dp,) = self.fleet(self.settings("proxyProtocol: true"))
        wrong, done = [], []

        def client(n: int) -> None:
            for i in range(50):
                source = "203.0.%d.%d" % (n, i)
                header = binary(source) if i % 2 else LINE.replace(b"203.0.113.9", source.encode())
                try:
                    with Client(self.port) as c:
                        c.send(header + head("GET", "/x", [("X-Who", source)]))
                        done.append(c.response().text)
                except (ConnectionLost, AssertionError) as e:
                    wrong.append(repr(e))

        threads = [threading.Thread(target=client, args=(n,)) for n in range(4)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        self.assertEqual([], wrong)
        self.assertEqual(["a"] * 200, done)
        for r in self.a.seen():
            self.assertEqual(r.all("X-Who"), r.all("X-Forwarded-For"))
        self.assertEqual(0, sum(self.errors(dp, r) for r in ("no_proxy_header", "proxy_header_timeout", "untrusted_proxy_header")))
