package loop_test

import (
	"context"
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	routetablev1 "reverseproxy/proto/routetable/v1"
)

// TestClientLeavesTheFlood: a client that closes in the middle of a response that
// keeps coming is noticed, whether the reset that follows is told to a write or to
// a read.
func TestClientLeavesTheFlood(t *testing.T) { onEachDriver(t, testClientLeavesTheFlood) }

func testClientLeavesTheFlood(t *testing.T, driver string) {
	noticed := make(chan bool)
	piece := strings.Repeat("x", 1000)
	o := serve(t, func(p *peer) {
		if _, err := p.head(); err != nil {
			return
		}
		_, err := p.Write([]byte("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"))
		for err == nil {
			_, err = p.Write([]byte("3e8\r\n" + piece + "\r\n"))
		}
		noticed <- !errors.Is(err, os.ErrDeadlineExceeded)
	})
	r := start(t, driver, endpoint("/*", o.url))
	for range 50 {
		c := dial(t, r.addr).send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
		c.mustHead()
		_ = c.Close()
		if !<-noticed {
			t.Fatal("the backend is still read from")
		}
	}
}

// TestDrainDoesNotCrossWithARequest: a connection on which the next request is to
// be expected any moment is not closed; the request is answered, and the answer
// says that the connection ends.
func TestDrainDoesNotCrossWithARequest(t *testing.T) {
	onEachDriver(t, testDrainDoesNotCrossWithARequest)
}

func testDrainDoesNotCrossWithARequest(t *testing.T, driver string) {
	o := serve(t, always(ok))
	r := start(t, driver, endpoint("/*", o.url))
	fresh, used, probe := dial(t, r.addr), dial(t, r.addr), dial(t, r.addr)
	used.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").response()
	done := make(chan error, 1)
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		done <- r.Drain(ctx)
	}()
	eventually(t, "draining", func() bool {
		return probe.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").response().field("Connection") == "close"
	})
	for _, c := range []*peer{fresh, used} {
		if m := c.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").response(); m.body != "ok" || m.field("Connection") != "close" {
			t.Errorf("got %q", m.head)
		}
		c.ends()
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// TestClientLeavesWhilePaused: a client whose bytes are not read at the moment is
// noticed as well when it goes, and the backend is not left working for nobody.
func TestClientLeavesWhilePaused(t *testing.T) { onEachDriver(t, testClientLeavesWhilePaused) }

func testClientLeavesWhilePaused(t *testing.T, driver string) {
	for name, request := range map[string]string{
		"in a body that the backend does not read": "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999\r\n\r\n",
		"with the next request sent":               "GET / HTTP/1.1\r\nHost: a\r\n\r\nGET /next HTTP/1.1\r\nHost: a\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			begun, stop := make(chan struct{}), make(chan struct{})
			o := serve(t, func(p *peer) {
				if _, err := p.head(); err != nil {
					return
				}
				close(begun)
				<-stop
			})
			t.Cleanup(func() { close(stop) })
			r := start(t, driver, endpoint("/*", o.url))
			c := dial(t, r.addr).send(request)
			receive(t, begun)
			if strings.HasPrefix(request, "POST") {
				_ = c.SetWriteDeadline(time.Now().Add(time.Second)) // enough to fill every buffer on the way
				for piece := body(1 << 20); ; {
					if _, err := io.WriteString(c, piece); err != nil {
						break
					}
				}
			}
			_ = c.SetLinger(0)
			_ = c.Close()
			eventually(t, "the request has ended", func() bool {
				return sum(t, r, "dataplane_requests_total", "code", "499") == 1 && sum(t, r, "dataplane_requests_in_flight") == 0
			})
		})
	}
}

// TestClientLeavesAsItIsPaused: the next request of a client is not read before it
// is due. That the client was gone as it came is noticed all the same.
func TestClientLeavesAsItIsPaused(t *testing.T) { onEachDriver(t, testClientLeavesAsItIsPaused) }

func testClientLeavesAsItIsPaused(t *testing.T, driver string) {
	begun := make(chan struct{})
	o := serve(t, func(p *peer) {
		if _, err := p.head(); err == nil {
			begun <- struct{}{}
			p.rest()
		}
	})
	r := start(t, driver, endpoint("/*", o.url), last(func(e *routetablev1.Endpoint) {
		e.Timeouts.Response = durationpb.New(2 * patience)
	}))
	const clients = 50
	for range clients {
		c := dial(t, r.addr).send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
		receive(t, begun)
		_ = c.SetLinger(0)
		c.send("GET /next HTTP/1.1\r\nHost: a\r\n\r\n")
		_ = c.Close()
	}
	eventually(t, "all requests have ended", func() bool {
		return sum(t, r, "dataplane_requests_total", "code", "499") == clients && sum(t, r, "dataplane_requests_in_flight") == 0
	})
}
