package loop_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/types/known/durationpb"

	"reverseproxy/dataplane/internal/proxy"
	routetablev1 "reverseproxy/proto/routetable/v1"
)

func TestRFC9112_9_3_2_Pipelining(t *testing.T) { onEachDriver(t, testPipelining) }

func testPipelining(t *testing.T, driver string) {
	o := serve(t, answers(func(m message) string {
		return fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s%s", len(m.line)+len(m.body), m.line, m.body)
	}))
	r := start(t, driver, endpoint("/p/*", o.url))
	var all strings.Builder
	var want []string
	for i := range 200 {
		switch i % 4 {
		case 0:
			fmt.Fprintf(&all, "GET /p/%d HTTP/1.1\r\nHost: a\r\n\r\n", i)
			want = append(want, fmt.Sprintf("GET /p/%d HTTP/1.1", i))
		case 1:
			fmt.Fprintf(&all, "POST /p/%d HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nGET /", i)
			want = append(want, fmt.Sprintf("POST /p/%d HTTP/1.1GET /", i))
		case 2:
			fmt.Fprintf(&all, "GET /none HTTP/1.1\r\nHost: a\r\n\r\n")
			want = append(want, "There is nothing here.\n")
		case 3:
			fmt.Fprintf(&all, "POST /p/%d HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n", i)
			want = append(want, fmt.Sprintf("POST /p/%d HTTP/1.11\r\nx\r\n0\r\n\r\n", i))
		}
	}
	c := dial(t, r.addr)
	go func() { _, _ = io.WriteString(c, all.String()) }()
	for i, w := range want {
		if m := c.response(); m.body != w {
			t.Fatalf("response %d: got %q, want %q", i, m.body, w)
		}
	}
}

// TestHalfClose: a client that has sent its requests and says that nothing more
// follows still gets its answers (RFC 9112 section 9.6).
func TestRFC9112_9_6_HalfClose(t *testing.T) { onEachDriver(t, testHalfClose) }

func testHalfClose(t *testing.T, driver string) {
	closed := make(chan struct{})
	release := sync.OnceFunc(func() { close(closed) })
	o := serve(t, answers(func(m message) string {
		<-closed
		return ok
	}))
	t.Cleanup(release) // also when the test fails: the backend waits for it
	r := start(t, driver, endpoint("/*", o.url))
	c := dial(t, r.addr)
	c.send("GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n")
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	release()
	for range 2 {
		if m := c.response(); m.body != "ok" {
			t.Errorf("got %q", m.body)
		}
	}
	c.ends()
}

// TestStreaming: what is sent is seen at once at the other end, in both
// directions at the same time.
func TestStreaming(t *testing.T) { onEachDriver(t, testStreaming) }

func testStreaming(t *testing.T, driver string) {
	o := serve(t, func(p *peer) {
		if _, err := p.head(); err != nil {
			return
		}
		p.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
		for {
			line, err := p.in.ReadString('\n')
			if err != nil {
				return
			}
			p.send(line)
			if line == "0\r\n" {
				p.send("\r\n")
				_, _ = p.in.ReadString('\n')
				return
			}
		}
	})
	r := start(t, driver, endpoint("/*", o.url))
	c := dial(t, r.addr).send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
	if _, err := c.head(); err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{"3\r\n", "abc\r\n", "1\r\n", "d\r\n", "0\r\n"} {
		c.send(line)
		if got, err := c.in.ReadString('\n'); got != line || err != nil {
			t.Fatalf("got %q, want %q: %v", got, line, err)
		}
	}
	c.send("\r\n")
	if got, err := c.in.ReadString('\n'); got != "\r\n" || err != nil {
		t.Fatalf("got %q: %v", got, err)
	}
	c.ends() // it began before the request had ended: no other request
}

// TestEarlyResponse: a final response while the client is still sending reaches
// the client whole, whatever it goes on sending (RFC 9112 section 9.6).
func TestRFC9112_9_6_EarlyResponse(t *testing.T) { onEachDriver(t, testEarlyResponse) }

func testEarlyResponse(t *testing.T, driver string) {
	const size = 8 << 20
	t.Run("of a backend", func(t *testing.T) {
		o := serve(t, func(p *peer) {
			if _, err := p.head(); err == nil {
				p.send("HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\n\r\nbig")
				p.rest()
			}
		})
		r := start(t, driver, endpoint("/*", o.url))
		earlyResponse(t, r, size, "HTTP/1.1 413 Content Too Large", "big")
	})
	t.Run("of a backend that closes", func(t *testing.T) {
		o := serve(t, func(p *peer) {
			if _, err := p.head(); err == nil {
				p.send("HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\n\r\nbig")
			}
		})
		r := start(t, driver, endpoint("/*", o.url))
		// The backend's reset may overtake its response; that is between the
		// two. It must be one of the two answers, whole.
		c := dial(t, r.addr)
		go sendBody(c, size)
		if m := c.response(); m.body != "big" && m.line != "HTTP/1.1 502 Bad Gateway" {
			t.Errorf("got %q %q", m.line, m.body)
		}
	})
	t.Run("of the proxy", func(t *testing.T) {
		r := start(t, driver)
		earlyResponse(t, r, size, "HTTP/1.1 404 Not Found", "There is nothing here.\n")
	})
}

func sendBody(c *peer, size int) {
	_, _ = fmt.Fprintf(c, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n", size)
	for piece := body(64 << 10); size > 0; size -= len(piece) {
		if _, err := io.WriteString(c, piece); err != nil {
			return
		}
	}
}

func earlyResponse(t *testing.T, r *rig, size int, line, want string) {
	t.Helper()
	c := dial(t, r.addr)
	sendBody(c, size) // all of it before the response is read
	m := c.response()
	if m.line != line || m.body != want || m.field("Connection") != "close" {
		t.Errorf("got %q %q", m.head, m.body)
	}
	c.ends()
}

// TestClientLeaves: the backend is not left working for nobody.
func TestClientLeaves(t *testing.T) { onEachDriver(t, testClientLeaves) }

func testClientLeaves(t *testing.T, driver string) {
	for _, name := range []string{"in the request", "before the response", "in the response"} {
		t.Run(name, func(t *testing.T) {
			at, gone := make(chan struct{}), make(chan struct{})
			o := serve(t, func(p *peer) {
				if _, err := p.head(); err != nil {
					return
				}
				if name == "in the response" {
					p.send("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc")
				}
				close(at)
				p.rest()
				close(gone)
			})
			r := start(t, driver, endpoint("/*", o.url))
			c := dial(t, r.addr)
			if name == "in the request" {
				c.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nab")
			} else {
				c.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
			}
			receive(t, at)
			if name == "in the response" {
				c.mustHead()
			}
			if name != "in the request" {
				_ = c.SetLinger(0) // a plain close may be a half-close
			}
			_ = c.Close()
			receive(t, gone)
			want := "499"
			if name == "in the response" {
				want = "200"
			}
			eventually(t, "counted as "+want, func() bool {
				return sum(t, r, "dataplane_requests_total", "code", want) == 1
			})
		})
	}
}

func TestRFC9110_7_8_Upgrade(t *testing.T) { onEachDriver(t, testUpgrade) }

func testUpgrade(t *testing.T, driver string) {
	echo := func(p *peer) {
		m, err := p.request()
		if err != nil {
			return
		}
		if m.field("Upgrade") != "websocket" || m.field("Connection") != "Upgrade" {
			t.Errorf("head %q", m.head)
		}
		p.send("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: x\r\n\r\nhello")
		_, _ = io.Copy(p, p.in)
		// The tunnel may be gone, and the test with it.
		_, _ = io.WriteString(p, "bye")
		_ = p.CloseWrite()
	}
	const request = "GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"
	expect := func(t *testing.T, c *peer, want string) {
		t.Helper()
		got := make([]byte, len(want))
		if n, err := io.ReadFull(c.in, got); string(got[:n]) != want || err != nil {
			t.Fatalf("got %q, want %q: %v", got[:n], want, err)
		}
	}
	t.Run("both ways, with half-close", func(t *testing.T) {
		r := start(t, driver, endpoint("/*", serve(t, echo).url))
		c := dial(t, r.addr).send(request + "early")
		m := c.response()
		if m.line != "HTTP/1.1 101 Switching Protocols" || m.field("Upgrade") != "websocket" ||
			m.field("Connection") != "Upgrade" || m.field("Sec-WebSocket-Accept") != "x" {
			t.Fatalf("got %q", m.head)
		}
		expect(t, c, "helloearly")
		expect(t, c.send("more"), "more")
		if n := sum(t, r, "dataplane_connections", "state", "tunnel"); n != 1 {
			t.Errorf("%v tunnels", n)
		}
		_ = c.CloseWrite()
		expect(t, c, "bye")
		c.ends()
		eventually(t, "the tunnel is counted", func() bool {
			return sum(t, r, "dataplane_requests_total", "code", "101") == 1 && sum(t, r, "dataplane_connections") == 0
		})
	})
	t.Run("large, against a slow reader", func(t *testing.T) {
		r := start(t, driver, endpoint("/*", serve(t, echo).url))
		c := dial(t, r.addr).send(request)
		c.response()
		expect(t, c, "hello")
		data := body(4 << 20)
		go func() {
			_, _ = io.WriteString(c, data)
			_ = c.CloseWrite()
		}()
		expect(t, c, data+"bye")
		c.ends()
	})
	t.Run("reset", func(t *testing.T) {
		gone := make(chan bool, 1)
		r := start(t, driver, endpoint("/*", serve(t, func(p *peer) {
			if _, err := p.request(); err == nil {
				p.send("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
				_, clean := p.rest()
				gone <- clean
			}
		}).url))
		c := dial(t, r.addr).send(request)
		c.response()
		_ = c.SetLinger(0)
		_ = c.Close()
		if receive(t, gone) {
			t.Error("a reset became a clean end")
		}
	})
	t.Run("idle", func(t *testing.T) {
		r := start(t, driver, endpoint("/*", serve(t, echo).url), last(func(e *routetablev1.Endpoint) {
			e.Timeouts.Idle = durationpb.New(100 * time.Millisecond)
		}))
		c := dial(t, r.addr).send(request)
		c.response()
		expect(t, c, "hello")
		c.ends()
	})
	t.Run("refused by the backend", func(t *testing.T) {
		r := start(t, driver, endpoint("/*", serve(t, always(ok)).url))
		c := dial(t, r.addr).send(request + "GET /next HTTP/1.1\r\nHost: a\r\n\r\n")
		for range 2 {
			if m := c.response(); m.body != "ok" {
				t.Errorf("got %q", m.head)
			}
		}
	})
}

// TestLargeBodies: bodies much larger than any buffer pass unchanged both ways.
func TestLargeBodies(t *testing.T) { onEachDriver(t, testLargeBodies) }

func testLargeBodies(t *testing.T, driver string) {
	const size = 6 << 20
	data := body(size)
	o := serve(t, answers(func(m message) string {
		return fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(m.body), m.body)
	}))
	r := start(t, driver, endpoint("/*", o.url))
	c := dial(t, r.addr)
	for range 3 {
		go sendBody(c, size)
		if m := c.response(); len(m.body) != size || m.body != data[:size] && strings.Count(m.body, data[:64]) != size/64 {
			t.Fatalf("%d bytes", len(m.body))
		}
	}
}

// TestSlowReader: a client that does not read a large response stops the backend
// from sending, and holds no more memory than documented.
func TestSlowReader(t *testing.T) { onEachDriver(t, testSlowReader) }

func testSlowReader(t *testing.T, driver string) {
	const clients, size = 8, 64 << 20
	var sent atomic.Int64
	o := serve(t, func(p *peer) {
		if _, err := p.request(); err != nil {
			return
		}
		p.send(fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", size))
		for piece := []byte(body(64 << 10)); ; {
			n, err := p.Write(piece)
			sent.Add(int64(n))
			if err != nil {
				return
			}
		}
	})
	r := start(t, driver, endpoint("/*", o.url))
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for range clients {
		dial(t, r.addr).send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").mustHead()
	}
	// It has stopped when nothing has moved for a while.
	for last := int64(-1); last != sent.Load(); time.Sleep(200 * time.Millisecond) {
		last = sent.Load()
	}
	if n := sent.Load(); n >= clients*size/2 {
		t.Errorf("%d bytes taken from backends that nobody reads", n)
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	held := int64(after.HeapAlloc) - int64(before.HeapAlloc)
	// Output, a read buffer for the one read that was under way, and as much
	// again for the growth of slices.
	if bound := int64(clients * 2 * (proxy.MaxQueued + proxy.ReadSize)); held > bound {
		t.Errorf("holds %d bytes, bound %d", held, bound)
	}
}

// TestSteadyReader: a client that always has something left to read, but never so
// much that the backend has to wait, holds no more memory than documented.
func TestSteadyReader(t *testing.T) { onEachDriver(t, testSteadyReader) }

func testSteadyReader(t *testing.T, driver string) {
	const onTheirWay, size = 48 << 10, 8 << 20
	read, written := make(chan int), make(chan struct{})
	o := serve(t, func(p *peer) {
		if _, err := p.request(); err != nil {
			return
		}
		p.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffffff\r\n")
		for piece := make([]byte, onTheirWay); ; {
			n, more := <-read
			if !more {
				return
			}
			_, _ = p.Write(piece[:n])
			written <- struct{}{}
		}
	})
	defer close(read)
	r := start(t, driver, endpoint("/*", o.url))
	smallSendBuffers(t, r.addr)
	c := dialSmall(t, r.addr).send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	c.mustHead()
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	read <- onTheirWay
	<-written
	buf := make([]byte, 4<<10)
	for done := 0; done < size; {
		n, err := c.in.Read(buf)
		if err != nil {
			t.Fatalf("after %d bytes: %v", done, err)
		}
		done += n
		read <- n
		<-written
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if held, bound := int64(after.HeapAlloc)-int64(before.HeapAlloc), int64(2*(proxy.MaxQueued+proxy.ReadSize)); held > bound {
		t.Errorf("holds %d bytes, bound %d", held, bound)
	}
}

// TestEarlyResponseToASlowReader: a backend has answered before the request had
// ended, and is gone. What it has sent is not read at once, since the client reads
// slowly; that the rest of the request cannot be sent does not cut it short.
func TestEarlyResponseToASlowReader(t *testing.T) { onEachDriver(t, testEarlyResponseToASlowReader) }

func testEarlyResponseToASlowReader(t *testing.T, driver string) {
	gone := make(chan struct{})
	want := body(180 << 10) // more than the proxy queues, less than what is taken from the backend as well
	o := serve(t, func(p *peer) {
		defer close(gone)
		if _, err := p.head(); err != nil {
			return
		}
		p.send(fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(want), want))
		raw, err := p.SyscallConn()
		if err != nil {
			t.Error(err)
			return
		}
		eventually(t, "the response is at the proxy", func() bool {
			left := -1
			_ = raw.Control(func(fd uintptr) { left, _ = unix.IoctlGetInt(int(fd), unix.TIOCOUTQ) })
			return left == 0
		})
		_ = p.SetLinger(0)
		_ = p.Close()
	})
	r := start(t, driver, endpoint("/*", o.url))
	smallSendBuffers(t, r.addr)
	c := dialSmall(t, r.addr).send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\nbody")
	receive(t, gone)
	for range 3 {
		c.send(body(100))
	}
	c.mustHead()
	got := make([]byte, len(want))
	if n, err := io.ReadFull(c.in, got); err != nil || string(got) != want {
		t.Errorf("%d bytes of %d: %v", n, len(want), err)
	}
}

// smallSendBuffers has the operating system take little at once on what a listener
// accepts from now on.
func smallSendBuffers(t *testing.T, addr string) {
	t.Helper()
	for fd := range 1 << 10 {
		at, err := unix.Getsockname(fd)
		if err != nil {
			continue
		}
		listens, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
		if a, ok := at.(*unix.SockaddrInet4); !ok || err != nil || listens == 0 || !strings.HasSuffix(addr, fmt.Sprint(":", a.Port)) {
			continue
		}
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, 4<<10); err != nil {
			t.Fatal(err)
		}
		// Segments as large as a loopback's wait for windows that small.
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_MAXSEG, 1400); err != nil {
			t.Fatal(err)
		}
		return
	}
	t.Fatal("no socket listens at ", addr)
}

// dialSmall connects a client for which the operating system receives little ahead.
func dialSmall(t *testing.T, addr string) *peer {
	t.Helper()
	dialer := net.Dialer{Control: func(_, _ string, raw syscall.RawConn) error {
		var failed error
		err := raw.Control(func(fd uintptr) {
			failed = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, 4<<10)
		})
		return errors.Join(err, failed)
	}}
	c, err := dialer.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return newPeer(t, c)
}
