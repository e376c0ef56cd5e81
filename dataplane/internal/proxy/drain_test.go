package proxy_test

import (
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"reverseproxy/dataplane/internal/proxy"
	"reverseproxy/dataplane/internal/table"
	routetablev1 "reverseproxy/proto/routetable/v1"
)

const drainedURL, otherURL = "http://drained:80", "http://other:80"

// twoBackends is an endpoint with the drained backend, of a weight, and another.
func twoBackends(weight uint32) *routetablev1.Endpoint {
	e := anything()
	e.Pool = []*routetablev1.Backend{{Url: drainedURL, Weight: weight}, {Url: otherURL, Weight: 1}}
	return e
}

// What has begun counts until it ends, whatever the table says; a tunnel as well.
func TestADrainedBackendIsCountedToTheEnd(t *testing.T) {
	w := newWorld(t, twoBackends(1))
	inFlight := func(want uint64) {
		t.Helper()
		if n := w.set.InFlight([]string{drainedURL})[0]; n != want {
			t.Errorf("%d in flight, want %d", n, want)
		}
	}
	w.data(w.accept(), get)
	slow := w.dialled[0]
	w.data(w.accept(), get) // the other's turn
	tunnel := w.accept()
	w.data(tunnel, strings.Replace(get, "\r\n\r\n", "\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n", 1))
	far := w.dialled[2]
	if slow.addr != "drained:80" || far.addr != "drained:80" {
		t.Fatalf("the requests went to %s and %s", slow.addr, far.addr)
	}
	w.connect(far)
	w.data(far, "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n")
	inFlight(2)
	w.apply(wire(twoBackends(0)))
	for range 3 {
		w.data(w.accept(), get)
		if last := w.dialled[len(w.dialled)-1]; last.addr != "other:80" {
			t.Errorf("a new request goes to %s", last.addr)
		}
	}
	inFlight(2)
	w.connect(slow)
	w.data(slow, okay)
	inFlight(1)
	w.eof(tunnel, nil)
	w.eof(far, nil)
	inFlight(0)
}

// proofWorld counts dials of the drained backend after it was proved to be quiet.
type proofWorld struct {
	*world
	proved atomic.Bool
	late   int
}

func (w *proofWorld) Dial(addr string, timeout time.Duration) *proxy.Conn {
	if addr == "drained:80" && w.proved.Load() {
		w.late++
	}
	w.dialled = w.dialled[:0]
	return w.world.Dial(addr, timeout)
}

// Once a table that drains the backend is in force and nothing is in flight, nothing
// ever is, also not what was being routed at that moment.
func TestNothingInFlightIsFinal(t *testing.T) {
	w := &proofWorld{world: newWorld(t, twoBackends(1))}
	w.recycle = true
	open := w.live.Load()
	w.apply(wire(twoBackends(0)))
	drained := w.live.Load()
	w.engine = proxy.New(proxy.Config{Driver: w, Live: w.live, Metrics: w.set, AccessLog: w.log.Shard(0)})

	stop, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			select {
			case <-stop:
				return
			default:
				w.prove(open, drained)
			}
		}
	}()
	for range 200_000 {
		c := w.accept()
		w.data(c, get)
		w.engine.DialFailed(&w.dialled[0].conn, false)
		w.eof(c, nil)
	}
	close(stop)
	<-ended
	if w.late > 0 {
		t.Errorf("%d requests were given to the backend after nothing had been in flight", w.late)
	}
	if n := w.set.InFlight([]string{drainedURL, otherURL}); n[0]+n[1] > 0 {
		t.Errorf("%d are in flight in the end", n)
	}
}

// prove drains the backend, waits until nothing is in flight to it, and takes it back.
func (w *proofWorld) prove(open, drained *table.Table) {
	w.live.Store(drained)
	for w.set.InFlight([]string{drainedURL})[0] > 0 {
	}
	w.proved.Store(true)
	w.set.InFlight([]string{drainedURL}) // takes a moment
	w.proved.Store(false)
	w.live.Store(open)
	w.set.InFlight([]string{drainedURL})
}
