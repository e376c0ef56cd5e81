package loop

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"reverseproxy/dataplane/internal/accesslog"
	"reverseproxy/dataplane/internal/loop/driver"
	"reverseproxy/dataplane/internal/metrics"
	"reverseproxy/dataplane/internal/proxy"
	"reverseproxy/dataplane/internal/sample"
	"reverseproxy/dataplane/internal/table"
)

// Options are what a Server needs.
type Options struct {
	// Driver is one of Drivers; empty: the first of them.
	Driver string
	// Threads is the number of event loops; 0: one per CPU that the process may
	// use. Metrics needs as many shards.
	Threads int
	Live    *table.Live
	Metrics *metrics.Set
	// MetricsPage renders what GET /metrics on the proxy port answers; nil:
	// nothing does. Called from any goroutine.
	MetricsPage func() (contentType string, body []byte)
	// AccessLog takes the lines about requests and has as many shards as there
	// are threads; nil: nobody does.
	AccessLog *accesslog.Log
	// Samples keeps what some requests look like and has as many shards as there are
	// threads; nil: nobody does.
	Samples *sample.Set
	// Resolver finds addresses for backends that are dialled by name; nil: the
	// system's.
	Resolver *net.Resolver
	Log      *slog.Logger
}

// Drivers are the names of the drivers that work on this system, the best first.
func Drivers() []string {
	names := make([]string, len(drivers))
	for i, d := range drivers {
		names[i] = d.name
	}
	return names
}

// Processors returns what GOMAXPROCS should be for a driver with that many
// threads.
func Processors(driver string, threads int) int {
	for _, d := range drivers {
		if d.name == driver {
			return threads + d.spare
		}
	}
	return threads
}

// choice is a driver that this system has.
type choice struct {
	name string
	open func(driver.Config) (driver.Loops, error)
	// spare is how many processors the Go scheduler should have beyond one per
	// thread.
	spare int
}

// Server forwards HTTP from its listeners to the backends of the live route
// table. All methods may be called from several goroutines.
type Server struct {
	options Options
	loops   driver.Loops

	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	// background is the draining of listeners that are gone.
	background sync.WaitGroup

	connections atomic.Int64 // from clients

	mu        sync.Mutex
	listeners map[*Listener]struct{}
	closed    bool
}

// NewServer returns a server that listens nowhere yet. It fails when the driver is
// unknown or the operating system does not give it what it needs.
func NewServer(o Options) (*Server, error) {
	if o.Threads <= 0 {
		o.Threads = runtime.GOMAXPROCS(0)
	}
	i := 0
	if o.Driver != "" {
		i = slices.IndexFunc(drivers, func(c choice) bool { return c.name == o.Driver })
	}
	if i < 0 {
		return nil, fmt.Errorf("driver %q is not one of: %s", o.Driver, strings.Join(Drivers(), ", "))
	}
	s := &Server{options: o, listeners: map[*Listener]struct{}{}}
	var err error
	s.loops, err = drivers[i].open(driver.Config{
		Threads: o.Threads, NewEngine: s.newEngine, Admit: s.admit, Gone: s.gone, Resolver: o.Resolver, Log: o.Log,
	})
	if err != nil {
		return nil, fmt.Errorf("driver %s: %w", drivers[i].name, err)
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s, nil
}

func (s *Server) newEngine(loop int, d proxy.Driver) *proxy.Engine {
	return proxy.New(proxy.Config{
		Driver: d, Live: s.options.Live, Metrics: s.options.Metrics, Shard: loop,
		Page: s.options.MetricsPage, AccessLog: s.options.AccessLog.Shard(loop), Samples: s.options.Samples.Shard(loop),
		Log: s.options.Log,
	})
}

// maxRefused is how many connections beyond the limit are answered 503 at the
// same time. Those beyond that are closed without a word.
const maxRefused = 256

// admit decides about a new connection, and counts it unless it is dropped.
func (s *Server) admit(o *proxy.Origin) driver.Verdict {
	limit := int64(0)
	if t := s.options.Live.Load(); t != nil {
		limit = int64(t.Limits.Connections)
	}
	verdict := driver.Accept
	if n := s.connections.Load(); limit > 0 && n >= limit {
		if n >= limit+maxRefused {
			return driver.Drop
		}
		verdict = driver.Refuse
	}
	s.connections.Add(1)
	o.Connections.Add(1)
	return verdict
}

func (s *Server) gone(o *proxy.Origin) {
	s.connections.Add(-1)
	o.Connections.Add(-1)
}

// Close ends the server at once, with everything that is in progress, and waits
// until all of it has ended.
func (s *Server) Close() {
	s.mu.Lock()
	s.closed = true
	all := s.open()
	s.mu.Unlock()
	s.cancel()
	for _, l := range all {
		l.abandon()
	}
	s.loops.Close()
	s.background.Wait()
}

// open returns the listeners that are open. The caller holds mu.
func (s *Server) open() []*Listener {
	all := make([]*Listener, 0, len(s.listeners))
	for l := range s.listeners {
		all = append(all, l)
	}
	return all
}

// Panics returns how many connections were closed because of a panic.
func (s *Server) Panics() uint64 { return s.loops.Panics() }

// errClosed is returned by Open after Close or Drain.
var errClosed = errors.New("server closed")
