package loop

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"reverseproxy/dataplane/internal/metrics"
	"reverseproxy/dataplane/internal/table"
)

// Options are what a Server needs.
type Options struct {
	// Threads is the number of event loops; 0: one per CPU that the process may
	// use. Metrics needs as many shards.
	Threads int
	Live    *table.Live
	Metrics *metrics.Set
	// MetricsPage renders what GET /metrics on the proxy port answers; nil:
	// nothing does. Called from any goroutine.
	MetricsPage func() (contentType string, body []byte)
	Log         *slog.Logger
}

// Server forwards HTTP from its listeners to the backends of the live route
// table. All methods may be called from several goroutines.
type Server struct {
	options Options
	loops   []*eventLoop
	started time.Time

	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	// goroutines is all that the server has started but the accepting ones, which
	// add to it; those are in accepting.
	goroutines sync.WaitGroup
	accepting  sync.WaitGroup

	connections atomic.Int64  // from clients
	next        atomic.Uint64 // which loop gets the next connection

	mu        sync.Mutex
	listeners map[*Listener]struct{}
	closed    bool
}

// maxRefused is how many connections beyond the limit are answered 503 at the
// same time. Those beyond that are closed without a word.
const maxRefused = 256

// NewServer returns a server that listens nowhere yet.
func NewServer(o Options) *Server {
	if o.Threads <= 0 {
		o.Threads = runtime.GOMAXPROCS(0)
	}
	s := &Server{options: o, started: time.Now(), listeners: map[*Listener]struct{}{}}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	for i := range o.Threads {
		l := newEventLoop(s, i)
		s.loops = append(s.loops, l)
		s.goroutines.Go(func() { l.keepTime(s.ctx.Done()) })
	}
	return s
}

// now is the time that engines and deadlines know: monotonic nanoseconds, from 1.
func (s *Server) now() int64 { return int64(time.Since(s.started)) + 1 }

// Drain ends the server without losing a request: it stops accepting as
// Listener.Close does, makes each further response the last of its connection,
// closes connections that are between two requests, and waits for what is in
// progress. What is still there when ctx ends is cut off, and the error says how
// much that was. The server is closed when Drain returns.
//
// Connections in use are told by their next response. Idle ones are closed when
// they have been silent for a while, a few at a time over up to half of the time
// that ctx leaves, so that their clients do not all come back at the same moment.
func (s *Server) Drain(ctx context.Context) error {
	s.mu.Lock()
	all := make([]*Listener, 0, len(s.listeners))
	for l := range s.listeners {
		all = append(all, l)
	}
	s.mu.Unlock()
	for _, l := range all {
		l.stop(ctx)
	}
	s.drain(ctx, nil, drainStep)
	left := s.connections.Load()
	s.Close()
	if left > 0 {
		return fmt.Errorf("%d connections cut off: %w", left, context.Cause(ctx))
	}
	return nil
}

const (
	// drainStep is how often idle connections are closed while draining, and
	// drainPace how long draining takes per connection when there are few: without
	// it, closing ten would take half of the drain time.
	drainStep = 10 * time.Millisecond
	drainPace = 5 * time.Millisecond
	// quietTime is how long a connection must have been silent before draining
	// closes it: a client that has just been answered, or has just connected, is
	// about to send its next request, which would cross with the close and be
	// lost. It gets a response that says Connection: close instead. Never more
	// than a quarter of the drain time.
	quietTime = time.Second
)

// drain closes the idle connections of a listener, or of all, some every step,
// until there are no connections of it left or ctx ends.
func (s *Server) drain(ctx context.Context, of *Listener, every time.Duration) {
	count := &s.connections
	if of != nil {
		count = &of.connections
	}
	spread, quiet := time.Duration(count.Load())*drainPace, quietTime
	if end, ok := ctx.Deadline(); ok {
		spread, quiet = min(spread, time.Until(end)/2), min(quiet, time.Until(end)/4)
	}
	steps := max(int64(spread/every), 1)
	each := int((count.Load() + steps - 1) / steps)

	step := time.NewTicker(every)
	defer step.Stop()
	for count.Load() > 0 {
		s.closeIdle(of, max(each, 1), quiet)
		select {
		case <-step.C:
		case <-ctx.Done():
			return
		}
	}
}

// closeIdle closes up to n connections that have been between two requests for
// the quiet time.
func (s *Server) closeIdle(of *Listener, n int, quiet time.Duration) {
	for _, l := range s.loops {
		l.mu.Lock()
		l.quiet = s.now() - int64(quiet)
		// Chosen first: closing lets go of the mutex.
		var chosen []*conn
		for c := range l.conns {
			if len(chosen) == n {
				break
			}
			if c.listener != nil && (of == nil || c.listener == of) && c.AtRest(l.quiet) && !c.readable() {
				chosen = append(chosen, c)
			}
		}
		for _, c := range chosen {
			if !c.closed {
				l.tell(closeIdle, c, nil, nil)
			}
		}
		n -= len(chosen)
		l.mu.Unlock()
	}
}

// Close ends the server at once, with everything that is in progress, and waits
// until all of it has ended.
func (s *Server) Close() {
	s.mu.Lock()
	s.closed = true
	for l := range s.listeners {
		l.origin.Drain()
		_ = l.socket.Close()
	}
	s.mu.Unlock()
	s.cancel()
	s.accepting.Wait()
	for _, l := range s.loops {
		l.closeAll()
	}
	s.goroutines.Wait()
}

// Panics returns how many connections were closed because of a panic.
func (s *Server) Panics() (n uint64) {
	for _, l := range s.loops {
		n += l.panics.Load()
	}
	return n
}

func (s *Server) gone(l *Listener) {
	s.connections.Add(-1)
	l.connections.Add(-1)
}

// errClosed is returned by Open after Close or Drain.
var errClosed = errors.New("server closed")
