package loop_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"reverseproxy/dataplane/internal/backend"
	"reverseproxy/dataplane/internal/loop"
	"reverseproxy/dataplane/internal/metrics"
	"reverseproxy/dataplane/internal/table"
	"reverseproxy/proto/routetable"
	routetablev1 "reverseproxy/proto/routetable/v1"
)

// mostThreads is how many threads a server of a test has at most.
const mostThreads = 4

func TestMain(m *testing.M) {
	if os.Getenv("GOMAXPROCS") == "" { // else a test has set it
		runtime.GOMAXPROCS(loop.Processors(loop.Drivers()[0], max(mostThreads, runtime.GOMAXPROCS(0))))
	}
	goleak.VerifyTestMain(m)
}

// patience is how long a test waits for what must happen. It is never waited for
// in full by a test that passes.
const patience = 20 * time.Second

// rig is a server with a route table.
type rig struct {
	*loop.Server
	addr     string
	listener *loop.Listener
	live     *table.Live
	state    *table.State
	revision uint64
	forgiven uint64 // panics that the test wants
}

type setting func(*routetablev1.RouteTable, *loop.Options)

// endpoint adds an endpoint for path: "/x/*", "/*" or exact.
func endpoint(path string, urls ...string) setting {
	return func(rt *routetablev1.RouteTable, _ *loop.Options) {
		rt.Endpoints = append(rt.Endpoints, newEndpoint(path, urls...))
	}
}

func newEndpoint(path string, urls ...string) *routetablev1.Endpoint {
	e := &routetablev1.Endpoint{Name: path, Timeouts: &routetablev1.Timeouts{
		Connect: durationpb.New(5 * time.Second), Response: durationpb.New(patience), Idle: durationpb.New(patience),
	}}
	if prefix, ok := strings.CutSuffix(path, "/*"); ok {
		e.Path = &routetablev1.Endpoint_Prefix{Prefix: prefix}
	} else {
		e.Path = &routetablev1.Endpoint_Exact{Exact: path}
	}
	for _, u := range urls {
		e.Pool = append(e.Pool, &routetablev1.Backend{Url: u, Weight: 1})
	}
	return e
}

// last changes the endpoint added last.
func last(change func(*routetablev1.Endpoint)) setting {
	return func(rt *routetablev1.RouteTable, _ *loop.Options) { change(rt.Endpoints[len(rt.Endpoints)-1]) }
}

func limits(change func(*routetablev1.Limits)) setting {
	return func(rt *routetablev1.RouteTable, _ *loop.Options) { change(rt.Limits) }
}

func options(change func(*loop.Options)) setting {
	return func(_ *routetablev1.RouteTable, o *loop.Options) { change(o) }
}

// onEachDriver runs a test on every driver that there is.
func onEachDriver(t *testing.T, test func(t *testing.T, driver string)) {
	for _, driver := range loop.Drivers() {
		t.Run(driver, func(t *testing.T) { test(t, driver) })
	}
}

func start(t testing.TB, driver string, settings ...setting) *rig {
	t.Helper()
	o := loop.Options{Driver: driver, Threads: 2, Live: &table.Live{}, Log: slog.New(slog.NewTextHandler(testLog{t}, nil))}
	rt := newTable(&o, settings...)
	o.Metrics = metrics.NewSet(o.Threads)
	r := &rig{live: o.Live, state: &table.State{Backends: backend.NewRegistry(), Metrics: o.Metrics}}
	r.apply(t, rt)
	var err error
	if r.Server, err = loop.NewServer(o); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		r.Close()
		if n := r.Panics(); n != r.forgiven {
			t.Errorf("%d panics in the session", n)
		}
	})
	if r.listener, err = r.Open("127.0.0.1", 0); err != nil {
		t.Fatal(err)
	}
	r.addr = r.listener.Addr().String()
	r.listener.Serve()
	return r
}

func newTable(o *loop.Options, settings ...setting) *routetablev1.RouteTable {
	rt := &routetablev1.RouteTable{Port: 8000, Limits: &routetablev1.Limits{
		MaxHeadBytes: 64 << 10, MaxHeaderCount: 100, MaxUriBytes: 8 << 10, MaxConnections: 10000,
		HeaderTimeout: durationpb.New(patience), IdleTimeout: durationpb.New(patience),
	}}
	for _, s := range settings {
		s(rt, o)
	}
	slices.SortFunc(rt.Endpoints, func(a, b *routetablev1.Endpoint) int { return strings.Compare(a.Name, b.Name) })
	return rt
}

// apply puts a route table in force.
func (r *rig) apply(t testing.TB, rt *routetablev1.RouteTable) {
	t.Helper()
	r.revision++
	encoded, err := proto.Marshal(rt)
	if err != nil {
		t.Fatal(err)
	}
	next, err := table.New(encoded, routetable.Version(rt), r.revision, r.state)
	if err != nil {
		t.Fatal(err)
	}
	r.live.Store(next)
}

// testLog shows the server's log when a test fails.
type testLog struct{ testing.TB }

func (l testLog) Write(p []byte) (int, error) {
	l.Logf("%s", bytes.TrimSpace(p))
	return len(p), nil
}

// origin is a backend written by hand: what it gets and gives is bytes.
type origin struct {
	testing.TB
	url, host string
	conns     atomic.Int64 // accepted so far
	listener  net.Listener
	wait      sync.WaitGroup
	mu        sync.Mutex
	open      map[net.Conn]struct{}
}

// serve starts a backend that runs handle for each connection.
func serve(t testing.TB, handle func(*peer)) *origin {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	o := &origin{TB: t, url: "http://" + l.Addr().String(), host: l.Addr().String(), listener: l, open: map[net.Conn]struct{}{}}
	o.wait.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			o.conns.Add(1)
			o.mu.Lock()
			o.open[c] = struct{}{}
			o.mu.Unlock()
			o.wait.Go(func() {
				defer o.closed(c)
				handle(newPeer(t, c))
			})
		}
	})
	t.Cleanup(o.stop)
	return o
}

func (o *origin) closed(c net.Conn) {
	o.mu.Lock()
	delete(o.open, c)
	o.mu.Unlock()
	_ = c.Close()
}

// stop closes the listener and all connections, and waits.
func (o *origin) stop() {
	_ = o.listener.Close()
	o.mu.Lock()
	for c := range o.open {
		_ = c.Close()
	}
	o.mu.Unlock()
	o.wait.Wait()
}

// answers is a handler that answers each request, and closes after a response
// that says so.
func answers(respond func(message) string) func(*peer) {
	return func(p *peer) {
		for {
			m, err := p.request()
			if err != nil {
				return
			}
			response := respond(m)
			if _, err := io.WriteString(p, response); err != nil || strings.Contains(response, "Connection: close") {
				return
			}
		}
	}
}

// always is answers with one response.
func always(response string) func(*peer) { return answers(func(message) string { return response }) }

const ok = "HTTP/1.1 200 OK\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\nContent-Length: 2\r\n\r\nok"

// message is a message as it was on the wire.
type message struct {
	line string
	head string // with the start line and the empty line
	body string // chunked bodies with their framing
}

func (m message) field(name string) string {
	var all []string
	for line := range strings.SplitSeq(m.head, "\r\n") {
		if n, v, found := strings.Cut(line, ":"); found && strings.EqualFold(n, name) {
			all = append(all, strings.TrimSpace(v))
		}
	}
	return strings.Join(all, " | ")
}

// peer is an end of a connection that speaks bytes.
type peer struct {
	*net.TCPConn
	in *bufio.Reader
	t  testing.TB
}

func newPeer(t testing.TB, c net.Conn) *peer {
	_ = c.SetDeadline(time.Now().Add(patience))
	return &peer{TCPConn: c.(*net.TCPConn), in: bufio.NewReader(c), t: t}
}

// dial connects a client.
func dial(t testing.TB, addr string) *peer {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return newPeer(t, c)
}

func (p *peer) send(s string) *peer {
	p.t.Helper()
	if _, err := io.WriteString(p, s); err != nil {
		p.t.Errorf("send: %v", err)
	}
	return p
}

func (p *peer) head() (m message, err error) {
	var b strings.Builder
	for {
		line, err := p.in.ReadString('\n')
		b.WriteString(line)
		if err != nil {
			return message{head: b.String()}, err
		}
		if m.line == "" {
			m.line = strings.TrimRight(line, "\r\n")
		}
		if line == "\r\n" {
			m.head = b.String()
			return m, nil
		}
	}
}

func (p *peer) framed(m message) (message, error) {
	if strings.EqualFold(m.field("Transfer-Encoding"), "chunked") {
		var b strings.Builder
		for {
			line, err := p.in.ReadString('\n')
			b.WriteString(line)
			m.body = b.String()
			if err != nil {
				return m, err
			}
			size, err := strconv.ParseInt(strings.TrimSpace(strings.SplitN(line, ";", 2)[0]), 16, 64)
			if err != nil {
				return m, fmt.Errorf("chunk size: %w", err)
			}
			if size > 0 {
				_, err = io.CopyN(&b, p.in, size+2)
				m.body = b.String()
				if err != nil {
					return m, err
				}
				continue
			}
			for {
				line, err := p.in.ReadString('\n')
				b.WriteString(line)
				m.body = b.String()
				if err != nil || line == "\r\n" {
					return m, err
				}
			}
		}
	}
	if n, err := strconv.Atoi(m.field("Content-Length")); err == nil {
		body := make([]byte, n)
		k, err := io.ReadFull(p.in, body)
		m.body = string(body[:k])
		return m, err
	}
	return m, nil
}

func (p *peer) request() (message, error) {
	m, err := p.head()
	if err != nil {
		return m, err
	}
	return p.framed(m)
}

// response reads a response that has a body unless its status or head says not.
func (p *peer) response() message {
	p.t.Helper()
	m, err := p.head()
	if err != nil {
		p.t.Fatalf("response head: %v after %q", err, m.head)
	}
	if strings.HasPrefix(m.line, "HTTP/1.1 1") || strings.Contains(m.line, " 204 ") || strings.Contains(m.line, " 304 ") {
		return m
	}
	m, err = p.framed(m)
	if err != nil {
		p.t.Fatalf("response body: %v after %q", err, m.body)
	}
	return m
}

// rest reads to the end of the connection. clean is false when it was reset.
func (p *peer) rest() (s string, clean bool) {
	p.t.Helper()
	b, err := io.ReadAll(p.in)
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		p.t.Errorf("connection still open after %.200q", b)
	}
	return string(b), err == nil
}

// ends checks that nothing more comes.
func (p *peer) ends() {
	p.t.Helper()
	if s, _ := p.rest(); s != "" {
		p.t.Errorf("after the end came %q", s)
	}
}

// once sends s on a connection of its own and returns all that comes back.
func once(t testing.TB, addr, s string) string {
	t.Helper()
	c := dial(t, addr)
	c.send(s)
	all, _ := c.rest()
	return all
}

func status(t testing.TB, response string) int {
	t.Helper()
	r, err := http.ReadResponse(bufio.NewReader(strings.NewReader(response)), nil)
	if err != nil {
		t.Errorf("response %q: %v", response, err)
		return 0
	}
	_ = r.Body.Close()
	return r.StatusCode
}

// eventually waits until done is true.
func eventually(t testing.TB, what string, done func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for !done() {
		select {
		case <-ctx.Done():
			t.Fatalf("still not: %s", what)
		case <-time.After(time.Millisecond):
		}
	}
}

// dead returns an address where nobody listens.
func dead(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}

// body returns n bytes.
func body(n int) string { return strings.Repeat("0123456789abcdef", n/16+1)[:n] }

func (p *peer) mustHead() string {
	p.t.Helper()
	m, err := p.head()
	if err != nil {
		p.t.Fatalf("head: %v", err)
	}
	return m.head
}

func withPage(page string) setting {
	return options(func(o *loop.Options) {
		o.MetricsPage = func() (string, []byte) { return "text/x-test", []byte(page) }
	})
}

// receive waits for a value, or for ch to be closed.
func receive[T any](t testing.TB, ch <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-ch:
	case <-time.After(patience):
		t.Fatal("did not happen in time")
	}
	return v
}
