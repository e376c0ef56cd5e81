package proxy_test

import (
	"fmt"
	"log/slog"
	"runtime/debug"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"reverseproxy/dataplane/internal/accesslog"
	"reverseproxy/dataplane/internal/backend"
	"reverseproxy/dataplane/internal/metrics"
	"reverseproxy/dataplane/internal/proxy"
	"reverseproxy/dataplane/internal/sample"
	"reverseproxy/dataplane/internal/table"
	"reverseproxy/proto/routetable"
	routetablev1 "reverseproxy/proto/routetable/v1"
)

// world is a driver without an operating system: a test decides what happens and
// in which order. It also checks that the engine keeps the driver's rules.
type world struct {
	testing.TB
	engine  *proxy.Engine
	live    *table.Live
	set     *metrics.Set
	log     *accesslog.Log
	samples *sample.Set
	now     time.Duration
	wall    func() time.Duration // what the wall clock has gained
	origin  proxy.Origin

	state    *table.State
	backends *backend.Registry

	client  *end // for tests that have one
	dialled []*end
	done    []func() // of Go
	posted  []func()
	dead    []*end // to be recycled after the callback
	spare   []*end
	splices bool // can move bytes by itself
	recycle bool // use Conn memory again, as a driver may
	holds   bool // keep what is sent for a moment, as a busy driver may
	keeps   bool // and for longer than a callback
	held    []*end
	peak    int // most bytes queued on one connection
}

// end is a connection of world. What the engine sends is in sent at once, or in
// queue while stuck.
type end struct {
	conn                  proxy.Conn
	addr                  string
	limit                 time.Duration // to connect
	sent, queue, held     []byte
	stuck                 bool
	paused, shut          bool
	closed, aborted, used bool
	dialling              bool
	deadline              int64
	splice                int64 // how many of the next bytes go to spliceTo
	spliceTo              *end
}

func newWorld(t testing.TB, endpoints ...*routetablev1.Endpoint) *world {
	t.Helper()
	return newWorldOf(t, wire(endpoints...))
}

// wire is a route table of these endpoints.
func wire(endpoints ...*routetablev1.Endpoint) *routetablev1.RouteTable {
	return &routetablev1.RouteTable{Port: 80, Endpoints: endpoints, Limits: &routetablev1.Limits{
		MaxHeadBytes: 64 << 10, MaxHeaderCount: 100, MaxUriBytes: 8 << 10, MaxConnections: 100,
		HeaderTimeout: durationpb.New(10 * time.Second), IdleTimeout: durationpb.New(time.Minute),
	}}
}

func newWorldOf(t testing.TB, rt *routetablev1.RouteTable) *world {
	t.Helper()
	w := &world{TB: t, live: &table.Live{}, set: metrics.NewSet(1), backends: backend.NewRegistry(), log: accesslog.New(1), samples: sample.New(1), now: time.Second}
	w.wall = func() time.Duration { return 0 } // Date fields never change
	w.apply(rt)
	w.engine = proxy.New(proxy.Config{
		Driver: w, Live: w.live, Metrics: w.set, AccessLog: w.log.Shard(0), Samples: w.samples.Shard(0), Log: slog.New(slog.DiscardHandler),
		Page:  func() (string, []byte) { return "text/plain", []byte("page") },
		Clock: func() time.Time { return time.Unix(784111777, 0).Add(w.wall()) },
	})
	return w
}

// apply puts a table in force.
func (w *world) apply(rt *routetablev1.RouteTable) {
	w.Helper()
	built := w.build(rt)
	w.live.Store(built)
	w.state.Retain(built)
}

// build makes a table that can come into force.
func (w *world) build(rt *routetablev1.RouteTable) *table.Table {
	w.Helper()
	encoded, err := proto.Marshal(rt)
	if err != nil {
		w.Fatal(err)
	}
	if w.state == nil {
		w.state = &table.State{Backends: w.backends, Metrics: w.set}
	}
	built, err := table.New(encoded, routetable.Version(rt), 1, w.state)
	if err != nil {
		w.Fatal(err)
	}
	built.Warm(w.live.Load())
	return built
}

// anything is an endpoint for all requests.
func anything() *routetablev1.Endpoint {
	return &routetablev1.Endpoint{
		Name: "all", Path: &routetablev1.Endpoint_Prefix{},
		Pool: []*routetablev1.Backend{{Url: "http://origin:80", Weight: 1}},
		Timeouts: &routetablev1.Timeouts{
			Connect: durationpb.New(time.Second), Response: durationpb.New(30 * time.Second), Idle: durationpb.New(90 * time.Second),
		},
	}
}

func of(c *proxy.Conn) *end { return c.Handle.(*end) }

func (w *world) check(c *proxy.Conn) *end {
	e := of(c)
	if e.closed {
		w.Errorf("a closed connection is used: %s", debug.Stack())
	}
	return e
}

func (w *world) Send(c *proxy.Conn, p []byte) {
	e := w.check(c)
	if e.shut {
		w.Errorf("%q sent after FIN", p)
	}
	w.Flush(c)
	if w.holds && len(e.queue) == 0 && !e.dialling && len(p) > 0 {
		e.held = append(e.held, p...)
		w.held = append(w.held, e)
		return
	}
	w.write(e, p)
}

func (w *world) write(e *end, p []byte) {
	if e.stuck {
		e.queue = append(e.queue, p...)
		w.peak = max(w.peak, len(e.queue))
		return
	}
	e.sent = append(e.sent, p...)
}

func (w *world) Flush(c *proxy.Conn) {
	e := w.check(c)
	p := e.held
	e.held = nil
	w.write(e, p)
}

func (w *world) SendBoth(c *proxy.Conn, head, body []byte) {
	w.Send(c, head)
	w.Send(c, body)
}

// Splice works if the test wants it to.
func (w *world) Splice(from, to *proxy.Conn, n int64) bool {
	f, t := w.check(from), w.check(to)
	if f.paused || len(t.queue) > 0 {
		w.Error("spliced while something waits")
	}
	w.Flush(to)
	if len(t.queue) > 0 {
		return false
	}
	if w.splices {
		f.splice, f.spliceTo = n, t
	}
	return w.splices
}

func (w *world) Queued(c *proxy.Conn) int { return len(w.check(c).queue) }

func (w *world) fresh() *end {
	if n := len(w.spare); n > 0 {
		e := w.spare[n-1]
		w.spare = w.spare[:n-1]
		sent := e.sent[:0]
		*e = end{sent: sent}
		e.conn.Handle = e
		return e
	}
	e := &end{}
	e.conn.Handle = e
	return e
}

func (w *world) Dial(addr string, limit time.Duration) *proxy.Conn {
	e := w.fresh()
	e.addr, e.limit, e.stuck, e.dialling = addr, limit, true, true
	w.dialled = append(w.dialled, e)
	return &e.conn
}

func (w *world) CloseWrite(c *proxy.Conn) {
	w.Flush(c)
	w.check(c).shut = true
}

func (w *world) Close(c *proxy.Conn) {
	e := w.check(c)
	w.Flush(c)
	e.closed, e.queue = true, nil
	w.dead = append(w.dead, e)
}

func (w *world) Abort(c *proxy.Conn) {
	of(c).aborted = true
	w.Close(c)
}

func (w *world) Pause(c *proxy.Conn)              { w.check(c).paused = true }
func (w *world) Resume(c *proxy.Conn)             { w.check(c).paused = false }
func (w *world) After(c *proxy.Conn, after int64) { w.check(c).deadline = after }
func (w *world) Go(work, done func())             { work(); w.done = append(w.done, done) }

func (w *world) Post(c *proxy.Conn, f func()) {
	w.posted = append(w.posted, func() {
		if e, ok := c.Handle.(*end); ok && !e.closed {
			f()
		}
	})
}

// settle is the end of a callback.
func (w *world) settle() {
	if !w.keeps {
		for _, e := range w.held {
			if !e.closed {
				w.Flush(&e.conn)
			}
		}
		w.held = w.held[:0]
	}
	if w.recycle {
		for _, e := range w.dead {
			e.conn = proxy.Conn{}
			w.spare = append(w.spare, e)
		}
	}
	w.dead = w.dead[:0]
}

func (w *world) tick() { w.engine.SetNow(int64(w.now)) }

func (w *world) accept() *end { return w.acceptFrom("192.0.2.1") }

func (w *world) acceptFrom(remote string) *end {
	e := w.fresh()
	w.tick()
	w.engine.Accept(&e.conn, remote, &w.origin)
	w.settle()
	return e
}

// data gives p to the engine, in a buffer that is overwritten afterwards.
func (w *world) data(e *end, p string) {
	if e.closed {
		return
	}
	if e.paused {
		w.Fatalf("%q given to a paused connection", p)
	}
	w.tick()
	if n := min(e.splice, int64(len(p))); n > 0 {
		e.spliceTo.sent = append(e.spliceTo.sent, p[:n]...)
		e.splice -= n
		p = p[n:]
		w.engine.Spliced(&e.conn, n)
		w.settle()
		if p == "" || e.closed {
			return
		}
	}
	buf := []byte(p)
	w.engine.Data(&e.conn, buf)
	for i := range buf {
		buf[i] = '!'
	}
	w.settle()
}

func (w *world) eof(e *end, err error) {
	if !e.closed {
		w.tick()
		w.engine.EOF(&e.conn, err)
		w.settle()
	}
}

// connect lets a dial succeed.
func (w *world) connect(e *end) {
	if e.closed {
		return
	}
	e.dialling = false
	w.tick()
	w.engine.Connected(&e.conn)
	w.settle()
	w.drain(e)
	e.stuck = false
}

// drain takes everything that is queued.
func (w *world) drain(e *end) {
	if e.closed || len(e.queue) == 0 {
		return
	}
	e.sent = append(e.sent, e.queue...)
	e.queue = nil
	w.tick()
	w.engine.Drained(&e.conn)
	w.settle()
}

// comeBack runs what Go has left.
func (w *world) comeBack() {
	for _, f := range w.done {
		w.tick()
		f()
		w.settle()
	}
	w.done = nil
}

// runPosted runs what has been posted.
func (w *world) runPosted() {
	for len(w.posted) > 0 {
		f := w.posted[0]
		w.posted = w.posted[1:]
		w.tick()
		f()
		w.settle()
	}
}

// pass lets time go by and deadlines with it.
func (w *world) pass(d time.Duration, ends ...*end) {
	w.now += d
	for _, e := range ends {
		if !e.closed && e.deadline > 0 && e.deadline <= int64(w.now) {
			e.deadline = 0
			w.tick()
			w.engine.Timeout(&e.conn)
			w.settle()
		}
	}
}

// errors returns what has been counted against backends and against clients, by
// reason.
func (w *world) errors() (backends, clients string) {
	return fmt.Sprint(w.counts("dataplane_backend_errors_total", "reason")), fmt.Sprint(w.counts("dataplane_client_errors_total", "reason"))
}

// counts returns the values of a counter that are not 0, summed by one label.
func (w *world) counts(name, label string) map[string]float64 {
	w.Helper()
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(w.set)
	families, err := registry.Gather()
	if err != nil {
		w.Fatal(err)
	}
	sums := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				if v := m.GetCounter().GetValue() + m.GetGauge().GetValue(); f.GetName() == name && l.GetName() == label && v != 0 {
					sums[l.GetValue()] += v
				}
			}
		}
	}
	return sums
}

func (w *world) totals() (requests, failures uint64) {
	all := w.set.Totals()
	return all.Requests, all.Failures
}

func (e *end) take() string {
	s := string(e.sent)
	e.sent = e.sent[:0]
	return s
}

// undated replaces the Date field that the engine adds.
func undated(s string) string {
	return strings.ReplaceAll(s, "Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n", "")
}
