package proxy_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"reverseproxy/dataplane/internal/proxy"
)

const (
	get      = "GET /x HTTP/1.1\r\nHost: a\r\n\r\n"
	getSent  = "GET /x HTTP/1.1\r\nHost: a\r\n" + added
	added    = "Via: 1.1 reverseproxy\r\nX-Forwarded-For: 192.0.2.1\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Host: a\r\n\r\n"
	okay     = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
	okaySent = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nVia: 1.1 reverseproxy\r\n\r\nok"
)

var errReset = errors.New("reset")

// scenario is one exchange after another on a connection, and what must come out
// however the bytes are cut.
type scenario struct {
	name      string
	client    string   // all that the client sends
	responses []string // of the backend, to one request each; "" closes instead
	toOrigin  string   // all that backends get
	toClient  string   // all that the client gets, without Date
	closed    bool     // the client's connection ends
}

var scenarios = []scenario{
	{name: "GET", client: get, responses: []string{okay}, toOrigin: getSent, toClient: okaySent},
	{
		name: "bodies both ways", client: "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nabcde" + get,
		responses: []string{"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nwxyz\r\n0\r\nT: 1\r\n\r\n", okay},
		toOrigin:  "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n" + added + "abcde" + getSent,
		toClient:  "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nVia: 1.1 reverseproxy\r\n\r\n4\r\nwxyz\r\n0\r\nT: 1\r\n\r\n" + okaySent,
	}, {
		name: "chunked request", client: "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2;x=\"y\"\r\nab\r\n0\r\nA: b\r\n\r\n",
		responses: []string{okay},
		toOrigin:  "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n" + added + "2;x=\"y\"\r\nab\r\n0\r\nA: b\r\n\r\n",
		toClient:  okaySent,
	}, {
		name: "interim responses", client: get, responses: []string{"HTTP/1.1 103 Early Hints\r\nA: b\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n" + okay},
		toOrigin: getSent, toClient: "HTTP/1.1 103 Early Hints\r\nA: b\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n" + okaySent,
	}, {
		name: "pipelined, one answered here", client: get + "GET /../ HTTP/1.1\r\nHost: a\r\n\r\n" + get, responses: []string{okay},
		toOrigin: getSent, closed: true,
		toClient: okaySent + "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 31\r\nConnection: close\r\n\r\nThe request is not valid HTTP.\n",
	}, {
		name: "HTTP/1.0 and a chunked response", client: "GET / HTTP/1.0\r\nHost: a\r\n\r\n",
		responses: []string{"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nwxyz\r\n3\r\nabc\r\n0\r\n\r\n"},
		toOrigin:  "GET / HTTP/1.1\r\nHost: a\r\n" + strings.Replace(added, "1.1", "1.0", 1),
		toClient:  "HTTP/1.1 200 OK\r\nVia: 1.1 reverseproxy\r\nConnection: close\r\n\r\nwxyzabc", closed: true,
	}, {
		name: "HEAD, 204, 304", client: "HEAD / HTTP/1.1\r\nHost: a\r\n\r\n" + get + get,
		responses: []string{"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n", "HTTP/1.1 204 No Content\r\n\r\n", "HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n"},
		toOrigin:  "HEAD / HTTP/1.1\r\nHost: a\r\n" + added + getSent + getSent,
		toClient:  "HTTP/1.1 200 OK\r\nContent-Length: 7\r\nVia: 1.1 reverseproxy\r\n\r\nHTTP/1.1 204 No Content\r\nVia: 1.1 reverseproxy\r\n\r\nHTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\nVia: 1.1 reverseproxy\r\n\r\n",
	}, {
		name: "nonsense of a backend", client: get, responses: []string{"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n"}, toOrigin: getSent,
		toClient: "HTTP/1.1 502 Bad Gateway\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 58\r\n\r\nThe backend could not be reached or gave no valid answer.\n",
	}, {
		name: "upgrade", client: "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\nearly",
		responses: []string{"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\nhello"},
		toOrigin:  "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: x\r\nConnection: Upgrade\r\n" + added + "early",
		toClient:  "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\nVia: 1.1 reverseproxy\r\n\r\nhello",
	},
}

// play runs a scenario. cut says how many of the bytes that one side may send now
// are sent at once; it decides about the interleaving, too.
func play(t *testing.T, s scenario, holds bool, cut func(n int) int) {
	w := newWorld(t, anything())
	w.holds = holds
	w.recycle = true
	client := w.accept()
	var toOrigin string
	var toClient strings.Builder
	input := s.client
	requests, connected := 0, 0
	type stream struct {
		end  *end
		left string
	}
	var origin stream
	for steps := 0; ; steps++ {
		if steps > 100_000 {
			t.Fatal("does not end")
		}
		progress := false
		if len(input) > 0 && !client.paused && !client.closed {
			n := cut(len(input))
			w.data(client, input[:n])
			input = input[n:]
			progress = true
		}
		for ; connected < len(w.dialled); connected++ {
			w.connect(w.dialled[connected])
			progress = true
		}
		for _, e := range w.dialled {
			if len(e.sent) > 0 && !e.closed {
				origin.end = e
			}
		}
		if e := origin.end; e != nil && !e.closed {
			toOrigin += e.take()
			// A response is due when a whole request more than before is there.
			if origin.left == "" && requests < len(s.responses) && whole(toOrigin) > requests {
				origin.left = s.responses[requests]
				requests++
			}
			if len(origin.left) > 0 && !e.paused {
				n := cut(len(origin.left))
				p := origin.left[:n]
				origin.left = origin.left[n:]
				w.data(e, p)
				progress = true
			}
		} else if e != nil && e.closed {
			origin.left = ""
		}
		toClient.WriteString(client.take())
		if !progress {
			break
		}
	}
	if diff := cmp.Diff(s.toOrigin, toOrigin); diff != "" {
		t.Errorf("to the backend (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(s.toClient, undated(toClient.String())); diff != "" {
		t.Errorf("to the client (-want +got):\n%s", diff)
	}
	if ended := client.closed || client.shut; ended != s.closed {
		t.Errorf("ended: %t", ended)
	}
}

// whole counts the complete requests in what a backend got. Only as clever as the
// scenarios need.
func whole(s string) (n int) {
	for s != "" {
		head, rest, found := strings.Cut(s, "\r\n\r\n")
		if !found {
			return n
		}
		if strings.Contains(head, "chunked") {
			_, after, found := strings.Cut("\r\n"+rest, "\r\n0\r\n")
			if !found {
				return n
			}
			_, rest, found = strings.Cut("\r\n"+after, "\r\n\r\n")
			if !found {
				return n
			}
		}
		if strings.Contains(head, "Content-Length: 5") {
			if len(rest) < 5 {
				return n
			}
			rest = rest[5:]
		}
		if strings.Contains(head, "Upgrade: x") {
			return n + 1
		}
		n++
		s = rest
	}
	return n
}

// TestEverySplit cuts each scenario once at every byte, and into single bytes.
func TestEverySplit(t *testing.T) {
	for _, s := range scenarios {
		t.Run(s.name, func(t *testing.T) {
			play(t, s, false, func(n int) int { return n })
			play(t, s, true, func(n int) int { return n })
			play(t, s, false, func(int) int { return 1 })
			longest := len(s.client)
			for _, r := range s.responses {
				longest = max(longest, len(r))
			}
			for at := 1; at < longest && !t.Failed(); at++ {
				first := map[int]bool{}
				play(t, s, false, func(n int) int {
					if first[n] || n <= at {
						return n
					}
					first[n] = true
					return at
				})
			}
		})
	}
}

// TestRandomInterleavings cuts and mixes at random.
func TestRandomInterleavings(t *testing.T) {
	for _, s := range scenarios {
		t.Run(s.name, func(t *testing.T) {
			for seed := range uint64(200) {
				random := rand.New(rand.NewPCG(seed, 1))
				play(t, s, seed%2 == 1, func(n int) int { return 1 + random.IntN(min(n, 1+random.IntN(40))) })
				if t.Failed() {
					t.Fatalf("seed %d", seed)
				}
			}
		})
	}
}

// TestHeldBytesThatAreRefused: what a driver has kept for a moment, and the operating
// system does not take then, is waited for before the connection is closed.
func TestHeldBytesThatAreRefused(t *testing.T) {
	const upgrade, upgraded = "Upgrade: x\r\nConnection: upgrade\r\n\r\n", "HTTP/1.1 101 S\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"
	for _, tt := range []struct {
		name    string
		request string
		then    func(w *world, c, o *end)
		want    string // at the end of what the client gets
	}{
		{
			name: "the last response of a connection", request: "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
			then: func(w *world, _, o *end) { w.data(o, okay) }, want: "ok",
		},
		{
			name: "a body that ends with the connection", request: "GET / HTTP/1.0\r\n\r\n",
			then: func(w *world, _, o *end) {
				w.data(o, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n")
			}, want: "ok",
		},
		{
			name: "to a client that has stopped sending", request: get,
			then: func(w *world, c, o *end) {
				w.eof(c, nil)
				w.data(o, okay)
			}, want: "ok",
		},
		{
			name: "the end of a tunnel", request: "GET / HTTP/1.1\r\nHost: a\r\n" + upgrade,
			then: func(w *world, c, o *end) {
				w.data(o, upgraded)
				w.eof(c, nil)
				w.keeps = true
				w.data(o, "bye")
				w.eof(o, nil)
			}, want: "bye",
		},
		{
			name: "a client at rest that is sent away", request: get,
			then: func(w *world, c, o *end) {
				w.keeps = true
				w.data(o, okay)
				if w.engine.CloseIdle(&c.conn, int64(w.now)) {
					t.Error("sent away before it has its response")
				}
				w.drain(c)
				w.engine.CloseIdle(&c.conn, int64(w.now))
			}, want: "ok",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t, anything())
			c := w.accept()
			w.data(c, tt.request)
			o := w.dialled[0]
			w.connect(o)
			w.holds, c.stuck = true, true
			tt.then(w, c, o)
			if c.closed && len(c.sent) == 0 {
				t.Fatal("closed with nothing sent")
			}
			w.keeps = false
			w.settle()
			w.drain(c)
			if got := c.take(); !strings.HasSuffix(got, tt.want) || !c.closed {
				t.Errorf("got %q, closed %t", got, c.closed)
			}
		})
	}
}

// TestBackPressure: however much the sides send, no queue passes the bound, and
// nothing is lost.
func TestBackPressure(t *testing.T) {
	const size = 3 << 20
	data := strings.Repeat("0123456789abcdef", size/16)
	tests := []struct {
		name           string
		client, origin string
		body           bool // of the request
	}{
		{name: "response", client: get, origin: fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", size, data)},
		{name: "response that is chunked here", client: get, origin: "HTTP/1.1 200 OK\r\n\r\n" + data},
		{name: "request", client: fmt.Sprintf("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%s", size, data), body: true},
		{name: "tunnel, to the client", client: "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", origin: "HTTP/1.1 101 S\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n" + data},
		{name: "large head and body", client: get, origin: fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\nA: %s\r\n\r\n%s", size, data[:60000], data)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			random := rand.New(rand.NewPCG(1, 2))
			w := newWorld(t, anything())
			client := w.accept()
			input := tt.client
			feed := func(e *end, s *string) {
				for len(*s) > 0 && !e.paused && !e.closed {
					n := min(len(*s), 1+random.IntN(proxy.ReadSize))
					w.data(e, (*s)[:n])
					*s = (*s)[n:]
				}
			}
			feed(client, &input)
			o := w.dialled[0]
			if tt.body && len(input) == 0 {
				t.Fatal("all taken although the backend is not even connected")
			}
			w.connect(o)
			o.stuck, client.stuck = true, true
			output := tt.origin
			for len(input)+len(output)+len(client.queue)+len(o.queue) > 0 {
				before := len(input) + len(output) + len(client.queue) + len(o.queue)
				feed(client, &input)
				feed(o, &output)
				w.drain(client)
				w.drain(o)
				if before == len(input)+len(output)+len(client.queue)+len(o.queue) {
					t.Fatalf("stuck with %d bytes", before)
				}
			}
			if w.peak > proxy.MaxQueued {
				t.Errorf("%d bytes queued, bound %d", w.peak, proxy.MaxQueued)
			}
			if got := len(client.sent) + len(o.sent); got < size {
				t.Errorf("%d bytes came through", got)
			}
		})
	}
}

// TestPipelinedFlood: a client that sends requests and reads nothing is not
// answered without end.
func TestPipelinedFlood(t *testing.T) {
	w := newWorld(t)
	c := w.accept()
	c.stuck = true
	const flood = 200_000
	sent := 0
	for piece := strings.Repeat(get, 2000); sent < flood && !c.paused; sent += 2000 {
		w.data(c, piece)
	}
	if sent >= flood || w.peak > proxy.MaxQueued {
		t.Errorf("%d requests taken, %d bytes queued", sent, w.peak)
	}
	for range 10_000 {
		w.drain(c)
	}
	if n, _ := w.totals(); n != uint64(sent) || c.paused {
		t.Errorf("%d answered of %d", n, sent)
	}
}

// TestBytesBehindAResponse: a driver shows what it has read, and there may be more.
// It is not taken for the response to the next request of the same client.
func TestBytesBehindAResponse(t *testing.T) {
	for _, splices := range []bool{false, true} {
		body := strings.Repeat("x", 1<<20)
		response := fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", len(body))
		w := newWorld(t, anything())
		w.splices = splices
		c := w.accept()
		w.data(c, get+get)
		first := w.dialled[0]
		w.connect(first)
		w.data(first, response)
		w.data(first, body)
		if len(w.dialled) != 2 {
			t.Fatalf("%d connections for two requests", len(w.dialled))
		}
		w.data(first, "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged")
		second := w.dialled[1]
		w.connect(second)
		w.data(second, okay)
		if got := string(c.sent); strings.Contains(got, "forged") || !strings.HasSuffix(got, "ok") || !first.closed {
			t.Errorf("got ...%q, closed %v", got[max(0, len(got)-200):], first.closed)
		}
	}
}

func TestStaleRetry(t *testing.T) {
	start := func(t *testing.T) (*world, *end, *end) {
		w := newWorld(t, anything())
		c := w.accept()
		w.data(c, get)
		o := w.dialled[0]
		w.connect(o)
		w.data(o, okay)
		o.take()
		c.take()
		return w, c, o
	}
	for name, err := range map[string]error{"closed": nil, "reset": errReset} {
		t.Run(name+" while idle: never used", func(t *testing.T) {
			w, c, o := start(t)
			w.eof(o, err)
			if !o.closed {
				t.Error("kept")
			}
			w.data(c, get)
			if len(w.dialled) != 2 {
				t.Error("no new connection")
			}
		})
		t.Run(name+" after the request: sent again, once", func(t *testing.T) {
			w, c, o := start(t)
			w.data(c, get)
			if got := o.take(); got != getSent {
				t.Fatalf("not used again: %q", got)
			}
			w.eof(o, err)
			again := w.dialled[1]
			w.connect(again)
			if got := again.take(); got != getSent {
				t.Errorf("sent %q", got)
			}
			w.eof(again, err)
			if got := c.take(); !strings.HasPrefix(got, "HTTP/1.1 502 ") {
				t.Errorf("got %q", got)
			}
			if len(w.dialled) != 2 {
				t.Errorf("%d dials", len(w.dialled))
			}
		})
		t.Run(name+" after a POST: not sent again", func(t *testing.T) {
			w, c, o := start(t)
			w.data(c, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n")
			w.eof(o, err)
			if got := c.take(); !strings.HasPrefix(got, "HTTP/1.1 502 ") || len(w.dialled) != 1 {
				t.Errorf("got %q", got)
			}
		})
	}
	t.Run("closed in the middle of a PUT: not sent again", func(t *testing.T) {
		w, c, o := start(t)
		w.data(c, "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nab")
		w.eof(o, nil)
		if got := c.take(); !strings.HasPrefix(got, "HTTP/1.1 502 ") || len(w.dialled) != 1 {
			t.Errorf("got %q", got)
		}
	})
	t.Run("a POST takes no connection that has rested", func(t *testing.T) {
		w, c, o := start(t)
		w.pass(2*time.Second, c, o)
		w.data(c, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n")
		if len(w.dialled) != 2 || len(o.sent) != 0 {
			t.Error("it did")
		}
	})
}

func TestIdleBackendConnectionTimesOut(t *testing.T) {
	w := newWorld(t, anything())
	c := w.accept()
	w.data(c, get)
	o := w.dialled[0]
	w.connect(o)
	w.data(o, okay)
	w.pass(89*time.Second, o)
	if o.closed {
		t.Fatal("too early")
	}
	w.pass(2*time.Second, o)
	if !o.closed {
		t.Error("still open")
	}
}

// TestSlowButAlive: a client that reads slowly is not taken for a dead one, one
// that reads nothing is.
func TestSlowButAlive(t *testing.T) {
	w := newWorld(t, anything())
	c := w.accept()
	w.data(c, get)
	o := w.dialled[0]
	w.connect(o)
	c.stuck = true
	w.data(o, "HTTP/1.1 200 OK\r\nContent-Length: 999999\r\n\r\n"+strings.Repeat("x", 60_000))
	for range 20 {
		c.queue = c.queue[100:]
		w.pass(91*time.Second, c)
		if c.closed {
			t.Fatal("given up although it reads")
		}
	}
	w.pass(91*time.Second, c)
	if !c.aborted || !o.closed {
		t.Error("not given up")
	}
}

// TestTimeoutsOfTheBackend: what the client is told when a backend takes too long.
func TestTimeoutsOfTheBackend(t *testing.T) {
	const post = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n"
	tests := []struct {
		name, send string
		connects   bool
		after      time.Duration
		want       string
	}{
		{"to connect", get, false, 0, "HTTP/1.1 504 "},
		{"to respond", get, true, 31 * time.Second, "HTTP/1.1 504 "},
		{"to say 100", post + "Expect: 100-continue\r\n\r\n", true, 31 * time.Second, "HTTP/1.1 504 "},
		{"no: it is the client that is late", post + "\r\na", true, 91 * time.Second, "HTTP/1.1 408 "},
		{"no: late in its body", post + "Expect: 100-continue\r\n\r\na", true, 91 * time.Second, "HTTP/1.1 408 "},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t, anything())
			c := w.accept()
			w.data(c, tt.send)
			o := w.dialled[0]
			if !tt.connects {
				o.closed = true
				w.tick()
				w.engine.DialFailed(&o.conn, true)
			} else {
				w.connect(o)
				w.pass(tt.after-2*time.Second, c, o)
				if got := c.take(); got != "" {
					t.Fatalf("too early: %q", got)
				}
				w.pass(2*time.Second, c, o)
			}
			if got := c.take(); !strings.HasPrefix(got, tt.want) {
				t.Errorf("got %q", got)
			}
		})
	}
}

func TestMetricsPageWhoseClientHasLeft(t *testing.T) {
	w := newWorld(t)
	w.recycle = true
	c := w.accept()
	w.data(c, "GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n")
	w.eof(c, errReset)
	other := w.accept() // in the same memory
	w.data(other, "GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n")
	w.comeBack()
	if got := other.take(); strings.Count(got, "HTTP/1.1 200 OK") != 1 {
		t.Errorf("got %q", got)
	}
}

// TestEarlyResponseThenBodyEnds: the response ends first, so the rest of the
// request has nobody to go to and the connection ends.
func TestEarlyResponse(t *testing.T) {
	w := newWorld(t, anything())
	c := w.accept()
	w.data(c, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc")
	o := w.dialled[0]
	w.connect(o)
	w.data(o, okay)
	if !o.closed || !c.shut || c.closed {
		t.Errorf("backend closed %t, client: FIN %t, closed %t", o.closed, c.shut, c.closed)
	}
	if got := undated(c.take()); !strings.Contains(got, "Connection: close\r\n") || !strings.HasSuffix(got, "ok") {
		t.Errorf("got %q", got)
	}
	w.data(c, "defghij"+get) // thrown away
	w.eof(c, nil)
	if !c.closed || len(c.sent) > 0 {
		t.Error("not closed, or more sent")
	}
}

// TestLingeringEnds: neither silence nor a stream without end keeps it.
func TestLingeringEnds(t *testing.T) {
	for _, talks := range []bool{false, true} {
		w := newWorld(t)
		c := w.accept()
		w.data(c, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999\r\n\r\n")
		steps := 0
		for ; !c.closed && steps < 100; steps++ {
			if talks {
				w.data(c, "x")
			}
			w.pass(time.Second, c)
		}
		if steps == 100 {
			t.Errorf("talks %t: never closed", talks)
		}
	}
}

// TestChaos gives the engine every callback in any order that a driver may, with
// bytes that are often nonsense, and looks only for what must never happen: a
// panic, a rule of the driver broken, a queue too long, a request counted twice.
func TestChaos(t *testing.T) {
	inputs := []string{
		get, okay, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nab", "cde", "\r\n", "HTTP/1.1 100 Continue\r\n\r\n",
		"HTTP/1.1 200 OK\r\n\r\n", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nab", "c\r\n0\r\n\r\n", "nonsense\r\n\r\n", "GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", "HTTP/1.1 101 S\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", "GET / HTTP/1.0\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", "5\r\nabcde\r\n", "0\r\n\r\n", strings.Repeat("y", 60_000), "HEAD / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
	}
	for seed := range uint64(3000) {
		random := rand.New(rand.NewPCG(seed, 7))
		w := newWorld(t, anything())
		w.recycle, w.holds = seed%2 == 0, seed%3 == 0
		var ends, waiting []*end
		alive := func(e *end) bool { return !e.closed }
		for range 120 {
			switch random.IntN(12) {
			case 0:
				if e := w.accept(); true {
					ends = append(ends, e)
				}
			case 1:
				if len(waiting) > 0 {
					e := waiting[0]
					waiting = waiting[1:]
					if !alive(e) || !e.dialling {
						break // its memory may be another connection's by now
					}
					if random.IntN(4) == 0 {
						w.tick()
						e.closed = true
						w.engine.DialFailed(&e.conn, random.IntN(2) == 0)
						w.settle()
						break
					}
					w.connect(e)
					ends = append(ends, e)
				}
			case 2:
				w.comeBack()
			case 3:
				w.pass(time.Duration(random.IntN(60))*time.Second, ends...)
			default:
				if len(ends) == 0 {
					break
				}
				e := ends[random.IntN(len(ends))]
				if !alive(e) {
					break
				}
				switch random.IntN(10) {
				case 0:
					if !e.paused && !e.used {
						e.used = true // used: has had its EOF
						w.eof(e, nil)
					}
				case 1:
					w.eof(e, errReset)
					e.used = true
				case 2:
					e.stuck = !e.stuck
					if !e.stuck {
						w.drain(e)
					}
				case 3:
					w.drain(e)
				default:
					if !e.paused && !e.used {
						s := inputs[random.IntN(len(inputs))]
						w.data(e, s[:1+random.IntN(len(s))])
						w.data2(e, s)
					}
				}
			}
			waiting = append(waiting, w.dialled...)
			w.dialled = w.dialled[:0]
			if w.peak > proxy.MaxQueued {
				t.Errorf("%d bytes queued", w.peak)
			}
			if t.Failed() {
				t.Fatalf("seed %d", seed)
			}
		}
	}
}

// data2 gives whole input, if the connection can still take it.
func (w *world) data2(e *end, s string) {
	if !e.closed && !e.paused {
		w.data(e, s)
	}
}
