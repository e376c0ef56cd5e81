package loop_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	routetablev1 "reverseproxy/proto/routetable/v1"
)

// TestRequestHead sends a head and checks every byte of what the backend gets.
// HOST stands for the backend's host.
func TestRequestHead(t *testing.T) { onEachDriver(t, testRequestHead) }

func testRequestHead(t *testing.T, driver string) {
	const forwarded = "X-Forwarded-For: 127.0.0.1\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Host: a.example\r\n\r\n"
	const added = "Via: 1.1 reverseproxy\r\n" + forwarded
	tests := []struct {
		name, send, want string
	}{
		{
			"RFC 9112 3.1: fields pass in their order",
			"GET /p?q=1 HTTP/1.1\r\nB: 2\r\nHost: a.example\r\na:1\r\nB:  3 \r\n\r\n",
			"GET /p?q=1 HTTP/1.1\r\nHost: a.example\r\nB: 2\r\na:1\r\nB:  3 \r\n" + added,
		}, {
			"RFC 9110 7.6.1: hop-by-hop fields end here",
			"GET / HTTP/1.1\r\nHost: a.example\r\nConnection: keep-alive\r\nKeep-Alive: 5\r\nProxy-Connection: close\r\nTE: gzip\r\nUpgrade: x\r\nA: 1\r\n\r\n",
			"GET / HTTP/1.1\r\nHost: a.example\r\nA: 1\r\n" + added,
		}, {
			"RFC 9110 7.6.1: so do fields named by Connection",
			"GET / HTTP/1.1\r\nHost: a.example\r\nX-A: 1\r\nx-b: 2\r\nConnection: x-a, close , X-B\r\nX-C: 3\r\n\r\n",
			"GET / HTTP/1.1\r\nHost: a.example\r\nX-C: 3\r\n" + added,
		}, {
			"RFC 9110 7.6.1: Connection cannot remove Host or Content-Length",
			"POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 3\r\nConnection: host, content-length\r\n\r\nabc",
			"POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 3\r\n" + added,
		}, {
			"RFC 9110 11.7: credentials for a proxy are not for the backend",
			"GET / HTTP/1.1\r\nHost: a.example\r\nProxy-Authorization: Basic eA==\r\nAuthorization: Basic eQ==\r\n\r\n",
			"GET / HTTP/1.1\r\nHost: a.example\r\nAuthorization: Basic eQ==\r\n" + added,
		}, {
			"RFC 9110 7.6.3: Via is appended to what came",
			"GET / HTTP/1.1\r\nHost: a.example\r\nVia: 1.1 edge\r\n\r\n",
			"GET / HTTP/1.1\r\nHost: a.example\r\nVia: 1.1 edge\r\n" + added,
		}, {
			"X-Forwarded fields are replaced",
			"GET / HTTP/1.1\r\nHost: a.example\r\nX-Forwarded-For: 1.1.1.1\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: evil\r\nX-Forwarded-For: 2.2.2.2, 3.3.3.3\r\n\r\n",
			"GET / HTTP/1.1\r\nHost: a.example\r\nVia: 1.1 reverseproxy\r\nX-Forwarded-For: 127.0.0.1\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Host: a.example\r\n\r\n",
		}, {
			"RFC 7239: Forwarded passes as it came",
			"GET / HTTP/1.1\r\nHost: a.example\r\nForwarded: for=1.1.1.1\r\n\r\n",
			"GET / HTTP/1.1\r\nHost: a.example\r\nForwarded: for=1.1.1.1\r\n" + added,
		}, {
			"RFC 9112 3.2.2: absolute-form becomes origin-form, and its authority the Host",
			"GET http://a.example/x?y HTTP/1.1\r\nHost: b.example\r\n\r\n",
			"GET /x?y HTTP/1.1\r\nHost: a.example\r\n" + added,
		}, {
			"RFC 9112 3.2.1: absolute-form without a path",
			"GET http://a.example?y HTTP/1.1\r\nHost: a.example\r\n\r\n",
			"GET /?y HTTP/1.1\r\nHost: a.example\r\n" + added,
		}, {
			"RFC 9110 2.5: HTTP/1.0 becomes 1.1, with the backend's host when there is none",
			"GET / HTTP/1.0\r\n\r\n",
			"GET / HTTP/1.1\r\nHost: HOST\r\nVia: 1.0 reverseproxy\r\nX-Forwarded-For: 127.0.0.1\r\nX-Forwarded-Proto: http\r\n\r\n",
		}, {
			"RFC 9110 10.1.4: TE: trailers is offered again",
			"GET / HTTP/1.1\r\nHost: a.example\r\nTE: deflate, trailers\r\nConnection: TE\r\n\r\n",
			"GET / HTTP/1.1\r\nHost: a.example\r\nConnection: TE\r\nTE: trailers\r\n" + added,
		}, {
			"RFC 9110 10.1.1: Expect of HTTP/1.0 means nothing",
			"POST / HTTP/1.0\r\nHost: a.example\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\nx",
			"POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 1\r\nVia: 1.0 reverseproxy\r\n" + forwarded,
		}, {
			"RFC 9110 7.6.2: Max-Forwards of OPTIONS is counted down",
			"OPTIONS /x HTTP/1.1\r\nHost: a.example\r\nMax-Forwards: 7\r\n\r\n",
			"OPTIONS /x HTTP/1.1\r\nHost: a.example\r\nMax-Forwards: 6\r\n" + added,
		}, {
			"RFC 9110 7.6.2: Max-Forwards of other methods means nothing",
			"GET /x HTTP/1.1\r\nHost: a.example\r\nMax-Forwards: 0\r\n\r\n",
			"GET /x HTTP/1.1\r\nHost: a.example\r\nMax-Forwards: 0\r\n" + added,
		}, {
			"RFC 9112 6.1: Transfer-Encoding is written anew",
			"POST / HTTP/1.1\r\nHost: a.example\r\ntransfer-encoding:  Chunked\r\nA: 1\r\n\r\n0\r\n\r\n",
			"POST / HTTP/1.1\r\nHost: a.example\r\nA: 1\r\nTransfer-Encoding: chunked\r\n" + added,
		}, {
			"RFC 9113 3.1: an upgrade to h2c is not passed on",
			"GET / HTTP/1.1\r\nHost: a.example\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: H2C\r\nHTTP2-Settings: AA\r\n\r\n",
			"GET / HTTP/1.1\r\nHost: a.example\r\n" + added,
		}, {
			"RFC 9110 7.8: another upgrade is",
			"GET / HTTP/1.1\r\nHost: a.example\r\nConnection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\n\r\n",
			"GET / HTTP/1.1\r\nHost: a.example\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\nConnection: Upgrade\r\n" + added,
		}, {
			"RFC 9110 7.8: not from HTTP/1.0",
			"GET / HTTP/1.0\r\nHost: a.example\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
			"GET / HTTP/1.1\r\nHost: a.example\r\nVia: 1.0 reverseproxy\r\n" + forwarded,
		}, {
			"RFC 9112 2.2: empty lines before the request are skipped",
			"\r\n\r\nGET / HTTP/1.1\r\nHost: a.example\r\n\r\n",
			"GET / HTTP/1.1\r\nHost: a.example\r\n" + added,
		}, {
			"RFC 9110 9.1: any method passes",
			"FROB / HTTP/1.1\r\nHost: a.example\r\n\r\n",
			"FROB / HTTP/1.1\r\nHost: a.example\r\n" + added,
		},
	}
	got := make(chan message, 1)
	o := serve(t, answers(func(m message) string { got <- m; return ok }))
	r := start(t, driver, endpoint("/*", o.url))
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := dial(t, r.addr)
			c.send(tt.send)
			m := c.response()
			if m.line != "HTTP/1.1 200 OK" {
				t.Fatalf("got %q", m.head)
			}
			if diff := cmp.Diff(strings.ReplaceAll(tt.want, "HOST", o.host), receive(t, got).head); diff != "" {
				t.Errorf("head (-want +got):\n%s", diff)
			}
		})
	}
}

func TestReplaceHost(t *testing.T) { onEachDriver(t, testReplaceHost) }

func testReplaceHost(t *testing.T, driver string) {
	got := make(chan message, 1)
	o := serve(t, answers(func(m message) string { got <- m; return ok }))
	r := start(t, driver, endpoint("/*", o.url), last(func(e *routetablev1.Endpoint) { e.ReplaceHost = true }))
	dial(t, r.addr).send("GET / HTTP/1.1\r\nHost: a.example\r\n\r\n").response()
	m := receive(t, got)
	if h := m.field("Host"); h != o.host {
		t.Errorf("Host: %q", h)
	}
	if h := m.field("X-Forwarded-Host"); h != "a.example" {
		t.Errorf("X-Forwarded-Host: %q", h)
	}
}

// TestRFC9112_11_2_Smuggling: what is ambiguous is answered and closed, and never
// reaches a backend, nor does what comes after it.
func TestRFC9112_11_2_Smuggling(t *testing.T) { onEachDriver(t, testSmuggling) }

func testSmuggling(t *testing.T, driver string) {
	const host = "Host: a.example\r\n"
	tests := []struct {
		name, send string
		want       int
	}{
		{"Content-Length and Transfer-Encoding", "POST / HTTP/1.1\r\n" + host + "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400},
		{"two Content-Length", "POST / HTTP/1.1\r\n" + host + "Content-Length: 4\r\nContent-Length: 5\r\n\r\nabcde", 400},
		{"same Content-Length twice", "POST / HTTP/1.1\r\n" + host + "Content-Length: 4\r\nContent-Length: 4\r\n\r\nabcd", 400},
		{"list in Content-Length", "POST / HTTP/1.1\r\n" + host + "Content-Length: 4, 4\r\n\r\nabcd", 400},
		{"signed Content-Length", "POST / HTTP/1.1\r\n" + host + "Content-Length: +4\r\n\r\nabcd", 400},
		{"unknown coding", "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501},
		{"unknown coding", "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 501},
		{"vertical tab in coding", "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: \vchunked\r\n\r\n0\r\n\r\n", 400},
		{"space before colon", "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n", 400},
		{"folded line", "POST / HTTP/1.1\r\n" + host + "A: b\r\n Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400},
		{"bare LF", "GET / HTTP/1.1\n" + host + "\r\n", 400},
		{"bare CR", "GET / HTTP/1.1\r\n" + host + "A: b\rc\r\n\r\n", 400},
		{"NUL", "GET / HTTP/1.1\r\n" + host + "A: b\x00c\r\n\r\n", 400},
		{"no Host", "GET / HTTP/1.1\r\n\r\n", 400},
		{"two Hosts", "GET / HTTP/1.1\r\n" + host + host + "\r\n", 400},
		{"chunked in HTTP/1.0", "POST / HTTP/1.0\r\n" + host + "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400},
		{"bad chunk size", "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\n\r\n0x0\r\n\r\n", 400},
		{"huge chunk size", "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n\r\n", 400},
		{"bad chunk extension", "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\n\r\n0;a\nb\r\n\r\n", 400},
		{"version", "GET / HTTP/2.0\r\n" + host + "\r\n", 505},
		{"no version", "GET /\r\n\r\n", 400},
		{"method", "G(T / HTTP/1.1\r\n" + host + "\r\n", 400},
		{"path above the root", "GET /../x HTTP/1.1\r\n" + host + "\r\n", 400},
		{"encoded path above the root", "GET /%2e%2e/x HTTP/1.1\r\n" + host + "\r\n", 400},
		{"long target", "GET /" + body(9000) + " HTTP/1.1\r\n" + host + "\r\n", 414},
		{"long head", "GET / HTTP/1.1\r\n" + host + "A: " + body(70000) + "\r\n\r\n", 431},
		{"many fields", "GET / HTTP/1.1\r\n" + host + strings.Repeat("A: b\r\n", 101) + "\r\n", 431},
	}
	o := serve(t, func(p *peer) {
		m, err := p.request()
		t.Errorf("reached the backend: %q %v", m.head, err)
	})
	r := start(t, driver, endpoint("/*", o.url))
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			// A second request follows and must not be answered.
			all := once(t, r.addr, tt.send+"GET /smuggled HTTP/1.1\r\n"+host+"\r\n")
			if got := status(t, all); got != tt.want {
				t.Errorf("got %d, want %d", got, tt.want)
			}
			if strings.Count(all, "HTTP/1.1 ") != 1 || !strings.Contains(all, "Connection: close\r\n") {
				t.Errorf("not one response that closes: %q", all)
			}
		})
	}
	if n := o.conns.Load(); n != 0 {
		t.Errorf("%d connections to the backend", n)
	}
}

func TestProxyAnswers(t *testing.T) { onEachDriver(t, testProxyAnswers) }

func testProxyAnswers(t *testing.T, driver string) {
	o := serve(t, func(p *peer) { t.Error("reached the backend") })
	page := "# metrics\n"
	r := start(t, driver,
		endpoint("/get", o.url), last(func(e *routetablev1.Endpoint) { e.Methods = []string{"GET", "HEAD"} }),
		endpoint("/drained", o.url), last(func(e *routetablev1.Endpoint) { e.Pool[0].Weight = 0 }),
		endpoint("/dead", "http://"+dead(t)),
		withPage(page),
	)
	tests := []struct {
		name, send string
		want       string // status line
		fields     []string
		body       string
	}{
		{"RFC 9110 15.5.5: no endpoint", "GET /none HTTP/1.1\r\nHost: a\r\n\r\n", "HTTP/1.1 404 Not Found", []string{"Content-Type: text/plain; charset=utf-8"}, "There is nothing here.\n"},
		{"RFC 9110 15.5.6: Allow", "POST /get HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 405 Method Not Allowed", []string{"Allow: GET, HEAD"}, "The method is not allowed here.\n"},
		{"RFC 9110 15.6.4: every weight is 0", "GET /drained HTTP/1.1\r\nHost: a\r\n\r\n", "HTTP/1.1 503 Service Unavailable", nil, "Nobody can take the request now.\n"},
		{"RFC 9110 15.6.3: refused", "GET /dead HTTP/1.1\r\nHost: a\r\n\r\n", "HTTP/1.1 502 Bad Gateway", nil, "The backend could not be reached or gave no valid answer.\n"},
		{"RFC 9110 9.3.6: CONNECT", "CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n", "HTTP/1.1 501 Not Implemented", []string{"Connection: close"}, "The request needs something that is not supported here.\n"},
		{"RFC 9110 9.3.8: TRACE", "TRACE /get HTTP/1.1\r\nHost: a\r\n\r\n", "HTTP/1.1 405 Method Not Allowed", []string{"Allow: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"}, "The method is not allowed here.\n"},
		{"RFC 9110 9.3.7: OPTIONS *", "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", "HTTP/1.1 200 OK", []string{"Content-Length: 0", "Allow: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"}, ""},
		{"RFC 9112 3.2.4: OPTIONS of a whole server in absolute-form", "OPTIONS http://a HTTP/1.1\r\nHost: a\r\n\r\n", "HTTP/1.1 200 OK", []string{"Content-Length: 0"}, ""},
		{"RFC 9110 7.6.2: Max-Forwards 0", "OPTIONS /get HTTP/1.1\r\nHost: a\r\nMax-Forwards: 0\r\n\r\n", "HTTP/1.1 200 OK", []string{"Content-Length: 0"}, ""},
		{"metrics page", "GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n", "HTTP/1.1 200 OK", []string{"Content-Type: text/x-test"}, page},
		{"metrics page with another method", "POST /metrics HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 404 Not Found", nil, "There is nothing here.\n"},
		{"RFC 9112 C.2.2: keep-alive of HTTP/1.0", "GET /none HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", "HTTP/1.1 404 Not Found", []string{"Connection: keep-alive"}, "There is nothing here.\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := dial(t, r.addr)
			m := c.send(tt.send).response()
			if m.line != tt.want || m.body != tt.body {
				t.Errorf("got %q %q", m.line, m.body)
			}
			for _, f := range append(tt.fields, "Date: ") {
				if !strings.Contains(m.head, "\r\n"+f) {
					t.Errorf("no %q in %q", f, m.head)
				}
			}
			if strings.Contains(m.head, "Server:") || strings.Contains(m.head+m.body, "127.0.0.1") {
				t.Errorf("says too much: %q", m.head+m.body)
			}
			if m.field("Connection") == "close" {
				c.ends()
				return
			}
			if next := c.send("HEAD /none HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"); !strings.HasPrefix(next.mustHead(), "HTTP/1.1 404 ") {
				t.Error("the connection does not persist")
			}
			c.ends() // RFC 9110 section 9.3.2: HEAD has no content
		})
	}
}
