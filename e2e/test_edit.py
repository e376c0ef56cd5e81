"""Headers that are edited, paths that are rewritten, endpoints that answer by themselves."""

import json

from e2e.harness import Client, Load, Scenario, eventually, exchange, get
from e2e.harness.scenario import write


class Edit(Scenario):
    def endpoints(self, *entries: str, top: str = "") -> str:
        """A file of these endpoints, each in YAML's flow form."""
        lines = ["port: %d" % self.port, *filter(None, [top]), "endpoints:", *("- {%s}" % e for e in entries)]
        return "\n".join(lines) + "\n"

    def test_headers(self):
        a = self.origin("a", _talkative)
        config = self.endpoints(
            "from: /x, pool: [%s], requestHeaders: {set: {X-Client: '${client}', x-set: '$$1'}, add: {X-About: "
            "'${method} ${scheme}://${host}${path}?${query} ${endpoint} ${requestId}'}, remove: [X-Secret]},"
            "responseHeaders: {set: {Server: mine}, add: {X-For: '${path}'}, remove: [x-powered-by]}" % a.url,
            top="requestId: true\ndefaults: {responseHeaders: {set: {X-Frame-Options: DENY, SERVER: theirs}}}",
        )
        self.fleet(config)
        fields = [
            ("x-client", "evil"), ("X-CLIENT", "evil"), ("X-Set", "0"), ("X-Secret", "1"), ("x-secret", "2"),
            ("X-Kept", "k"), ("X-Request-Id", "id"),
        ]  # fmt: skip
        with Client(self.port) as c:
            r = c.request("/x?q", fields=fields, host="Shop.example:8000")
        (q,) = a.seen()
        self.assertEqual(["127.0.0.1"], q.all("X-Client"))
        self.assertEqual(["$1"], q.all("X-Set"))
        self.assertEqual([], q.all("X-Secret"))
        self.assertEqual(["k"], q.all("X-Kept"))
        self.assertEqual(["GET http://Shop.example/x?q /x id"], q.all("X-About"))
        self.assertEqual(["mine"], r.all("Server"))
        self.assertEqual(["DENY"], r.all("X-Frame-Options"))
        self.assertEqual(["/x"], r.all("X-For"))
        self.assertEqual([], r.all("X-Powered-By"))
        self.assertEqual(["a", "b"], r.all("Set-Cookie"))

    def test_answers_of_the_proxy_are_edited(self):
        config = self.endpoints(
            "from: /dead, pool: ['http://127.0.0.1:1'], responseHeaders: {set: {X-Frame-Options: DENY, Content-Type: text/x}}",
            "from: /drained, pool: [{url: 'http://127.0.0.1:1', weight: 0}], responseHeaders: {set: {X-Frame-Options: DENY}}",
        )
        self.fleet(config)
        dead, drained, none = (get(self.port, p) for p in ("/dead", "/drained", "/none"))
        self.assertEqual((502, ["DENY"], ["text/x"]), (dead.status, dead.all("X-Frame-Options"), dead.all("Content-Type")))
        self.assertEqual((503, ["DENY"]), (drained.status, drained.all("X-Frame-Options")))
        self.assertEqual((404, []), (none.status, none.all("X-Frame-Options")))

    def test_rewrites(self):
        a = self.origin("a")
        config = self.endpoints(
            "from: /path, pool: [%s], rewrite: {path: /x}" % a.url,
            "from: /based, pool: ['%s/base'], rewrite: {path: /x}" % a.url,
            "from: /prefix/*, pool: ['%s/base?v=1'], rewrite: {prefix: /}" % a.url,
            "from: /regex/*, pool: [%s], rewrite: {regex: {match: '^/regex/([a-z]+)/(.*)$', replace: '/$2/${1}'}}" % a.url,
            "from: /cut/*, pool: ['%s/base'], rewrite: {regex: {match: '/cut|_', replace: ''}}" % a.url,
        )
        cp, _ = self.fleet(config)
        for path, want in {
            "/path?q": "/x?q",
            "/based": "/base/x",
            "/prefix": "/base/?v=1",
            "/prefix/a%2Fb//c?q": "/base/a%2Fb//c?v=1&q",
            "/regex/abc/d%2fe": "/d%2Fe/abc",
            "/regex/abc": "/regex/abc",
            "/%72egex/./abc/d?x=/regex/": "/d/abc?x=/regex/",
            "/cut/a_b": "/base/ab",
            "/cut/._./a": None,
            "/cut/b/._./a": "/base/a",
            "/cut/.%5F./a": None,
            "/cut": None,
        }.items():
            r = get(self.port, path)
            self.assertEqual((400, None) if want is None else (200, want), (r.status, r.get("X-Target")), path)
            explained = json.loads(cp.cli("explain", "-o", "json", "http://a" + path).stdout)
            lines = [b["requestLine"] for b in explained["backends"]]
            self.assertEqual([] if want is None else ["GET %s HTTP/1.1" % want], lines, path)
        self.assertEqual(9, a.count())

    def test_answers(self):
        config = self.endpoints(
            "name: moved, from: /moved/*, redirect: {to: 'https://${host}${path}?${query}', status: 308}",
            "from: /local/*, redirect: {to: '${path}x'}, methods: [GET]",
            "from: /json, respond: {status: 203, body: '{}', headers: {Content-Type: application/json, X-A: '${path}'}}",
            "from: /empty, respond: {status: 204}",
            "name: down, from: /down, respond: {status: 503, body: later, headers: {Retry-After: '5'}}",
        )
        _, (dp,) = self.fleet(config)
        with Client(self.port) as c:
            r = c.request("/moved/a%20b?x=1", host="shop.example:80")
            self.assertEqual((308, "https://shop.example/moved/a%20b?x=1", b""), (r.status, r.get("Location"), r.body))
            r = c.request("/moved", host="shop.example", method="POST", body=b"abc")
            self.assertEqual((308, "https://shop.example/moved"), (r.status, r.get("Location")))
            r = c.request("/json")
            self.assertEqual((203, b"{}", ["application/json"], "/json"), (r.status, r.body, r.all("Content-Type"), r.get("X-A")))
            r = c.request("/json", method="HEAD")
            self.assertEqual((203, "2"), (r.status, r.get("Content-Length")))
            r = c.request("/empty")
            self.assertEqual((204, None, None), (r.status, r.get("Content-Length"), r.get("Transfer-Encoding")))
            r = c.request("/down")
            self.assertEqual((503, b"later", "5"), (r.status, r.body, r.get("Retry-After")))
            self.assertEqual(["text/plain; charset=utf-8"], r.all("Content-Type"))
            self.assertEqual(405, c.request("/local/", method="PUT", body=b"").status)
            self.assertFalse(c.ended())
        m = dp.metrics()
        self.assertEqual(1, m.value("dataplane_requests_total", endpoint="moved", code="308", method="GET"))
        self.assertEqual(1, m.value("dataplane_requests_total", endpoint="down", code="503", method="GET"))
        described = {e["name"]: e for e in json.loads(get(dp.admin_port, "/config").text)["endpoints"]}
        self.assertEqual(("308 https://${host}${path}?${query}", []), (described["moved"]["answer"], described["moved"]["pool"]))

    def test_nothing_is_smuggled_in(self):
        a = self.origin("a")
        config = self.endpoints(
            "from: /*, pool: [%s], requestHeaders: {set: {X-All: '${client}|${host}|${method}|${path}|${query}|${requestId}'}},"
            "responseHeaders: {set: {X-All: '${client}|${host}|${method}|${path}|${query}|${requestId}'}}" % a.url,
            "from: /to/*, redirect: {to: '${path}?${query}'}",
            "from: /up/*, pool: ['%s/base'], rewrite: {regex: {match: '^/up/(.*)$', replace: '/$1'}}" % a.url,
            top="requestId: true",
        )
        self.fleet(config)
        for head in (
            b"GET /a HTTP/1.1\r\nHost: a\r\nX-Request-Id: x\rX-Evil: 1\r\n\r\n",
            b"GET /a HTTP/1.1\r\nHost: a\nX-Evil: 1\r\n\r\n",
            b"GET /a\rX-Evil: HTTP/1.1\r\nHost: a\r\n\r\n",
            b"G\x00T /a HTTP/1.1\r\nHost: a\r\n\r\n",
        ):
            self.assertIn(b" 400 ", exchange(self.port, head).split(b"\r\n")[0])
        self.assertEqual(0, a.count())
        for target in ("/a%0d%0aX-Evil:%201", "/a?%0aX-Evil:1", '/"<>|\\?{}`', "//evil.example/", "/a|b?c|d"):
            r = get(self.port, target, fields=[("X-Request-Id", "a\tb"), ("X-All", "1"), ("x-all", "2")])
            self.assertEqual((200, target), (r.status, r.get("X-Target")))
            self.assertEqual([], r.all("X-Evil") + a.seen()[-1].all("X-Evil"))
            path, _, query = target.partition("?")
            (line,) = r.all("X-All")
            self.assertTrue(line.startswith("127.0.0.1|test.example|GET|%s|%s|" % (path, query)), line)
            self.assertEqual([line], a.seen()[-1].all("X-All"))
        # A redirect stays on this server, and is one line.
        self.assertEqual("/to//evil.example/%0d%0a?%22%3C", get(self.port, '/to//evil.example/%0d%0a?"<').get("Location"))
        seen = a.count()
        for target in ("/up/../../secret", "/up/%2e%2e/%2e%2e/secret"):
            self.assertEqual(400, get(self.port, target).status)
        self.assertEqual(seen, a.count())
        # What looks like an escape after the rewrite was one before.
        self.assertEqual("/base/%252e%252e/x", get(self.port, "/up/%252e%252e/x").get("X-Target"))

    def test_a_thousand_requests_on_one_connection(self):
        a = self.origin("a", record=False)
        config = self.endpoints(
            "from: /plain, pool: [%s]" % a.url,
            "from: /edited, pool: [%s], responseHeaders: {set: {X-Path: '${path}?${query}'}, remove: [X-Origin]}" % a.url,
            "from: /rewritten/*, pool: [%s], rewrite: {prefix: /new}" % a.url,
            "from: /fixed, respond: {body: fixed}",
            "from: /moved, redirect: {to: '/new?${query}'}",
        )
        self.fleet(config)
        with Client(self.port) as c:
            for i in range(200):
                r = c.request("/plain?%d" % i)
                self.assertEqual(("a", "/plain?%d" % i, None), (r.get("X-Origin"), r.get("X-Target"), r.get("X-Path")))
                r = c.request("/edited?%d" % i)
                self.assertEqual((None, "/edited?%d" % i, "/edited?%d" % i), (r.get("X-Origin"), r.get("X-Target"), r.get("X-Path")))
                r = c.request("/rewritten/%d" % i, method="POST", body=b"x" * i)
                self.assertEqual(("a", "/new/%d" % i, None), (r.get("X-Origin"), r.get("X-Target"), r.get("X-Path")))
                self.assertEqual("fixed", c.request("/fixed").text)
                self.assertEqual("/new?%d" % i, c.request("/moved?%d" % i).get("Location"))

    def test_changes_under_load(self):
        a, b = self.origin("a", record=False), self.origin("b", record=False)

        def config(i: int) -> str:
            return self.endpoints(
                "from: /x, pool: [%s, %s], requestHeaders: {set: {X-Round: '%d'}}, "
                "responseHeaders: {set: {X-Round: '%d'}}, rewrite: {path: /r%d}"
                % (a.url, b.url, i, i, i)
            )

        cp, (dp,) = self.fleet(config(0))
        with Load(self.port, {"/x": ["a", "b"]}) as load:
            for i in range(1, 11):
                self.change(cp, config(i), dp)
                r = get(self.port, "/x")
                self.assertEqual(("%d" % i, "/r%d" % i), (r.get("X-Round"), r.get("X-Target")))
            self.wait_load(load, 200)
        self.assert_no_failures(load)
        self.assertEqual([], load.duplicates(a, b))
        self.say("%d requests over 10 changes of edits, none lost or doubled" % load.total())

    def test_bad_edits_change_nothing(self):
        cp, (dp,) = self.fleet(self.endpoints("from: /x, respond: {body: good}"))
        write(cp.config, self.endpoints("from: /x, respond: {body: bad, headers: {Content-Length: '1'}}"))
        eventually(lambda: "cannot be edited: it says where the message ends" in cp.status()["config"]["error"], "it is refused")
        self.assertEqual("good", get(self.port, "/x").text)


def _talkative(origin, request, connection):
    """Answers with what a server says about itself."""
    connection.read_body(request)
    connection.send(
        b"HTTP/1.1 200 OK\r\nserver: Apache\r\nSERVER: again\r\nX-Powered-By: PHP\r\nx-powered-BY: more\r\n"
        b"Set-Cookie: a\r\nSet-Cookie: b\r\nContent-Length: 0\r\n\r\n"
    )
