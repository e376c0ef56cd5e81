"""Nothing ambiguous is ever forwarded."""

import re

from e2e.harness import Scenario, answer, exchange, get

# A second request that must never be taken for one.
EVIL = b"GET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n"

# Ambiguous or malformed by its head: answered, closed, and no backend sees it.
HEADS = {
    "length and coding": b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "coding and length": b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n",
    "two lengths": b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\nContent-Length: 40\r\n\r\n",
    "the same length twice": b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\nContent-Length: 0\r\n\r\n",
    "a list of lengths": b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 0, 0\r\n\r\n",
    "a length with a sign": b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: +0\r\n\r\n",
    "a negative length": b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: -1\r\n\r\n",
    "a hexadecimal length": b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 0x0\r\n\r\n",
    "an empty length": b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length:\r\n\r\n",
    "a length beyond all numbers": b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 99999999999999999999\r\n\r\n",
    "an unknown coding": b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "a coding after chunked": b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "chunked twice": b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
    "chunked in two lines": b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a quoted coding": b'POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: "chunked"\r\n\r\n0\r\n\r\n',
    "a coding behind a vertical tab": b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    "a coding from HTTP/1.0": b"POST / HTTP/1.0\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "space before the colon": b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    "space before a name": b"POST / HTTP/1.1\r\nHost: h\r\n Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "space before the first name": b"POST / HTTP/1.1\r\n Host: h\r\n\r\n",
    "a folded line": b"POST / HTTP/1.1\r\nHost: h\r\nX: a\r\n b\r\n\r\n",
    "a folded coding": b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
    "a bare line feed": b"GET / HTTP/1.1\nHost: h\n\n",
    "a bare line feed in a field": b"GET / HTTP/1.1\r\nHost: h\r\nX: a\nTransfer-Encoding: chunked\r\n\r\n",
    "a bare carriage return": b"GET / HTTP/1.1\r\nHost: h\r\nX: a\rTransfer-Encoding: chunked\r\n\r\n",
    "a NUL": b"GET / HTTP/1.1\r\nHost: h\r\nX: a\x00b\r\n\r\n",
    "a NUL in a name": b"GET / HTTP/1.1\r\nHost: h\r\nX\x00: a\r\n\r\n",
    "a line without a colon": b"GET / HTTP/1.1\r\nHost: h\r\nnothing\r\n\r\n",
    "a nameless line": b"GET / HTTP/1.1\r\nHost: h\r\n: a\r\n\r\n",
    "no host": b"GET / HTTP/1.1\r\n\r\n",
    "two hosts": b"GET / HTTP/1.1\r\nHost: h\r\nHost: i\r\n\r\n",
    "a host that is none": b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
    "a host with a path": b"GET / HTTP/1.1\r\nHost: h/x\r\n\r\n",
    "a bad method": b"G@T{} / HTTP/1.1\r\nHost: h\r\n\r\n",
    "no version": b"GET /\r\nHost: h\r\n\r\n",
    "another protocol": b"GET / ICY/1.1\r\nHost: h\r\n\r\n",
    "a version in lower case": b"GET / http/1.1\r\nHost: h\r\n\r\n",
    "a version too many": b"GET / HTTP/1.1 HTTP/1.1\r\nHost: h\r\n\r\n",
    "a version of the future": b"GET / HTTP/2.0\r\nHost: h\r\n\r\n",
    "two spaces": b"GET  / HTTP/1.1\r\nHost: h\r\n\r\n",
    "a tab": b"GET\t/ HTTP/1.1\r\nHost: h\r\n\r\n",
    "a target that is none": b"GET nowhere HTTP/1.1\r\nHost: h\r\n\r\n",
    "a space in the target": b"GET /a b HTTP/1.1\r\nHost: h\r\n\r\n",
    "above the root": b"GET /../etc HTTP/1.1\r\nHost: h\r\n\r\n",
    "above the root, in disguise": b"GET /%2e%2E/etc HTTP/1.1\r\nHost: h\r\n\r\n",
    "half an escape": b"GET /%2 HTTP/1.1\r\nHost: h\r\n\r\n",
    "an absolute target of another scheme": b"GET ftp://h/ HTTP/1.1\r\nHost: h\r\n\r\n",
    "the other protocol's preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "a TLS handshake": bytes.fromhex("160301006a010000660303") + b"\x00" * 80,
}

# Wrong inside a chunked body: the head may have been passed on by then, but the
# message must never be completed.
CHUNKED = b"POST /body HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
BODIES = {
    "no number": b"x\r\n",
    "an empty size": b"\r\n",
    "a signed size": b"+1\r\na\r\n0\r\n\r\n",
    "a size with 0x": b"0x1\r\na\r\n0\r\n\r\n",
    "a size beyond all numbers": b"FFFFFFFFFFFFFFFFF\r\n",
    "a size that wraps": b"10000000000000001\r\na\r\n0\r\n\r\n",
    "space before the size": b" 1\r\na\r\n0\r\n\r\n",
    "a size that ends in a line feed": b"1\na\r\n0\r\n\r\n",
    "a line feed in an extension": b"1;a\nb\r\na\r\n0\r\n\r\n",
    "a carriage return in an extension": b"1;a\rb\r\na\r\n0\r\n\r\n",
    "data longer than its size": b"1\r\nab\r\n0\r\n\r\n",
    "data without its end": b"1\r\na0\r\n\r\n",
    "an end of one byte": b"1\r\na\n0\r\n\r\n",
    "a trailer without a colon": b"0\r\nnothing\r\n\r\n",
    "a folded trailer": b"0\r\nX: a\r\n b\r\n\r\n",
    "a trailer with a bare line feed": b"0\r\nX: a\n\r\n",
}


class Smuggling(Scenario):
    def setUp(self):
        super().setUp()
        self.completed: list[str] = []

        def read_all(origin, request, connection):
            connection.read_body(request)
            self.completed.append(request.target)
            answer(connection, b"a")

        self.a = self.origin("a", read_all)
        self.fleet(self.config({"/*": [self.a]}))

    def statuses(self, data: bytes) -> list[int]:
        """Statuses of everything that is answered until the proxy closes."""
        return [int(s) for s in re.findall(rb"HTTP/1\.[01] (\d{3})", exchange(self.port, data))]

    def test_heads(self):
        for name, data in HEADS.items():
            with self.subTest(name):
                statuses = self.statuses(data + EVIL)
                self.assertEqual(1, len(statuses), statuses)
                self.assertIn(statuses[0], (400, 501, 505))
                self.assertEqual([], self.completed)
                self.assertEqual(0, self.a.count(), "no backend sees any of it")
        # And it is alive and well afterwards.
        self.assertEqual(200, get(self.port, "/").status)

    def test_chunked_bodies(self):
        for name, data in BODIES.items():
            with self.subTest(name):
                statuses = self.statuses(CHUNKED + data + EVIL)
                self.assertIn(statuses, ([400], []))
                self.assertEqual([], self.completed)
        self.assertNotIn("/smuggled", [r.target for r in self.a.seen()])
        self.assertEqual(200, get(self.port, "/").status)

    def test_the_second_of_two_requests_is_its_own(self):
        # The controls: well-formed neighbours of the above are forwarded whole.
        for body in (
            b"POST /one HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nGET",
            b"POST /one HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: Chunked\r\n\r\n3;a=b\r\nGET\r\n0\r\nX: a\r\n\r\n",
            b"\r\nGET /one HTTP/1.1\r\nHost:h\r\n\r\n",
        ):
            self.completed.clear()
            last = b"GET /two HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"
            self.assertEqual([200, 200], self.statuses(body + last))
            self.assertEqual(["/one", "/two"], self.completed)
