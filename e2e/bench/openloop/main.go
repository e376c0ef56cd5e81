//go:build linux

// Command openloop sends GET requests at a constant rate, whatever the answers
// do, and measures each from the moment it was due: a proxy that stops for a
// while is charged for every request that it kept waiting ("coordinated
// omission" corrected).
//
// Request k is due at start + k/rate and belongs to connection k mod n, one
// request at a time on each. A request that was sent and not answered in full
// with a 2xx is lost; nothing is retried. A connection that the server closed
// between two requests is opened again for the next one. Ctrl-C (SIGINT) ends the
// sending early. The result is a JSON object on standard output.
package main

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"time"
	"unsafe"

	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"
)

// grace is how long after the last request answers are waited for.
const grace = 5 * time.Second

// Result is what is printed. Times are in microseconds.
type Result struct {
	Rate        float64 `json:"rate"`
	Connections int     `json:"connections"`
	Seconds     float64 `json:"seconds"`
	// Sent is the number of requests that were due, OK of those that were
	// answered in full with a 2xx, Failed of all others, by reason in Failures.
	Sent     int            `json:"sent"`
	OK       int            `json:"ok"`
	Failed   int            `json:"failed"`
	Failures map[string]int `json:"failures"`
	P50      float64        `json:"p50_us"`
	P99      float64        `json:"p99_us"`
	P999     float64        `json:"p999_us"`
	Max      float64        `json:"max_us"`
	// LateP99 is how late this program itself was in sending requests whose
	// connection was free: latencies below it mean nothing.
	LateP99 float64 `json:"late_p99_us"`
}

func main() {
	rate := pflag.Float64("rate", 1000, "requests per second")
	connections := pflag.Int("connections", 64, "number of connections")
	duration := pflag.Duration("duration", 5*time.Second, "time to send for")
	perConnection := pflag.Int("per-connection", 0, "requests after which a connection is closed and opened again; 0 is never")
	samples := pflag.String("samples", "", "`file` for one record per request, in the order they were due: "+
		"due time (CLOCK_MONOTONIC) and latency in ns, little-endian int64; latency -1 when it was lost")
	pflag.Usage = func() {
		fmt.Fprintf(os.Stderr, "Usage: openloop [flags] http://address:port/path\n\nFlags:\n%s", pflag.CommandLine.FlagUsages())
	}
	pflag.Parse()
	if pflag.NArg() != 1 || *rate <= 0 || *connections <= 0 {
		pflag.Usage()
		os.Exit(2)
	}
	g, err := prepare(pflag.Arg(0), *rate, *connections, *duration, *perConnection)
	if err == nil {
		err = g.run()
	}
	if err == nil && *samples != "" {
		err = g.save(*samples)
	}
	if err == nil {
		err = json.NewEncoder(os.Stdout).Encode(g.result())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "openloop:", err)
		os.Exit(1)
	}
}

// generator is the one loop.
type generator struct {
	epoll         int
	addr          *unix.SockaddrInet4
	request       []byte
	interval      float64 // ns between two requests
	perConnection int
	conns         []*conn
	byFD          map[int32]*conn
	buf           []byte

	base      time.Time // zero of now
	baseClock int64     // CLOCK_MONOTONIC at base, in ns
	start     int64     // when request 0 is due, in ns since base

	latencies []int64 // by request; 0: not yet answered, lost: never will be
	failures  map[string]int
	done      int // requests answered or lost
	late      []int64
}

const lost = -1

// conn is one connection, or the place for one. It works through its requests,
// the numbers i, i+n, i+2n…, in order.
type conn struct {
	state   state
	fd      int
	request int // the next request, or the one in flight
	due     int // the first request that is not due yet
	used    int // requests sent on this connection
	head    []byte
	body    int // bytes of the body to come
	close   bool
}

// closed → connecting → idle ⇄ reading; any of them → closed.
type state int

const (
	closed state = iota
	connecting
	idle    // open, nothing in flight
	reading // request sent, answer not complete
)

func prepare(target string, rate float64, connections int, duration time.Duration, perConnection int) (*generator, error) {
	u, err := url.Parse(target)
	if err != nil {
		return nil, err
	}
	a, err := netip.ParseAddrPort(u.Host)
	if err != nil || !a.Addr().Is4() || u.Scheme != "http" {
		return nil, fmt.Errorf("%s: want http://<IPv4 address>:<port>/path", target)
	}
	g := &generator{
		addr:          &unix.SockaddrInet4{Addr: a.Addr().As4(), Port: int(a.Port())},
		request:       fmt.Appendf(nil, "GET %s HTTP/1.1\r\nHost: %s\r\n\r\n", u.RequestURI(), u.Host),
		interval:      1e9 / rate,
		perConnection: perConnection,
		byFD:          map[int32]*conn{},
		buf:           make([]byte, 64<<10),
		latencies:     make([]int64, int(rate*duration.Seconds())),
		failures:      map[string]int{},
	}
	for i := range connections {
		g.conns = append(g.conns, &conn{request: i, due: i})
	}
	return g, nil
}

func (g *generator) run() error {
	runtime.LockOSThread()
	runtime.GOMAXPROCS(2) // one for this thread, one for signals and the collector
	// The default lets the kernel wake this thread 50 µs late.
	if err := unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("timer slack: %w", err)
	}
	var err error
	if g.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return fmt.Errorf("epoll: %w", err)
	}
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		return fmt.Errorf("clock: %w", err)
	}
	g.base, g.baseClock = time.Now(), ts.Nano()
	// Connections are there before the first request is due.
	for _, c := range g.conns {
		if err := g.connect(c); err != nil {
			return fmt.Errorf("connect: %w", err)
		}
	}
	for deadline := g.now() + int64(grace); slices.ContainsFunc(g.conns, func(c *conn) bool { return c.state == connecting }); {
		if err := g.wait(int64(10 * time.Millisecond)); err != nil {
			return err
		}
		if g.now() > deadline {
			return errors.New("connections are not accepted")
		}
	}
	interrupted := make(chan os.Signal, 1)
	signal.Notify(interrupted, os.Interrupt)
	g.start = g.now()
	next := 0 // the first request that is not due yet
	end := g.dueAt(len(g.latencies)) + int64(grace)
	for g.done < len(g.latencies) {
		now := g.now()
		for ; next < len(g.latencies) && g.dueAt(next) <= now; next++ {
			c := g.conns[next%len(g.conns)]
			c.due = next + len(g.conns)
			if c.state != reading && c.request == next {
				g.late = append(g.late, now-g.dueAt(next))
			}
			g.serve(c)
		}
		select {
		case <-interrupted:
			g.latencies = g.latencies[:next]
			end = now + int64(grace)
			continue
		default:
		}
		if now > end {
			break
		}
		timeout := end - now
		if next < len(g.latencies) {
			timeout = g.dueAt(next) - g.now()
		}
		if err := g.wait(max(timeout, 0)); err != nil {
			return err
		}
	}
	for k, latency := range g.latencies {
		if latency == 0 {
			g.lose(k, "no answer")
		}
	}
	return nil
}

func (g *generator) now() int64 { return int64(time.Since(g.base)) }

func (g *generator) dueAt(request int) int64 { return g.start + int64(float64(request)*g.interval) }

// serve sends the connection's next request if it is due and the connection is
// free, and opens the connection if need be.
func (g *generator) serve(c *conn) {
	for c.request < c.due {
		switch c.state {
		case closed:
			if err := g.connect(c); err != nil {
				g.fail(c, "connect: "+err.Error())
				continue
			}
			return
		case idle:
			c.state, c.head, c.body = reading, c.head[:0], 0
			c.used++
			if n, err := unix.Write(c.fd, g.request); err != nil || n < len(g.request) {
				g.fail(c, "send")
				continue
			}
			return
		default:
			return
		}
	}
}

func (g *generator) connect(c *conn) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1); err != nil {
		return err
	}
	if err := unix.Connect(fd, g.addr); err != nil && !errors.Is(err, unix.EINPROGRESS) {
		unix.Close(fd)
		return err
	}
	event := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLOUT | unix.EPOLLRDHUP | unix.EPOLLET, Fd: int32(fd)}
	if err := unix.EpollCtl(g.epoll, unix.EPOLL_CTL_ADD, fd, &event); err != nil {
		return err
	}
	c.fd, c.state, c.used, c.close = fd, connecting, 0, false
	g.byFD[int32(fd)] = c
	return nil
}

func (g *generator) disconnect(c *conn) {
	if c.state != closed {
		delete(g.byFD, int32(c.fd))
		unix.Close(c.fd)
		c.state = closed
	}
}

// fail loses the connection's current request.
func (g *generator) fail(c *conn, reason string) {
	g.disconnect(c)
	g.lose(c.request, reason)
	c.request += len(g.conns)
}

func (g *generator) lose(request int, reason string) {
	g.latencies[request] = lost
	g.failures[reason]++
	g.done++
}

// wait handles events until the timeout in ns. The scheduler does not know that the
// thread waits: it would look every 20 µs whether that is over, on the CPU of whoever is to
// answer.
func (g *generator) wait(timeout int64) error {
	var events [256]unix.EpollEvent
	ts := unix.NsecToTimespec(timeout)
	n, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT2, uintptr(g.epoll), uintptr(unsafe.Pointer(&events[0])),
		uintptr(len(events)), uintptr(unsafe.Pointer(&ts)), 0, 0)
	if errno == unix.EINTR {
		runtime.Gosched() // it is the scheduler that wants something
		return nil
	}
	if errno != 0 {
		return fmt.Errorf("epoll_pwait2 (needs Linux 5.11): %w", errno)
	}
	for _, ev := range events[:n] {
		if c := g.byFD[ev.Fd]; c != nil {
			g.event(c, ev.Events)
		}
	}
	return nil
}

func (g *generator) event(c *conn, events uint32) {
	ended := events&(unix.EPOLLRDHUP|unix.EPOLLHUP|unix.EPOLLERR) != 0
	if c.state == connecting {
		if events&(unix.EPOLLERR|unix.EPOLLHUP) != 0 {
			g.refused(c)
			return
		}
		if events&unix.EPOLLOUT == 0 {
			return
		}
		c.state = idle
		g.serve(c)
	}
	for c.state != closed {
		n, err := unix.Read(c.fd, g.buf)
		switch {
		case errors.Is(err, unix.EAGAIN):
			return
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil || n == 0:
			if c.state == reading {
				g.fail(c, "closed before the answer was complete")
			} else {
				g.disconnect(c)
			}
			g.serve(c)
			return
		}
		g.received(c, g.buf[:n])
		if n < len(g.buf) && !ended {
			return
		}
	}
}

// refused loses the request that the connection was opened for, if there is one.
func (g *generator) refused(c *conn) {
	if c.request < c.due {
		g.fail(c, "connection refused or reset")
	} else {
		g.disconnect(c)
	}
	g.serve(c)
}

// received reads a piece of an answer.
func (g *generator) received(c *conn, p []byte) {
	if c.state != reading {
		g.disconnect(c) // bytes that nobody asked for
		return
	}
	if c.body == 0 {
		c.head = append(c.head, p...)
		h, length, err := parseHead(c.head)
		switch {
		case err != nil:
			g.fail(c, err.Error())
			g.serve(c)
			return
		case length == 0:
			return // more of the head is to come
		case h.status < 200 || h.status > 299:
			g.fail(c, fmt.Sprintf("status %d", h.status))
			g.serve(c)
			return
		}
		c.close = h.close
		c.body = h.length + length - len(c.head)
	} else {
		c.body -= len(p)
	}
	if c.body > 0 {
		return
	}
	g.latencies[c.request] = max(g.now()-g.dueAt(c.request), 1)
	g.done++
	c.request += len(g.conns)
	c.state = idle
	if c.body < 0 || c.close || g.perConnection > 0 && c.used >= g.perConnection {
		g.disconnect(c)
	}
	g.serve(c)
}

// save writes the samples.
func (g *generator) save(path string) error {
	out := make([]byte, 0, 16*len(g.latencies))
	for k, latency := range g.latencies {
		out = binary.LittleEndian.AppendUint64(out, uint64(g.baseClock+g.dueAt(k)))
		out = binary.LittleEndian.AppendUint64(out, uint64(latency))
	}
	return os.WriteFile(path, out, 0o644)
}

func (g *generator) result() Result {
	r := Result{
		Rate: 1e9 / g.interval, Connections: len(g.conns), Seconds: float64(len(g.latencies)) * g.interval / 1e9,
		Sent: len(g.latencies), Failures: g.failures,
	}
	for _, n := range g.failures {
		r.Failed += n
	}
	r.OK = r.Sent - r.Failed
	answered := slices.DeleteFunc(slices.Clone(g.latencies), func(ns int64) bool { return ns == lost })
	slices.Sort(answered)
	slices.Sort(g.late)
	r.P50, r.P99, r.P999, r.Max = at(answered, 0.5), at(answered, 0.99), at(answered, 0.999), at(answered, 1)
	r.LateP99 = at(g.late, 0.99)
	return r
}

// at returns a quantile of sorted ns, in µs.
func at(sorted []int64, q float64) float64 {
	if len(sorted) == 0 {
		return 0
	}
	return float64(sorted[int(q*float64(len(sorted)-1)+0.5)]) / 1e3
}
