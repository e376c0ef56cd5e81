package proxy_test

import (
	"runtime"
	"testing"
	"time"
	"weak"
)

// A table of 100,000 endpoints takes tens of megabytes, and a connection or a
// tunnel can outlive many: neither may keep it.
func TestNobodyHoldsOnToAnOldTable(t *testing.T) {
	w := newWorld(t, anything())
	rests, waits, tunnel := w.accept(), w.accept(), w.accept()
	w.data(tunnel, "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n")
	w.connect(w.dialled[0])
	w.data(w.dialled[0], "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n")
	w.data(rests, get)
	w.connect(w.dialled[1])
	w.data(w.dialled[1], okay)
	w.data(waits, get)
	old := weak.Make(w.live.Load())
	w.live.Store(newWorld(t, anything()).live.Load())
	for end := time.Now().Add(10 * time.Second); old.Value() != nil; runtime.GC() {
		if time.Now().After(end) {
			t.Fatal("the old table is still referred to")
		}
	}
	w.data(w.dialled[1], okay)
	w.data(tunnel, "goes on")
	if got := undated(waits.take()); got != okaySent {
		t.Errorf("the request that was in flight is answered %q", got)
	}
	if got := undated(rests.take()); got != okaySent {
		t.Errorf("the one before %q", got)
	}
}
