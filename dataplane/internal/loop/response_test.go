package loop_test

import (
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/types/known/durationpb"

	routetablev1 "reverseproxy/proto/routetable/v1"
)

const date = "Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n"

// TestResponse checks every byte of what the client gets for a response. An
// origin that closes does so at once.
func TestResponse(t *testing.T) { onEachDriver(t, testResponse) }

func testResponse(t *testing.T, driver string) {
	const get = "GET / HTTP/1.1\r\nHost: a\r\n\r\n"
	const get10 = "GET / HTTP/1.0\r\nHost: a\r\n\r\n"
	const via = "Via: 1.1 reverseproxy\r\n"
	tests := []struct {
		name, send, response string
		close                bool
		want                 string
		persists             bool
	}{
		{
			name: "RFC 9112 6.2: Content-Length", send: get,
			response: "HTTP/1.1 200 Fine\r\n" + date + "Server: o\r\nContent-Length: 3\r\n\r\nabc",
			want:     "HTTP/1.1 200 Fine\r\n" + date + "Server: o\r\nContent-Length: 3\r\n" + via + "\r\nabc", persists: true,
		}, {
			name: "RFC 9112 7.1: chunked passes byte for byte, with extensions and trailers", send: get,
			response: "HTTP/1.1 200 OK\r\n" + date + "Trailer: X\r\nTransfer-Encoding: Chunked\r\n\r\n003;a=b\r\nabc\r\n0\r\nX: y\r\n\r\n",
			want:     "HTTP/1.1 200 OK\r\n" + date + "Trailer: X\r\nTransfer-Encoding: chunked\r\n" + via + "\r\n003;a=b\r\nabc\r\n0\r\nX: y\r\n\r\n", persists: true,
		}, {
			name: "RFC 9112 6.1: chunked is decoded for HTTP/1.0, trailers dropped", send: get10,
			response: "HTTP/1.1 200 OK\r\n" + date + "Trailer: X\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\nX: y\r\n\r\n",
			want:     "HTTP/1.1 200 OK\r\n" + date + via + "Connection: close\r\n\r\nabcde",
		}, {
			name: "RFC 9112 6.3: delimited by close becomes chunked", send: get, close: true,
			response: "HTTP/1.1 200 OK\r\n" + date + "\r\nabc",
			want:     "HTTP/1.1 200 OK\r\n" + date + "Transfer-Encoding: chunked\r\n" + via + "\r\n3\r\nabc\r\n0\r\n\r\n", persists: true,
		}, {
			name: "RFC 9112 6.3: delimited by close stays so for HTTP/1.0", send: get10, close: true,
			response: "HTTP/1.0 200 OK\r\n" + date + "\r\nabc",
			want:     "HTTP/1.1 200 OK\r\n" + date + "Via: 1.0 reverseproxy\r\nConnection: close\r\n\r\nabc",
		}, {
			name: "RFC 9110 9.3.2: HEAD", send: "HEAD / HTTP/1.1\r\nHost: a\r\n\r\n",
			response: "HTTP/1.1 200 OK\r\n" + date + "Content-Length: 7\r\n\r\n",
			want:     "HTTP/1.1 200 OK\r\n" + date + "Content-Length: 7\r\n" + via + "\r\n", persists: true,
		}, {
			name: "RFC 9110 15.3.5: 204", send: get,
			response: "HTTP/1.1 204 No Content\r\n" + date + "\r\n",
			want:     "HTTP/1.1 204 No Content\r\n" + date + via + "\r\n", persists: true,
		}, {
			name: "RFC 9110 15.4.5: 304 with the length of what is not sent", send: get,
			response: "HTTP/1.1 304 Not Modified\r\n" + date + "ETag: \"a\"\r\nContent-Length: 9\r\n\r\n",
			want:     "HTTP/1.1 304 Not Modified\r\n" + date + "ETag: \"a\"\r\nContent-Length: 9\r\n" + via + "\r\n", persists: true,
		}, {
			name: "RFC 9110 7.6.1: fields of the backend's connection", send: get, close: true,
			response: "HTTP/1.1 200 OK\r\n" + date + "Connection: close, X-A\r\nX-A: 1\r\nKeep-Alive: 3\r\nUpgrade: h2c\r\nContent-Length: 0\r\n\r\n",
			want:     "HTTP/1.1 200 OK\r\n" + date + "Content-Length: 0\r\n" + via + "\r\n", persists: true,
		}, {
			name: "RFC 9110 7.6.3: Via is appended", send: get,
			response: "HTTP/1.1 200 OK\r\n" + date + "Via: 1.0 deep\r\nContent-Length: 0\r\n\r\n",
			want:     "HTTP/1.1 200 OK\r\n" + date + "Via: 1.0 deep\r\nContent-Length: 0\r\n" + via + "\r\n", persists: true,
		}, {
			name: "RFC 9110 15.5.22: 426 keeps Upgrade", send: get,
			response: "HTTP/1.1 426 Upgrade Required\r\n" + date + "Connection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 0\r\n\r\n",
			want:     "HTTP/1.1 426 Upgrade Required\r\n" + date + "Upgrade: websocket\r\nContent-Length: 0\r\n" + via + "Connection: Upgrade\r\n\r\n", persists: true,
		}, {
			name: "RFC 9112 9.3: Connection: close of the client", send: "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
			response: "HTTP/1.1 200 OK\r\n" + date + "Content-Length: 1\r\n\r\na",
			want:     "HTTP/1.1 200 OK\r\n" + date + "Content-Length: 1\r\n" + via + "Connection: close\r\n\r\na",
		}, {
			name: "RFC 9112 9.3: HTTP/1.0 does not persist", send: get10,
			response: "HTTP/1.1 200 OK\r\n" + date + "Content-Length: 1\r\n\r\na",
			want:     "HTTP/1.1 200 OK\r\n" + date + "Content-Length: 1\r\n" + via + "Connection: close\r\n\r\na",
		}, {
			name: "RFC 9112 C.2.2: unless it asks for it", send: "GET / HTTP/1.0\r\nHost: a\r\nConnection: Keep-Alive\r\n\r\n",
			response: "HTTP/1.1 200 OK\r\n" + date + "Content-Length: 1\r\n\r\na",
			want:     "HTTP/1.1 200 OK\r\n" + date + "Content-Length: 1\r\n" + via + "Connection: keep-alive\r\n\r\na", persists: true,
		}, {
			name: "RFC 9110 15.2: 1xx are relayed", send: get,
			response: "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\nConnection: x\r\n\r\nHTTP/1.1 200 OK\r\n" + date + "Content-Length: 1\r\n\r\na",
			want:     "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\n" + date + "Content-Length: 1\r\n" + via + "\r\na", persists: true,
		}, {
			name: "RFC 9110 15.2: not to HTTP/1.0", send: get10,
			response: "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\n" + date + "Content-Length: 1\r\n\r\na",
			want:     "HTTP/1.1 200 OK\r\n" + date + "Content-Length: 1\r\n" + via + "Connection: close\r\n\r\na",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			first := true
			o := serve(t, func(p *peer) {
				for {
					if _, err := p.request(); err != nil {
						return
					}
					if !first {
						p.send(ok)
						continue
					}
					first = false
					p.send(tt.response)
					if tt.close {
						return
					}
				}
			})
			r := start(t, driver, endpoint("/*", o.url))
			c := dial(t, r.addr).send(tt.send)
			got := make([]byte, len(tt.want))
			n, err := io.ReadFull(c.in, got)
			if diff := cmp.Diff(tt.want, string(got[:n])); diff != "" || err != nil {
				t.Fatalf("response: %v (-want +got):\n%s", err, diff)
			}
			if !tt.persists {
				c.ends()
				return
			}
			if m := c.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").response(); m.body != "ok" {
				t.Errorf("second response %q", m.head)
			}
			c.ends()
		})
	}
}

func TestRFC9110_6_6_1_DateIsAdded(t *testing.T) { onEachDriver(t, testDateIsAdded) }

func testDateIsAdded(t *testing.T, driver string) {
	o := serve(t, always("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"))
	r := start(t, driver, endpoint("/*", o.url))
	m := dial(t, r.addr).send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").response()
	when, err := time.Parse("Mon, 02 Jan 2006 15:04:05 GMT", m.field("Date"))
	if err != nil || time.Since(when).Abs() > time.Minute {
		t.Errorf("Date %q: %v", m.field("Date"), err)
	}
}

// TestBackendFails: what the client gets when the backend breaks off or speaks
// nonsense. A response that has begun must not look complete.
func TestBackendFails(t *testing.T) { onEachDriver(t, testBackendFails) }

func testBackendFails(t *testing.T, driver string) {
	const get = "GET / HTTP/1.1\r\nHost: a\r\n\r\n"
	const get10 = "GET / HTTP/1.0\r\n\r\n"
	tests := []struct {
		name, send, response string
		reset                bool
		want                 string // status line
		cut                  string // the body; "" is a whole answer of the proxy
		torn                 bool   // the client sees a reset
	}{
		{name: "RFC 9112 9.3.1: closed without an answer", send: get, want: "HTTP/1.1 502 Bad Gateway"},
		{name: "RFC 9112 9.3.1: reset without an answer", send: get, reset: true, want: "HTTP/1.1 502 Bad Gateway"},
		{name: "RFC 9112 8: closed in the head", send: get, response: "HTTP/1.1 200 OK\r\nA: ", want: "HTTP/1.1 502 Bad Gateway"},
		{name: "not HTTP", send: get, response: "SSH-2.0-OpenSSH_9\r\n", want: "HTTP/1.1 502 Bad Gateway"},
		{name: "RFC 9112 6.3: two lengths", send: get, response: "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", want: "HTTP/1.1 502 Bad Gateway"},
		{name: "RFC 9112 6.3: length and chunked", send: get, response: "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", want: "HTTP/1.1 502 Bad Gateway"},
		{name: "RFC 9110 15.2.2: 101 that nobody asked for", send: get, response: "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n", want: "HTTP/1.1 502 Bad Gateway"},
		{name: "1xx without end", send: get10, response: strings.Repeat("HTTP/1.1 103 Early Hints\r\n\r\n", 100), want: "HTTP/1.1 502 Bad Gateway"},
		{name: "head too large", send: get, response: "HTTP/1.1 200 OK\r\nA: " + body(70000) + "\r\n\r\n", want: "HTTP/1.1 502 Bad Gateway"},
		{name: "bad first chunk", send: get, response: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", want: "HTTP/1.1 502 Bad Gateway"},
		{name: "RFC 9112 8: Content-Length cut short", send: get, response: "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc", want: "HTTP/1.1 200 OK", cut: "abc"},
		{name: "RFC 9112 8: Content-Length cut short by a reset", send: get, response: "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc", reset: true, want: "HTTP/1.1 200 OK", cut: "abc"},
		{name: "RFC 9112 8: chunked cut short", send: get, response: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", want: "HTTP/1.1 200 OK", cut: "3\r\nabc\r\n"},
		{name: "RFC 9112 8: delimited by close, but reset", send: get, response: "HTTP/1.1 200 OK\r\n\r\nabc", reset: true, want: "HTTP/1.1 200 OK", cut: "3\r\nabc\r\n"},
		{name: "RFC 9112 8: delimited by close, but reset, for HTTP/1.0", send: get10, response: "HTTP/1.1 200 OK\r\n\r\nabc", reset: true, want: "HTTP/1.1 200 OK", cut: "abc", torn: true},
		{name: "RFC 9112 8: chunked cut short for HTTP/1.0", send: get10, response: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", want: "HTTP/1.1 200 OK", cut: "abc", torn: true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			read := make(chan struct{})
			o := serve(t, func(p *peer) {
				if _, err := p.request(); err != nil {
					return
				}
				p.send(tt.response)
				if tt.cut != "" {
					<-read // so that the failure is not seen before the response
				}
				if tt.reset {
					_ = p.SetLinger(0)
				}
				_ = p.Close()
			})
			r := start(t, driver, endpoint("/*", o.url))
			c := dial(t, r.addr).send(tt.send)
			if tt.cut == "" {
				m := c.response()
				if m.line != tt.want || m.body != "The backend could not be reached or gave no valid answer.\n" {
					t.Errorf("got %q %q", m.line, m.body)
				}
				return
			}
			m, err := c.head()
			if err != nil || m.line != tt.want {
				t.Fatalf("got %q: %v", m.head, err)
			}
			got := make([]byte, len(tt.cut))
			if _, err := io.ReadFull(c.in, got); err != nil || string(got) != tt.cut {
				t.Errorf("got %q: %v", got, err)
			}
			close(read)
			rest, clean := c.rest()
			if rest != "" || clean == tt.torn {
				t.Errorf("ends with %q, cleanly: %t", rest, clean)
			}
		})
	}
}

// TestNeverPooled: a connection with something after its response, or unasked,
// gets no other request (RFC 9112 section 9.2).
func TestRFC9112_9_2_NeverPooled(t *testing.T) { onEachDriver(t, testNeverPooled) }

func testNeverPooled(t *testing.T, driver string) {
	tests := map[string]string{
		"bytes after the body":       ok + "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged",
		"bytes after the last chunk": "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
		"bytes after a 204":          "HTTP/1.1 204 No Content\r\n\r\nx",
	}
	for name, response := range tests {
		t.Run(name, func(t *testing.T) {
			o := serve(t, always(response))
			r := start(t, driver, endpoint("/*", o.url))
			c := dial(t, r.addr)
			for range 3 {
				if m := c.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").response(); m.body == "forged" {
					t.Fatal("got the response of nobody")
				}
			}
			if n := o.conns.Load(); n != 3 {
				t.Errorf("%d connections, want 3", n)
			}
		})
	}
	t.Run("bytes while idle", func(t *testing.T) {
		speak, gone := make(chan struct{}), make(chan struct{})
		o := serve(t, func(p *peer) {
			if _, err := p.request(); err == nil {
				p.send(ok)
				<-speak
				p.send("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged")
				p.ends()
				gone <- struct{}{}
			}
		})
		r := start(t, driver, endpoint("/*", o.url))
		c := dial(t, r.addr)
		for range 3 {
			if m := c.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").response(); m.body != "ok" {
				t.Fatalf("got %q", m.body)
			}
			speak <- struct{}{}
			receive(t, gone)
		}
	})
}

// TestStaleConnection: a backend that closes a connection it has kept loses no
// request that may be sent again (RFC 9112 section 9.3.1), and gets no other one
// twice.
func TestRFC9112_9_3_1_StaleConnection(t *testing.T) {
	onEachDriver(t, testStaleConnection)
}

func testStaleConnection(t *testing.T, driver string) {
	tests := []struct {
		name, send string
		want       int
	}{
		{"GET", "GET /again HTTP/1.1\r\nHost: a\r\n\r\n", 200},
		{"PUT with its body", "PUT /again HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc", 200},
		{"POST", "POST /again HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", 502},
		{"unknown method", "FROB /again HTTP/1.1\r\nHost: a\r\n\r\n", 502},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			seen := make(chan message, 9)
			o := serve(t, func(p *peer) {
				for i := 0; ; i++ {
					m, err := p.request()
					if err != nil {
						return
					}
					seen <- m
					if i == 1 {
						return // the second of a connection is not answered
					}
					p.send(ok)
				}
			})
			r := start(t, driver, endpoint("/*", o.url))
			c := dial(t, r.addr)
			c.send("GET /first HTTP/1.1\r\nHost: a\r\n\r\n").response()
			m := c.send(tt.send).response()
			if got := status(t, m.head+"\r\n"); got != tt.want {
				t.Errorf("got %d, want %d", got, tt.want)
			}
			receive(t, seen)
			first := receive(t, seen)
			if tt.want == 200 {
				if second := receive(t, seen); second != first || !strings.Contains(first.line, "/again") {
					t.Errorf("sent %q again as %q", first, second)
				}
			}
			if n := len(seen); n != 0 {
				t.Errorf("%d requests too many", n)
			}
		})
	}
}

func TestNotRetriedOnceTheResponseHasBegun(t *testing.T) {
	onEachDriver(t, testNotRetriedOnceTheResponseHasBegun)
}

func testNotRetriedOnceTheResponseHasBegun(t *testing.T, driver string) {
	o := serve(t, func(p *peer) {
		for i := 0; ; i++ {
			if _, err := p.request(); err != nil {
				return
			}
			if i == 1 {
				p.send("HTTP/1.1 2")
				return
			}
			p.send(ok)
		}
	})
	r := start(t, driver, endpoint("/*", o.url))
	c := dial(t, r.addr)
	c.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").response()
	if m := c.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").response(); !strings.Contains(m.line, "502") {
		t.Errorf("got %q", m.line)
	}
}

func TestTimeouts(t *testing.T) { onEachDriver(t, testTimeouts) }

func testTimeouts(t *testing.T, driver string) {
	short := durationpb.New(100 * time.Millisecond)
	hang := func(p *peer) { p.rest() }
	tests := []struct {
		name   string
		origin func(*peer)
		change func(*routetablev1.Endpoint)
		limits func(*routetablev1.Limits)
		send   string
		want   string // prefix of all that comes
		none   bool   // nothing comes
	}{
		{
			name: "RFC 9110 15.6.5: no response", origin: hang, send: "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
			change: func(e *routetablev1.Endpoint) { e.Timeouts.Response = short }, want: "HTTP/1.1 504 Gateway Timeout\r\n",
		}, {
			name: "RFC 9110 15.6.5: only a part of a response head", send: "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
			origin: func(p *peer) { p.send("HTTP/1.1 200 OK\r\nA:"); p.rest() },
			change: func(e *routetablev1.Endpoint) { e.Timeouts.Response = short }, want: "HTTP/1.1 504 Gateway Timeout\r\n",
		}, {
			name: "RFC 9110 15.5.9: slow head", send: "GET / HTTP/1.1\r\n",
			limits: func(l *routetablev1.Limits) { l.HeaderTimeout = short }, want: "HTTP/1.1 408 Request Timeout\r\n",
		}, {
			name: "RFC 9110 15.5.9: slow body", origin: hang, send: "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nabc",
			change: func(e *routetablev1.Endpoint) { e.Timeouts.Idle = short }, want: "HTTP/1.1 408 Request Timeout\r\n",
		}, {
			name: "no byte at all", limits: func(l *routetablev1.Limits) { l.IdleTimeout = short }, none: true,
		}, {
			name: "idle connection", origin: always(ok), send: "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
			limits: func(l *routetablev1.Limits) { l.IdleTimeout = short }, want: "HTTP/1.1 200 OK\r\n",
		}, {
			name: "silence in the response", send: "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
			origin: func(p *peer) { p.send("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc"); p.rest() },
			change: func(e *routetablev1.Endpoint) { e.Timeouts.Idle = short }, want: "HTTP/1.1 200 OK\r\n",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if tt.origin == nil {
				tt.origin = func(*peer) { t.Error("reached the backend") }
			}
			o := serve(t, tt.origin)
			settings := []setting{endpoint("/*", o.url)}
			if tt.change != nil {
				settings = append(settings, last(tt.change))
			}
			if tt.limits != nil {
				settings = append(settings, limits(tt.limits))
			}
			r := start(t, driver, settings...)
			all := once(t, r.addr, tt.send)
			if !strings.HasPrefix(all, tt.want) || tt.none && all != "" {
				t.Errorf("got %q, want %q", all, tt.want)
			}
		})
	}
}

func TestRFC9110_10_1_1_ExpectContinue(t *testing.T) {
	onEachDriver(t, testExpectContinue)
}

func testExpectContinue(t *testing.T, driver string) {
	o := serve(t, func(p *peer) {
		m, err := p.head()
		if err != nil || m.field("Expect") != "100-continue" {
			t.Errorf("head %q: %v", m.head, err)
		}
		if strings.Contains(m.line, "/no") {
			p.send("HTTP/1.1 417 Expectation Failed\r\nContent-Length: 0\r\n\r\n")
			p.rest()
			return
		}
		p.send("HTTP/1.1 100 Continue\r\n\r\n")
		if m, err = p.framed(m); m.body != "abc" || err != nil {
			t.Errorf("body %q: %v", m.body, err)
		}
		p.send(strings.Replace(ok, "\r\n\r\n", "\r\nConnection: close\r\n\r\n", 1))
		p.rest()
	})
	r := start(t, driver, endpoint("/*", o.url))
	const request = "POST %s HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n"
	t.Run("accepted", func(t *testing.T) {
		c := dial(t, r.addr).send(fmt.Sprintf(request, "/yes"))
		if m := c.response(); m.line != "HTTP/1.1 100 Continue" {
			t.Fatalf("got %q", m.line)
		}
		if m := c.send("abc").response(); m.body != "ok" || m.field("Connection") != "" {
			t.Errorf("got %q", m.head)
		}
	})
	t.Run("refused", func(t *testing.T) {
		c := dial(t, r.addr).send(fmt.Sprintf(request, "/no"))
		if m := c.response(); m.line != "HTTP/1.1 417 Expectation Failed" || m.field("Connection") != "close" {
			t.Fatalf("got %q", m.head)
		}
		c.ends()
	})
}
