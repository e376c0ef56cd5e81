package loop_test

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"
)

// noise returns n bytes of which no part repeats another.
func noise(n int) []byte {
	p := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{}).Read(p)
	return p
}

// TestLargeResponses: bodies so large that a driver may move them without looking
// at them arrive whole, one behind the other, also when the client reads slowly.
func TestLargeResponses(t *testing.T) { onEachDriver(t, testLargeResponses) }

func testLargeResponses(t *testing.T, driver string) {
	want := noise(3 << 20)
	o := serve(t, func(p *peer) {
		for {
			if _, err := p.request(); err != nil {
				return
			}
			p.send(fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", len(want)))
			for rest := want; len(rest) > 0; {
				n := min(len(rest), 1+rand.IntN(300<<10))
				if _, err := p.Write(rest[:n]); err != nil {
					return
				}
				rest = rest[n:]
			}
		}
	})
	r := start(t, driver, endpoint("/*", o.url))
	for _, bytesAtOnce := range []int{1 << 20, 64 << 10} {
		c := dial(t, r.addr)
		_ = c.SetReadBuffer(bytesAtOnce)
		c.send("GET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n")
		for range 2 {
			c.mustHead()
			got, buf := []byte(nil), make([]byte, bytesAtOnce)
			for len(got) < len(want) {
				n, err := c.in.Read(buf[:min(len(buf), len(want)-len(got))])
				if err != nil {
					t.Fatalf("after %d bytes: %v", len(got), err)
				}
				got = append(got, buf[:n]...)
			}
			if !bytes.Equal(got, want) {
				t.Fatal("other bytes have come")
			}
		}
	}
	// A pipelined request does not take the connection of the one before it.
	if n := o.conns.Load(); n > 4 {
		t.Errorf("%d connections to the backend, want two per loop at most", n)
	}
	if got := sum(t, r, "dataplane_response_bytes_total"); got < float64(4*len(want)) {
		t.Errorf("%v bytes counted", got)
	}
}

// TestLargeResponseBreaksOff: the client sees it, in what it gets and how it ends.
func TestLargeResponseBreaksOff(t *testing.T) { onEachDriver(t, testLargeResponseBreaksOff) }

func testLargeResponseBreaksOff(t *testing.T, driver string) {
	want := noise(2 << 20)
	o := serve(t, func(p *peer) {
		if m, err := p.request(); err == nil {
			p.send("HTTP/1.1 200 OK\r\nContent-Length: 9999999\r\n\r\n")
			_, _ = p.Write(want)
			if m.field("X-Reset") != "" {
				_ = p.SetLinger(0)
			}
		}
	})
	r := start(t, driver, endpoint("/*", o.url))
	c := dial(t, r.addr).send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	c.mustHead()
	if got, clean := c.rest(); got != string(want) || !clean {
		t.Errorf("%d bytes of %d before the end, clean: %v", len(got), len(want), clean)
	}
	c = dial(t, r.addr).send("GET / HTTP/1.1\r\nHost: a\r\nX-Reset: 1\r\n\r\n")
	c.mustHead()
	if got, _ := c.rest(); !bytes.HasPrefix(want, []byte(got)) {
		t.Error("other bytes have come")
	}
	eventually(t, "both are counted as reset", func() bool {
		return sum(t, r, "dataplane_backend_errors_total", "reason", "reset") == 2 && sum(t, r, "dataplane_requests_in_flight") == 0
	})
}

// TestClientLeavesALargeResponse: the backend is not read to its end for nobody.
func TestClientLeavesALargeResponse(t *testing.T) { onEachDriver(t, testClientLeavesALargeResponse) }

func testClientLeavesALargeResponse(t *testing.T, driver string) {
	stopped := make(chan int64, 1)
	o := serve(t, func(p *peer) {
		if _, err := p.request(); err == nil {
			p.send(fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", 1<<40))
			n, _ := io.Copy(p.TCPConn, endless{})
			stopped <- n
		}
	})
	r := start(t, driver, endpoint("/*", o.url))
	for range 10 {
		c := dial(t, r.addr).send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
		c.mustHead()
		_, _ = io.CopyN(io.Discard, c.in, 1<<20)
		_ = c.Close()
		receive(t, stopped)
	}
	eventually(t, "nothing is in flight", func() bool { return sum(t, r, "dataplane_requests_in_flight") == 0 })
}

type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }
