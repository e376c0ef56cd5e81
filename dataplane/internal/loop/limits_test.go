package loop_test

import (
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"reverseproxy/dataplane/internal/loop"
	routetablev1 "reverseproxy/proto/routetable/v1"
)

// TestRequestsWaitOverAllLoops: who ends on one loop lets in who waits on another. Some
// clients leave while they wait; nobody waits for ever, and there are never more at the
// backends than may be.
func TestRequestsWaitOverAllLoops(t *testing.T) { onEachDriver(t, testRequestsWaitOverAllLoops) }

func testRequestsWaitOverAllLoops(t *testing.T, driver string) {
	const clients, each, most = 16, 40, 3
	var now [2]atomic.Int64
	var pool []string
	for i := range now {
		o := serve(t, answers(func(m message) string {
			const nothing = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
			if strings.HasPrefix(m.line, "GET /leaves") {
				return nothing // a backend may be at it for longer than the proxy
			}
			if n := now[i].Add(1); n > 2 {
				t.Errorf("%d at once at backend %d", n, i)
			}
			if a, b := now[0].Load(), now[1].Load(); a+b > most+1 { // read one after the other
				t.Errorf("%d and %d at once", a, b)
			}
			runtime.Gosched()
			now[i].Add(-1)
			return nothing
		}))
		pool = append(pool, o.url)
	}
	r := start(t, driver, endpoint("/*", pool...), last(func(e *routetablev1.Endpoint) {
		e.MaxRequests, e.Queue = most, &routetablev1.Queue{Size: clients * each, Timeout: durationpb.New(patience)}
		for _, b := range e.Pool {
			b.MaxRequests = 2
		}
	}), options(func(o *loop.Options) { o.Threads = 4 }))
	var all sync.WaitGroup
	for i := range clients {
		all.Go(func() {
			c := dial(t, r.addr)
			for range each {
				if i%4 == 0 {
					c.send("GET /leaves HTTP/1.1\r\nHost: a\r\n\r\n")
					_ = c.SetLinger(0)
					_ = c.Close()
					c = dial(t, r.addr)
					continue
				}
				_ = c.SetDeadline(time.Now().Add(patience)) // for each request, and not for all of them
				if m := c.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").response(); !strings.Contains(m.line, "200") {
					t.Errorf("got %q", m.line)
				}
			}
		})
	}
	all.Wait()
	g := r.live.Load().Endpoint("/*").Admission.Gate
	for end := time.Now().Add(patience); g.InFlight() > 0; runtime.Gosched() {
		if time.Now().After(end) {
			t.Fatalf("%d in flight in the end", g.InFlight())
		}
	}
}
