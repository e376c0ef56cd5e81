package loop_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/protobuf/types/known/durationpb"

	"reverseproxy/dataplane/internal/loop"
	routetablev1 "reverseproxy/proto/routetable/v1"
)

// sum adds up the samples of a metric with these label values (name, value, …).
func sum(t testing.TB, r *rig, name string, labels ...string) (total float64) {
	t.Helper()
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(r.state.Metrics)
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
	next:
		for _, m := range f.GetMetric() {
			has := map[string]string{}
			for _, l := range m.GetLabel() {
				has[l.GetName()] = l.GetValue()
			}
			for i := 0; i < len(labels); i += 2 {
				if has[labels[i]] != labels[i+1] {
					continue next
				}
			}
			total += m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	return total
}

// TestMetrics: each request counts once, where it belongs.
func TestMetrics(t *testing.T) { onEachDriver(t, testMetrics) }

func testMetrics(t *testing.T, driver string) {
	o := serve(t, always(ok))
	gone := "http://" + dead(t)
	r := start(t, driver, endpoint("/ok", o.url), endpoint("/gone", gone))
	c := dial(t, r.addr)
	for _, send := range []string{
		"GET /ok HTTP/1.1\r\nHost: a\r\n\r\n",
		"POST /ok HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc",
		"FROB /ok HTTP/1.1\r\nHost: a\r\n\r\n",
		"GET /gone HTTP/1.1\r\nHost: a\r\n\r\n",
		"GET /none HTTP/1.1\r\nHost: a\r\n\r\n",
		"nonsense\r\n\r\n",
	} {
		c.send(send).response()
	}
	c.ends()
	_ = c.Close()
	tests := []struct {
		name   string
		labels []string
		want   float64
	}{
		{"dataplane_requests_total", nil, 6},
		{"dataplane_requests_total", []string{"endpoint", "/ok", "code", "200", "method", "GET"}, 1},
		{"dataplane_requests_total", []string{"endpoint", "/ok", "code", "200", "method", "POST"}, 1},
		{"dataplane_requests_total", []string{"endpoint", "/ok", "code", "200", "method", "other"}, 1},
		{"dataplane_requests_total", []string{"endpoint", "/gone", "code", "502"}, 1},
		{"dataplane_requests_total", []string{"endpoint", "none", "code", "404"}, 1},
		{"dataplane_requests_total", []string{"endpoint", "none", "code", "400"}, 1},
		{"dataplane_requests_in_flight", nil, 0},
		{"dataplane_backend_requests_total", []string{"endpoint", "/ok", "backend", o.url, "code", "200"}, 3},
		{"dataplane_backend_errors_total", []string{"endpoint", "/gone", "backend", gone}, 1},
		{"dataplane_backend_up", []string{"endpoint", "/gone"}, 0},
		{"dataplane_backend_up", []string{"endpoint", "/ok"}, 1},
		{"dataplane_request_duration_seconds", []string{"endpoint", "/ok"}, 3},
		{"dataplane_connections", nil, 0},
	}
	eventually(t, "the connection is counted as closed", func() bool { return sum(t, r, "dataplane_connections") == 0 })
	for _, tt := range tests {
		if got := sum(t, r, tt.name, tt.labels...); got != tt.want {
			t.Errorf("%s%v = %v, want %v", tt.name, tt.labels, got, tt.want)
		}
	}
	if in, out := sum(t, r, "dataplane_request_bytes_total", "endpoint", "/ok"), sum(t, r, "dataplane_response_bytes_total", "endpoint", "/ok"); in < 90 || out < 3*float64(len(ok)) {
		t.Errorf("bytes %v %v", in, out)
	}
	if got := r.state.Metrics.Totals(); got.Requests != 6 || got.Failures != 1 {
		t.Errorf("totals %+v", got)
	}
}

// TestRoundRobin: exact over all threads and connections, first request first.
func TestRoundRobin(t *testing.T) { onEachDriver(t, testRoundRobin) }

func testRoundRobin(t *testing.T, driver string) {
	const clients, each = 20, 30
	var counts [3]atomic.Int64
	var urls []string
	for i := range counts {
		o := serve(t, answers(func(message) string {
			counts[i].Add(1)
			return fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n%d", i)
		}))
		urls = append(urls, o.url)
	}
	r := start(t, driver, endpoint("/*", urls...), options(func(o *loop.Options) { o.Threads = 4 }))
	for i := range 6 {
		if m := dial(t, r.addr).send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").response(); m.body != fmt.Sprint(i%3) {
			t.Errorf("request %d went to %s", i, m.body)
		}
	}
	var all sync.WaitGroup
	for range clients {
		all.Go(func() {
			c := dial(t, r.addr)
			for range each {
				c.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").response()
			}
		})
	}
	all.Wait()
	for i := range counts {
		if n := counts[i].Load(); n != clients*each/3+2 {
			t.Errorf("backend %d got %d requests", i, n)
		}
	}
}

func TestMaxConnections(t *testing.T) { onEachDriver(t, testMaxConnections) }

func testMaxConnections(t *testing.T, driver string) {
	r := start(t, driver, limits(func(l *routetablev1.Limits) { l.MaxConnections = 2 }))
	a, b := dial(t, r.addr), dial(t, r.addr)
	for _, c := range []*peer{a, b} {
		if m := c.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").response(); !strings.Contains(m.line, "404") {
			t.Fatalf("got %q", m.line)
		}
	}
	c := dial(t, r.addr)
	if m := c.response(); m.line != "HTTP/1.1 503 Service Unavailable" || m.field("Connection") != "close" {
		t.Errorf("got %q", m.head)
	}
	c.ends()
	_ = c.Close()
	_ = a.Close()
	eventually(t, "there is room again", func() bool {
		c := dial(t, r.addr)
		defer func() { _ = c.Close() }()
		_, err := c.Write([]byte("GET / HTTP/1.1\r\nHost: a\r\n\r\n"))
		m, _ := c.head()
		return err == nil && strings.Contains(m.line, "404")
	})
}

// TestDrain: requests in progress end, idle connections are closed, new ones are
// not accepted.
func TestDrain(t *testing.T) { onEachDriver(t, testDrain) }

func testDrain(t *testing.T, driver string) {
	inside, proceed := make(chan struct{}, 9), make(chan struct{})
	release := sync.OnceFunc(func() { close(proceed) })
	o := serve(t, answers(func(m message) string {
		if strings.Contains(m.line, "/slow") {
			inside <- struct{}{}
			<-proceed
		}
		return ok
	}))
	t.Cleanup(release) // also when the test fails: the backend waits for it
	r := start(t, driver, endpoint("/*", o.url))
	var idle []*peer
	for range 5 {
		c := dial(t, r.addr)
		c.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").response()
		idle = append(idle, c)
	}
	half := dial(t, r.addr).send("GET /half HTTP/1.1\r\nHo")
	slow := dial(t, r.addr).send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
	receive(t, inside)
	done := make(chan error, 1)
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		done <- r.Drain(ctx)
	}()
	for _, c := range idle {
		c.ends()
	}
	eventually(t, "nothing is accepted", func() bool {
		c, err := net.Dial("tcp", r.addr)
		if err == nil {
			_ = c.Close()
		}
		return err != nil
	})
	half.send("st: a\r\n\r\n")
	if m := half.response(); m.body != "ok" || m.field("Connection") != "close" {
		t.Errorf("half a head: %q", m.head)
	}
	half.ends()
	select {
	case err := <-done:
		t.Fatalf("did not wait: %v", err)
	default:
	}
	release()
	if m := slow.response(); m.body != "ok" || m.field("Connection") != "close" {
		t.Errorf("in progress: %q", m.head)
	}
	slow.ends()
	if err := receive(t, done); err != nil {
		t.Errorf("drain: %v", err)
	}
}

func TestDrainCutsWhatIsTooSlow(t *testing.T) { onEachDriver(t, testDrainCutsWhatIsTooSlow) }

func testDrainCutsWhatIsTooSlow(t *testing.T, driver string) {
	inside := make(chan struct{})
	o := serve(t, func(p *peer) {
		if _, err := p.request(); err == nil {
			close(inside)
			p.rest()
		}
	})
	r := start(t, driver, endpoint("/*", o.url))
	c := dial(t, r.addr).send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	receive(t, inside)
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if err := r.Drain(ctx); err == nil {
		t.Error("no error")
	}
	c.ends()
}

// TestListenerClose: connections that the kernel has accepted are served, those
// in progress end, others go on.
func TestListenerClose(t *testing.T) { onEachDriver(t, testListenerClose) }

func testListenerClose(t *testing.T, driver string) {
	inside, proceed := make(chan struct{}), make(chan struct{})
	release := sync.OnceFunc(func() { close(proceed) })
	o := serve(t, answers(func(m message) string {
		if strings.Contains(m.line, "/slow") {
			inside <- struct{}{}
			<-proceed
		}
		return ok
	}))
	t.Cleanup(release) // also when the test fails: the backend waits for it
	r := start(t, driver, endpoint("/*", o.url))
	second, err := r.Open("127.0.0.1", 0)
	if err != nil {
		t.Fatal(err)
	}
	second.Serve()
	other := dial(t, second.Addr().String())
	other.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").response()
	idle := dial(t, r.addr)
	idle.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").response()
	slow := dial(t, r.addr).send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
	receive(t, inside)
	var queued []*peer
	for range 50 {
		queued = append(queued, dial(t, r.addr).send("GET / HTTP/1.1\r\nHost: a\r\n\r\n"))
	}
	r.listener.Close()
	for _, c := range queued {
		if m := c.response(); m.body != "ok" {
			t.Errorf("queued: %q", m.head)
		}
		c.ends()
	}
	idle.ends()
	release()
	if m := slow.response(); m.body != "ok" || m.field("Connection") != "close" {
		t.Errorf("in progress: %q", m.head)
	}
	slow.ends()
	if m := other.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").response(); m.field("Connection") != "" {
		t.Errorf("the other listener: %q", m.head)
	}
}

// TestListenerCloseServesTheQueue: a client whose connection the kernel has
// accepted is served, even when accepting has hardly begun.
func TestListenerCloseServesTheQueue(t *testing.T) { onEachDriver(t, testListenerCloseServesTheQueue) }

func testListenerCloseServesTheQueue(t *testing.T, driver string) {
	r := start(t, driver, endpoint("/*", serve(t, always(ok)).url))
	l, err := r.Open("127.0.0.1", 0)
	if err != nil {
		t.Fatal(err)
	}
	var queued []*peer
	for range 50 {
		queued = append(queued, dial(t, l.Addr().String()).send("GET / HTTP/1.1\r\nHost: a\r\n\r\n"))
	}
	l.Serve()
	l.Close()
	for _, c := range queued {
		if m := c.response(); m.body != "ok" {
			t.Errorf("got %q", m.head)
		}
		c.ends()
	}
}

// TestListenerCloseServesTheSilent: a client that has connected and not said
// anything yet is served, although a driver may not have accepted it.
func TestListenerCloseServesTheSilent(t *testing.T) {
	onEachDriver(t, testListenerCloseServesTheSilent)
}

func testListenerCloseServesTheSilent(t *testing.T, driver string) {
	r := start(t, driver, endpoint("/*", serve(t, always(ok)).url))
	var silent []*peer
	for range 20 {
		silent = append(silent, dial(t, r.addr))
	}
	r.listener.Close()
	for _, c := range silent {
		if m := c.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").response(); m.body != "ok" {
			t.Errorf("got %q", m.head)
		}
	}
	for _, c := range silent {
		c.ends()
	}
}

func TestListenerCloseWithoutServe(t *testing.T) { onEachDriver(t, testListenerCloseWithoutServe) }

func testListenerCloseWithoutServe(t *testing.T, driver string) {
	r := start(t, driver)
	l, err := r.Open("", 0)
	if err != nil {
		t.Fatal(err)
	}
	c := dial(t, fmt.Sprintf("127.0.0.1:%d", l.Addr().(*net.TCPAddr).Port))
	l.Close()
	c.ends()
	l.Serve() // too late: does nothing
	l.Close()
}

func TestTwoListenersShareAPort(t *testing.T) { onEachDriver(t, testTwoListenersShareAPort) }

func testTwoListenersShareAPort(t *testing.T, driver string) {
	r := start(t, driver)
	port := uint16(r.listener.Addr().(*net.TCPAddr).Port)
	l, err := r.Open("127.0.0.1", port)
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	foreign, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = foreign.Close() }()
	if _, err := r.Open("127.0.0.1", uint16(foreign.Addr().(*net.TCPAddr).Port)); err == nil {
		t.Error("took a port that another program has")
	}
}

func TestOpenAfterClose(t *testing.T) { onEachDriver(t, testOpenAfterClose) }

func testOpenAfterClose(t *testing.T, driver string) {
	r := start(t, driver)
	r.Close()
	if _, err := r.Open("127.0.0.1", 0); err == nil {
		t.Error("no error")
	}
	r.Close()
	if err := r.Drain(context.Background()); err != nil {
		t.Errorf("drain: %v", err)
	}
}

// TestNewTableInForce: the next request sees it, on connections that exist.
func TestNewTableInForce(t *testing.T) { onEachDriver(t, testNewTableInForce) }

func testNewTableInForce(t *testing.T, driver string) {
	a, b := serve(t, always(strings.Replace(ok, "ok", "aa", 1))), serve(t, always(strings.Replace(ok, "\r\n\r\nok", "\r\n\r\nbb", 1)))
	r := start(t, driver, endpoint("/*", a.url))
	c := dial(t, r.addr)
	c.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").response()
	r.apply(t, newTable(nil, endpoint("/*", b.url)))
	if m := c.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").response(); m.body != "bb" {
		t.Errorf("got %q", m.body)
	}
}

// TestPanic: a mistake in the session costs the connection that it shows on.
func TestPanic(t *testing.T) { onEachDriver(t, testPanic) }

func testPanic(t *testing.T, driver string) {
	o := serve(t, always(ok))
	r := start(t, driver, endpoint("/*", o.url), endpoint("/broken", o.url), options(func(o *loop.Options) {
		o.Threads = 1
		o.Log = slog.New(slog.DiscardHandler)
	}))
	r.live.Load().Endpoint("/broken").Pool = nil
	r.live.Store(r.live.Load())
	other := dial(t, r.addr)
	other.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").response()
	dial(t, r.addr).send("GET /broken HTTP/1.1\r\nHost: a\r\n\r\n").ends()
	if m := other.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").response(); m.body != "ok" {
		t.Errorf("another connection: %q", m.head)
	}
	if n := r.Panics(); n != 1 {
		t.Errorf("%d panics", n)
	}
	r.Close()
	r.forgiven = 1
}

// TestIdleBackendConnections are used again, and given up after their time.
func TestIdleBackendConnections(t *testing.T) { onEachDriver(t, testIdleBackendConnections) }

func testIdleBackendConnections(t *testing.T, driver string) {
	left := make(chan struct{}, 9)
	o := serve(t, func(p *peer) {
		always(ok)(p)
		left <- struct{}{}
	})
	r := start(t, driver, endpoint("/*", o.url), options(func(o *loop.Options) { o.Threads = 1 }), last(func(e *routetablev1.Endpoint) {
		e.Timeouts.Idle = durationpb.New(300 * time.Millisecond)
	}))
	for range 5 {
		dial(t, r.addr).send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").response()
	}
	if n := o.conns.Load(); n != 1 {
		t.Errorf("%d connections to the backend, want 1", n)
	}
	receive(t, left)
	if m := dial(t, r.addr).send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").response(); m.body != "ok" {
		t.Errorf("got %q", m.body)
	}
}

// BenchmarkThroughput measures requests over loopback, client and backend in the
// same process.
func BenchmarkThroughput(b *testing.B) {
	for _, driver := range loop.Drivers() {
		b.Run(driver, func(b *testing.B) { benchmarkThroughput(b, driver) })
	}
}

func benchmarkThroughput(b *testing.B, driver string) {
	for _, size := range []int{1 << 10, 1 << 20} {
		b.Run(fmt.Sprintf("%dKB", size>>10), func(b *testing.B) {
			response := fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", size, body(size))
			o := serve(b, func(p *peer) {
				for {
					for {
						line, err := p.in.ReadSlice('\n')
						if err != nil {
							return
						}
						if len(line) == 2 {
							break
						}
					}
					if _, err := io.WriteString(p, response); err != nil {
						return
					}
				}
			})
			r := start(b, driver, endpoint("/*", o.url))
			b.SetBytes(int64(size))
			b.ReportAllocs()
			b.SetParallelism(16)
			b.RunParallel(func(pb *testing.PB) {
				c := dial(b, r.addr)
				_ = c.SetDeadline(time.Time{})
				for pb.Next() {
					c.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
					for {
						line, err := c.in.ReadSlice('\n')
						if err != nil {
							b.Error(err)
							return
						}
						if len(line) == 2 {
							break
						}
					}
					if _, err := io.CopyN(io.Discard, c.in, int64(size)); err != nil {
						b.Error(err)
						return
					}
				}
			})
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "req/s")
		})
	}
}
