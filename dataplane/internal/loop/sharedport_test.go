package loop_test

import (
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// TestClosingASharedListenerLosesNoConnection: a client whose connection was being
// made when one of the listeners of a port closed is served all the same.
func TestClosingASharedListenerLosesNoConnection(t *testing.T) {
	onEachDriver(t, testClosingASharedListenerLosesNoConnection)
}

func testClosingASharedListenerLosesNoConnection(t *testing.T, driver string) {
	r := start(t, driver, endpoint("/*", serve(t, always(ok)).url))
	_, text, _ := net.SplitHostPort(r.addr)
	port, _ := strconv.Atoi(text)
	var stop atomic.Bool
	var clients sync.WaitGroup
	defer clients.Wait()
	defer stop.Store(true)
	var served atomic.Int64
	for range 8 {
		clients.Go(func() {
			for !stop.Load() {
				if got, err := fresh(r.addr); err != nil || !strings.HasSuffix(got, "ok") {
					t.Errorf("got %q: %v", got, err)
					return
				}
				served.Add(1)
			}
		})
	}
	for range 5 {
		l, err := r.Open("127.0.0.1", uint16(port))
		if err != nil {
			t.Fatal(err)
		}
		l.Serve()
		goal := served.Load() + 20
		eventually(t, "more requests", func() bool { return served.Load() >= goal || t.Failed() })
		l.Close()
	}
}

// fresh sends a request on a connection of its own.
func fresh(addr string) (string, error) {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return "", err
	}
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(patience))
	if _, err = fmt.Fprint(c, "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"); err != nil {
		return "", err
	}
	p, err := io.ReadAll(c)
	return string(p), err
}
