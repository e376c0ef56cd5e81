"""What a client and a backend see of each other through the proxy."""

import threading

from e2e.harness import Client, Scenario, answer, eventually, exchange, free_port, get, send


class Forwarding(Scenario):
    def test_fields_of_the_request(self):
        a = self.origin("a")
        self.fleet(self.config({"/x": [a]}))
        fields = [
            ("Connection", "close, X-Secret"),
            ("X-Secret", "1"),
            ("Keep-Alive", "timeout=5"),
            ("TE", "trailers"),
            ("X-Forwarded-For", "192.0.2.1"),
            ("X-Custom", "  kept  "),
        ]
        with Client(self.port) as c:
            self.assertEqual(200, c.request("/x", fields=fields, host="Shop.Example:80").status)
        (r,) = a.seen()
        self.assertEqual(["Shop.Example:80"], r.all("Host"))
        self.assertEqual(["Shop.Example:80"], r.all("X-Forwarded-Host"))
        self.assertEqual(["http"], r.all("X-Forwarded-Proto"))
        self.assertEqual(["127.0.0.1"], r.all("X-Forwarded-For"))
        self.assertEqual(["kept"], r.all("X-Custom"))
        self.assertEqual([], r.all("X-Secret") + r.all("Keep-Alive"))
        self.assertEqual(1, len(r.all("Via")))

    def test_preserve_host_false_sends_the_pool_urls_host(self):
        a = self.origin("a")
        self.fleet(self.config({"/x": [a]}, extra="defaults: {preserveHost: false}"))
        get(self.port, "/x", host="shop.example")
        self.assertEqual("127.0.0.1:%d" % a.port, a.seen()[0].get("Host"))
        self.assertEqual("shop.example", a.seen()[0].get("X-Forwarded-Host"))

    def test_matching_by_host_method_and_header(self):
        a, b, c, d = (self.origin(n) for n in "abcd")
        text = """
- {from: /x, pool: [%s]}
- {from: /x, host: shop.example, pool: [%s]}
- {from: /x, host: "*.example", pool: [%s], methods: [GET]}
- {from: /x, host: shop.example, headers: {x-beta: "1"}, pool: [%s]}
""" % (a.url, b.url, c.url, d.url)
        self.fleet(self.config({}) + text)
        self.assertEqual("a", get(self.port, "/x", host="other").text)
        self.assertEqual("b", get(self.port, "/x", host="SHOP.example:8000").text)
        self.assertEqual("c", get(self.port, "/x", host="deep.www.example").text)
        self.assertEqual("d", get(self.port, "/x", [("X-Beta", "1")], host="shop.example").text)
        self.assertEqual("a", get(self.port, "/x", host="www.example", method="POST").text)

    def test_answers_of_the_proxy_itself(self):
        a = self.origin("a")
        text = self.config({"/get": [a], "/dead": ["http://127.0.0.1:%d" % free_port()]})
        text = text.replace("- from: /get", "- from: /get\n  methods: [GET, HEAD]")
        self.fleet(text)
        self.assertEqual(404, get(self.port, "/none").status)
        r = get(self.port, "/get", method="PUT")
        self.assertEqual((405, "GET, HEAD"), (r.status, r.get("Allow")))
        r = get(self.port, "/dead")
        self.assertEqual(502, r.status)
        self.assertNotIn("127.0.0.1", r.text)
        self.assertNotIn("refused", r.text)
        self.assertEqual(1, len(r.text.splitlines()))
        self.assertIsNone(r.get("Server"))
        self.assertEqual(414, get(self.port, "/" + "x" * 9000).status)
        self.assertEqual(431, get(self.port, "/get", [("X-Big", "x" * 70000)]).status)
        self.assertEqual(431, get(self.port, "/get", [("X-%d" % i, "") for i in range(150)]).status)

    def test_pipelined_requests_are_answered_in_order(self):
        def echo(origin, request, connection):
            connection.read_body(request)
            answer(connection, request.target.encode() + request.body)

        a = self.origin("a", echo)
        self.fleet(self.config({"/*": [a]}))
        with Client(self.port) as c:
            requests = [b"GET /%d HTTP/1.1\r\nHost: h\r\n\r\n" % i for i in range(20)]
            requests.insert(7, b"POST /p HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nbody")
            c.send(b"".join(requests))
            got = [c.response().text for _ in requests]
        want = ["/%d" % i for i in range(20)]
        want.insert(7, "/pbody")
        self.assertEqual(want, got)

    def test_a_head_that_comes_byte_by_byte(self):
        a = self.origin("a")
        self.fleet(self.config({"/x": [a]}))
        with Client(self.port) as c:
            for byte in b"POST /x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n":
                c.send(bytes([byte]))
            self.assertEqual(200, c.response().status)
        self.assertEqual(b"abc", a.seen()[0].body)

    def test_an_http_1_0_client(self):
        def chunked(origin, request, connection):
            connection.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n")

        a = self.origin("a", chunked)
        self.fleet(self.config({"/x": [a]}))
        got = exchange(self.port, b"GET /x HTTP/1.0\r\n\r\n")
        self.assertTrue(got.startswith(b"HTTP/1.1 200"), got)
        self.assertTrue(got.endswith(b"\r\n\r\nabc"), got)
        self.assertNotIn(b"chunked", got)

    def test_expect_100_continue_is_relayed(self):
        def careful(origin, request, connection):
            if request.target == "/yes":
                connection.send(b"HTTP/1.1 100 Continue\r\n\r\n")
                connection.read_body(request)
                answer(connection, b"got " + request.body)
                return True
            answer(connection, b"no", "413 Content Too Large", [("Connection", "close")])
            return False

        a = self.origin("a", careful)
        self.fleet(self.config({"/*": [a]}))
        head = b"POST %s HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n"
        with Client(self.port) as c:
            c.send(head % b"/yes")
            self.assertEqual(100, c.head().status)
            c.send(b"body")
            self.assertEqual("got body", c.response().text)
        with Client(self.port) as c:
            c.send(head % b"/no")
            r = c.response()
            self.assertEqual((413, []), (r.status, r.informational))

    def test_early_hints_and_trailers_are_relayed(self):
        def generous(origin, request, connection):
            connection.read_body(request)
            connection.send(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n")
            connection.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n")
            connection.send(b"3\r\nabc\r\n0\r\nX-Sum: 6\r\n\r\n")

        a = self.origin("a", generous)
        self.fleet(self.config({"/x": [a]}))
        with Client(self.port) as c:
            r = c.request("/x", fields=[("TE", "trailers"), ("Connection", "TE")])
        self.assertEqual((200, [103], "abc"), (r.status, r.informational, r.text))
        self.assertEqual([("X-Sum", "6")], r.trailers)

    def test_head_204_and_304_have_no_body(self):
        def bodiless(origin, request, connection):
            connection.read_body(request)
            status = {"/204": "204 No Content", "/304": "304 Not Modified"}.get(request.target, "200 OK")
            length = b"" if status.startswith("204") else b"Content-Length: 5\r\n"
            connection.send(b"HTTP/1.1 %s\r\n%s\r\n" % (status.encode(), length))

        a = self.origin("a", bodiless)
        self.fleet(self.config({"/*": [a]}))
        with Client(self.port) as c:
            self.assertEqual((200, "5"), ((r := c.request("/", "HEAD")).status, r.get("Content-Length")))
            self.assertEqual(204, c.request("/204").status)
            self.assertEqual(304, c.request("/304").status)
            self.assertEqual(200, c.request("/", "HEAD").status)


class BackendTrouble(Scenario):
    def test_truncation_is_never_a_clean_end(self):
        def cut(origin, request, connection):
            if request.target == "/length":
                connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
            else:
                connection.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n")
            return False

        a = self.origin("a", cut)
        self.fleet(self.config({"/*": [a]}))
        for path in ("/length", "/chunked"):
            with self.subTest(path), Client(self.port) as c:
                r = c.request(path)
                self.assertEqual((200, "half", False), (r.status, r.text, r.complete))

    def test_nonsense_is_502(self):
        nonsense = {
            "/no-http": b"hello\r\n\r\n",
            "/bad-status": b"HTTP/1.1 20x OK\r\n\r\n",
            "/both": b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
            "/two-lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
            "/fold": b"HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 0\r\n\r\n",
            "/bare-lf": b"HTTP/1.1 200 OK\nContent-Length: 0\n\n",
            "/nothing": b"",
            "/half-a-head": b"HTTP/1.1 200 OK\r\nContent-Le",
        }

        def talk(origin, request, connection):
            connection.read_body(request)
            connection.send(nonsense[request.target])
            return False

        a = self.origin("a", talk)
        self.fleet(self.config({"/*": [a]}))
        for path in nonsense:
            with self.subTest(path):
                self.assertEqual(502, get(self.port, path).status)

    def test_too_slow_is_504(self):
        release = threading.Event()
        self.addCleanup(release.set)
        a = self.origin("a", lambda origin, request, connection: release.wait(60) and False)
        self.fleet(self.config({"/x": [a]}, extra="defaults: {timeouts: {response: 200ms}}"))
        self.assertEqual(504, get(self.port, "/x").status)

    def test_a_stale_connection_is_not_the_clients_problem(self):
        a = self.origin("a")
        self.fleet(self.config({"/x": [a]}))
        with Client(self.port) as c:
            for _ in range(20):
                self.assertEqual(200, c.request("/x").status)
                a.drop_connections()

    def test_an_early_answer_while_the_body_is_still_coming(self):
        def impatient(origin, request, connection):
            next(connection.body(request))
            answer(connection, b"enough", "403 Forbidden", [("Connection", "close")])
            return False

        a = self.origin("a", impatient)
        self.fleet(self.config({"/x": [a]}))
        with Client(self.port) as c:
            c.send(b"POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000\r\n\r\n" + b"x" * 1000)
            r = c.response()
            self.assertEqual((403, "enough", True), (r.status, r.text, r.complete))

    def test_a_client_that_leaves_frees_the_backend(self):
        left, waiting = threading.Event(), threading.Event()

        def endless(origin, request, connection):
            waiting.set()
            try:
                connection.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
                while True:
                    connection.send(b"1000\r\n" + b"x" * 0x1000 + b"\r\n")
            finally:
                left.set()

        a = self.origin("a", endless)
        _, (dp,) = self.fleet(self.config({"/x": [a]}))
        with Client(self.port) as c:
            c.send(b"GET /x HTTP/1.1\r\nHost: h\r\n\r\n")
            self.assertEqual(200, c.head().status)
        self.assertTrue(left.wait(20), "the backend connection stays open")
        eventually(lambda: dp.metrics().value("dataplane_requests_in_flight", endpoint="/x") == 0, "nothing in flight")


class Upgrade(Scenario):
    def setUp(self):
        super().setUp()

        def echo(origin, request, connection):
            if request.get("Upgrade") is None:
                answer(connection, b"plain")
                return True
            connection.send(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\nhello ")
            while piece := connection.file.read1(1 << 16):
                connection.send(piece)
            connection.send(b" bye")
            return False

        self.a = self.origin("a", echo)

    REQUEST = b"GET /ws HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n"

    def test_a_tunnel_both_ways_and_half_closed(self):
        _, (dp,) = self.fleet(self.config({"/ws": [self.a]}))
        with Client(self.port) as c:
            # Bytes right behind the head belong to the tunnel.
            c.send(self.REQUEST + b"early")
            r = c.head()
            self.assertEqual((101, "echo"), (r.status, r.get("Upgrade")))
            self.assertEqual("upgrade", r.get("Connection").lower())
            self.assertEqual(b"hello early", c.exactly(11))
            eventually(lambda: dp.metrics().sum("dataplane_connections", state="tunnel") == 1, "it is counted")
            for size in (1, 1000, 1 << 20):
                data = bytes(i % 251 for i in range(size))
                sender = threading.Thread(target=c.send, args=(data,))
                sender.start()
                self.assertEqual(data, c.exactly(size))
                sender.join()
            c.socket.shutdown(1)  # no more from here; the other way stays open
            self.assertEqual(b" bye", c.rest())
        self.assertEqual(["echo"], self.a.seen()[0].all("Upgrade"))
        eventually(lambda: dp.metrics().sum("dataplane_connections", state="tunnel") == 0, "it is over")

    def test_a_tunnel_outlives_a_change(self):
        b = self.origin("b")
        cp, (dp,) = self.fleet(self.config({"/ws": [self.a]}))
        with Client(self.port) as c:
            c.send(self.REQUEST)
            self.assertEqual(101, c.head().status)
            self.assertEqual(b"hello ", c.exactly(6))
            self.change(cp, self.config({"/ws": [b]}), dp)
            self.assertEqual("b", get(self.port, "/ws").text)
            c.send(b"still here")
            self.assertEqual(b"still here", c.exactly(10))

    def test_an_upgrade_that_is_declined_is_an_ordinary_answer(self):
        b = self.origin("b")
        self.fleet(self.config({"/ws": [b]}))
        with Client(self.port) as c:
            c.send(self.REQUEST)
            self.assertEqual((200, "b"), ((r := c.response()).status, r.text))
            self.assertEqual((200, "b"), ((r := c.request("/ws")).status, r.text))

    def test_connect_is_refused(self):
        self.fleet(self.config({"/*": [self.a]}))
        r = send(self.port, b"CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\n\r\n", "CONNECT")
        self.assertGreaterEqual(r.status, 400)
        self.assertEqual(0, self.a.count())
