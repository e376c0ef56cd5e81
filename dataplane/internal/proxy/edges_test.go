package proxy_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"reverseproxy/dataplane/internal/proxy"
)

// kept brings w to where a client has been answered once, and the connection to
// the backend rests.
func kept(t *testing.T) (w *world, c, o *end) {
	t.Helper()
	w = newWorld(t, anything())
	c = w.accept()
	w.data(c, get)
	o = w.dialled[0]
	w.connect(o)
	w.data(o, okay)
	o.take()
	c.take()
	return w, c, o
}

// TestIdleTimeoutWaitsForASlowReader: a response that is still being read is no
// idle connection, although the exchange is over.
func TestIdleTimeoutWaitsForASlowReader(t *testing.T) {
	w, c, o := kept(t)
	c.stuck = true
	w.data(c, get)
	w.data(o, "HTTP/1.1 200 OK\r\nContent-Length: 60000\r\n\r\n"+strings.Repeat("x", 60_000))
	for range 20 {
		c.queue = c.queue[100:]
		w.pass(61*time.Second, c)
		if c.closed {
			t.Fatal("the response was cut although its client reads it")
		}
	}
	w.drain(c)
	w.pass(59*time.Second, c)
	if c.closed {
		t.Fatal("closed before it was idle for the idle time")
	}
	w.pass(2*time.Second, c)
	if !c.closed || c.aborted {
		t.Errorf("closed %t, aborted %t", c.closed, c.aborted)
	}
}

func TestIdleTimeoutCutsAClientThatReadsNothing(t *testing.T) {
	w, c, o := kept(t)
	c.stuck = true
	w.data(c, get)
	w.data(o, okay)
	w.pass(61*time.Second, c)
	w.pass(61*time.Second, c)
	if !c.closed || !c.aborted {
		t.Errorf("closed %t, aborted %t", c.closed, c.aborted)
	}
}

// TestUpgradeTakesNoRestingConnection: it could not be sent again, and its
// connection does not come back anyhow.
func TestUpgradeTakesNoRestingConnection(t *testing.T) {
	w, c, o := kept(t)
	w.data(c, "GET /x HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
	if len(w.dialled) != 2 || len(o.sent) > 0 {
		t.Errorf("%d dials, sent %q on the resting one", len(w.dialled), o.sent)
	}
}

// TestTunnelOutlivesTheRestOfItsConnection: how long a connection to a backend may
// rest says nothing about a tunnel that it has become.
func TestTunnelOutlivesTheRestOfItsConnection(t *testing.T) {
	w, c, o := kept(t)
	w.data(c, "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n")
	b := w.dialled[len(w.dialled)-1]
	if b.dialling {
		w.connect(b)
	}
	w.data(b, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n")
	for range 3 {
		w.pass(60*time.Second, c, o, b)
		w.data(c, "from the client")
		w.data(b, "from the backend")
	}
	if got := b.take(); c.closed || b.closed || !strings.HasSuffix(got, strings.Repeat("from the client", 3)) {
		t.Errorf("client closed %t, backend closed %t, which got %q", c.closed, b.closed, got)
	}
}

// TestLongRequestTakesNoRestingConnection: a GET that is too long to be held, to
// be sent again, must not be lost to a backend that closes what rests.
func TestLongRequestTakesNoRestingConnection(t *testing.T) {
	w, c, o := kept(t)
	w.data(c, strings.Replace(get, "\r\n\r\n", "\r\nContent-Length: 9000\r\nX: "+strings.Repeat("x", 60_000)+"\r\n", 1))
	w.data(c, "\r\n"+strings.Repeat("y", 9000))
	if len(w.dialled) != 2 || len(o.sent) > 0 {
		t.Errorf("%d dials, %d bytes sent on the resting one", len(w.dialled), len(o.sent))
	}
}

// TestLastResponseIsNotDestroyedByWhatTheClientSendsNext: a client that was not
// the one to end the connection may have sent its next request already.
func TestLastResponseIsNotDestroyedByWhatTheClientSendsNext(t *testing.T) {
	w, c, o := kept(t)
	w.origin.Drain(proxy.AllShares)
	w.data(c, get)
	w.data(o, okay)
	if c.closed || !c.shut {
		t.Fatalf("closed %t, FIN %t", c.closed, c.shut)
	}
	w.data(c, get)
	w.eof(c, nil)
	if !c.closed || c.aborted {
		t.Errorf("closed %t, aborted %t", c.closed, c.aborted)
	}
}

// TestEarlyResponseToAClientThatStopsSending: the client has seen the answer
// begin, does not send the rest of its body, and reads on.
func TestEarlyResponseToAClientThatStopsSending(t *testing.T) {
	w := newWorld(t, anything())
	c := w.accept()
	w.data(c, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc")
	o := w.dialled[0]
	w.connect(o)
	w.data(o, "HTTP/1.1 413 Too Large\r\nContent-Length: 4\r\n\r\nno")
	w.eof(c, nil)
	if c.closed || o.closed {
		t.Fatalf("cut off: client closed %t, backend closed %t", c.closed, o.closed)
	}
	w.data(o, "t!")
	if got := c.take(); !strings.HasSuffix(got, "\r\n\r\nnot!") {
		t.Errorf("got %q", got)
	}
	if !c.closed || !o.closed {
		t.Errorf("client closed %t, backend closed %t", c.closed, o.closed)
	}
}

// TestRFC9112_2_2_EmptyLineAfterABody: some clients end a body with an empty line
// that belongs to nothing. It does not begin a request.
func TestRFC9112_2_2_EmptyLineAfterABody(t *testing.T) {
	for _, lines := range []string{"\r\n", "\r", "\r\n\r\n"} {
		w, c, _ := kept(t)
		w.data(c, lines)
		w.pass(11*time.Second, c) // longer than a head may take
		if got := c.take(); got != "" || c.closed {
			t.Fatalf("after %q: got %q, closed %t", lines, got, c.closed)
		}
		w.pass(50*time.Second, c)
		if got := c.take(); got != "" || !c.closed {
			t.Errorf("after %q and the idle time: got %q, closed %t", lines, got, c.closed)
		}
	}
}

// TestConnectionDoesNotStripExpect: the client would wait for a 100 that the
// backend does not know it should send.
func TestConnectionDoesNotStripExpect(t *testing.T) {
	w := newWorld(t, anything())
	c := w.accept()
	w.data(c, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nExpect: 100-continue\r\nConnection: expect\r\n\r\n")
	w.connect(w.dialled[0])
	if got := w.dialled[0].take(); !strings.Contains(got, "\r\nExpect: 100-continue\r\n") {
		t.Errorf("sent %q", got)
	}
}

// TestBackendThatClosesEarlyIsMistrusted: a POST on a connection that the backend
// closes is lost, so it is not put on one when the backend is known for that.
func TestBackendThatClosesEarlyIsMistrusted(t *testing.T) {
	const post = "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"
	// answered lets the newest connection answer what it was sent.
	answered := func(w *world) *end {
		o := w.dialled[len(w.dialled)-1]
		if o.dialling {
			w.connect(o)
		}
		w.data(o, okay)
		return o
	}
	for name, closes := range map[string]func(w *world, c, o *end){
		"closed while idle":         func(w *world, c, o *end) { w.eof(o, nil) },
		"closed under a GET":        func(w *world, c, o *end) { w.data(c, get); w.eof(o, nil); answered(w) },
		"reset under a POST":        func(w *world, c, o *end) { w.data(c, post); w.eof(o, errReset); w.data(c, get); answered(w) },
		"closed while idle, reused": func(w *world, c, o *end) { w.eof(o, nil); w.data(c, get); answered(w) },
	} {
		t.Run(name, func(t *testing.T) {
			w, c, o := kept(t)
			closes(w, c, o)
			before := len(w.dialled)
			w.data(c, post)
			if len(w.dialled) != before+1 {
				t.Fatal("a POST took a connection that was used before")
			}
			answered(w)
			w.data(c, get)
			if len(w.dialled) != before+1 {
				t.Fatal("a GET, which can be sent again, took none")
			}
			answered(w)
			w.pass(61*time.Second, w.dialled[before])
			w.data(c, get)
			answered(w)
			w.data(c, post)
			if len(w.dialled) != before+1 {
				t.Error("still mistrusted after a minute without reason")
			}
		})
	}
	t.Run("closed after a long rest: trusted", func(t *testing.T) {
		w, c, o := kept(t)
		w.pass(5*time.Second, c, o)
		w.eof(o, nil)
		w.data(c, get)
		answered(w)
		w.data(c, post)
		if len(w.dialled) != 2 {
			t.Error("mistrusted")
		}
	})
}

// TestLingeringEndsForAClientThatOnlySends: it neither reads what it was answered
// nor stops sending.
func TestLingeringEndsForAClientThatOnlySends(t *testing.T) {
	w := newWorld(t, anything())
	c := w.accept()
	c.stuck = true
	w.data(c, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 999999999\r\n\r\n")
	o := w.dialled[0]
	w.connect(o)
	w.data(o, okay)
	for range 100 {
		w.data(c, "more")
		w.pass(time.Second, c)
	}
	if !c.closed {
		t.Error("not given up")
	}
}

// TestDisguisedFields: a client cannot say what this hop says by spelling the name
// of a field as CGI does.
func TestDisguisedFields(t *testing.T) {
	w := newWorld(t, anything())
	c := w.accept()
	w.data(c, "GET /x HTTP/1.1\r\nHost: a\r\nX_Forwarded_For: 10.0.0.1\r\nx-forwarded_PROTO: https\r\n"+
		"Content_Length: 5\r\nTransfer_Encoding: chunked\r\nMax_Forwards: 1\r\nX_Other_Field: kept\r\n\r\n")
	w.connect(w.dialled[0])
	if got, want := w.dialled[0].take(), strings.Replace(getSent, "Via:", "X_Other_Field: kept\r\nVia:", 1); got != want {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

// TestSplicedBody: a body that the driver moves by itself is followed, counted and
// ended as one that passes through the engine.
func TestSplicedBody(t *testing.T) {
	const size = 1 << 20
	headSent := fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\nVia: 1.1 reverseproxy\r\n\r\n", size)
	response := fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", size) + strings.Repeat("0123456789abcdef", size/16)
	begin := func(t *testing.T) (w *world, c, o *end) {
		w = newWorld(t, anything())
		w.splices = true
		c = w.accept()
		w.data(c, get+get)
		o = w.dialled[0]
		w.connect(o)
		return w, c, o
	}
	t.Run("whole", func(t *testing.T) {
		w, c, o := begin(t)
		for p := response; p != ""; {
			n := min(len(p), 1+rand.IntN(100_000))
			w.data(o, p[:n])
			p = p[n:]
		}
		w.connect(w.dialled[1])
		w.data(w.dialled[1], okay)
		if got := undated(c.take()); got != headSent+response[len(response)-size:]+okaySent {
			t.Errorf("%d bytes", len(got))
		}
		w.data(w.accept(), get)
		w.data(w.accept(), get)
		if o.splice != 0 || len(w.dialled) != 2 {
			t.Error("the backend's connection was not used again")
		}
	})
	t.Run("broken off", func(t *testing.T) {
		w, c, o := begin(t)
		w.data(o, response[:size/2])
		if o.splice == 0 {
			t.Fatal("not spliced")
		}
		w.eof(o, nil)
		if got := undated(c.take()); len(got) < size/2 || !c.closed {
			t.Errorf("%d bytes, closed: %v", len(got), c.closed)
		}
	})
	t.Run("stuck", func(t *testing.T) {
		w, c, o := begin(t)
		w.data(o, response[:size/2])
		w.data(o, response[size/2:][:1000])
		w.pass(89*time.Second, c, o)
		if c.closed {
			t.Fatal("closed too early")
		}
		w.data(o, response[size/2:][1000:2000])
		w.pass(89*time.Second, c, o)
		if c.closed {
			t.Fatal("closed although bytes are moved")
		}
		w.pass(2*time.Second, c, o)
		if !c.closed || !o.closed {
			t.Error("not closed")
		}
	})
}

// TestDrainInShares: clients are sent away a few at a time, new ones at once.
func TestDrainInShares(t *testing.T) {
	const clients = 64
	w := newWorld(t, anything())
	told := func(c *end) bool {
		w.data(c, get)
		for _, o := range w.dialled {
			w.connect(o)
			w.data(o, okay)
			w.eof(o, nil)
		}
		w.dialled = nil
		return strings.Contains(c.take(), "Connection: close")
	}
	var all []*end
	for range clients {
		all = append(all, w.accept())
	}
	w.origin.Drain(0)
	if !told(w.accept()) {
		t.Error("a client that came while draining was not told")
	}
	for _, share := range []uint32{proxy.AllShares / 4, proxy.AllShares / 2, proxy.AllShares} {
		w.origin.Drain(share)
		stay := all[:0]
		for _, c := range all {
			if !told(c) {
				stay = append(stay, c)
			}
		}
		all = stay
		if want := clients - clients*int(share)/proxy.AllShares; len(all) < want-2 || len(all) > want+2 {
			t.Errorf("%d clients stay, want %d", len(all), want)
		}
	}
}
