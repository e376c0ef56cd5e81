package proxy_test

import (
	"strings"
	"testing"
	"time"
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
