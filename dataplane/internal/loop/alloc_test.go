//go:build !race

package loop_test

import (
	"bytes"
	"runtime"
	"strings"
	"testing"
)

// TestForwardingDoesNotAllocate, from socket to socket. Client and backend do not
// allocate either: the count is that of the whole process.
func TestForwardingDoesNotAllocate(t *testing.T) { onEachDriver(t, testForwardingDoesNotAllocate) }

func testForwardingDoesNotAllocate(t *testing.T, driver string) {
	response := []byte("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n" + body(1000))
	request := []byte("GET /index.html?x=1 HTTP/1.1\r\nHost: a.example\r\nAccept: */*\r\nCookie: a=b\r\n\r\n")
	o := serve(t, func(p *peer) {
		for buf := make([]byte, 4096); ; {
			n, err := p.TCPConn.Read(buf)
			if err != nil {
				return
			}
			if bytes.HasSuffix(buf[:n], []byte("\r\n\r\n")) {
				if _, err := p.TCPConn.Write(response); err != nil {
					return
				}
			}
		}
	})
	r := start(t, driver, endpoint("/*", o.url))
	c := dial(t, r.addr)
	buf := make([]byte, 4096)
	exchange := func() {
		if _, err := c.TCPConn.Write(request); err != nil {
			t.Fatal(err)
		}
		for got := 0; ; {
			n, err := c.TCPConn.Read(buf[got:])
			if err != nil {
				t.Fatal(err)
			}
			got += n
			if got > 1000 && strings.HasSuffix(string(buf[got-8:got]), "01234567") {
				return
			}
		}
	}
	for range 100 {
		exchange()
	}
	// Not testing.AllocsPerRun, which takes away the processor that an event loop leaves
	// to others. Now and then something else happens.
	const exchanges = 2000
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range exchanges {
		exchange()
	}
	runtime.ReadMemStats(&after)
	if n := after.Mallocs - before.Mallocs; n >= exchanges {
		t.Errorf("%d allocations in %d requests", n, exchanges)
	}
}
