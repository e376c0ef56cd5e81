package loop

import (
	"context"
	"fmt"
	"time"

	"reverseproxy/dataplane/internal/proxy"
)

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
	all := s.open()
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
	// spreadTime is the drain time of a listener that closes while others go on.
	spreadTime = 10 * time.Second
)

// drain closes the idle connections from of, or all, some every step, until there
// are no connections of it left or ctx ends.
func (s *Server) drain(ctx context.Context, of *proxy.Origin, every time.Duration) {
	count := &s.connections
	if of != nil {
		count = &of.Connections
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
		s.loops.CloseIdle(of, max(each, 1), quiet)
		select {
		case <-step.C:
		case <-ctx.Done():
			return
		}
	}
}

// drainBehind closes the connections of a listener that is gone, while others go
// on.
func (s *Server) drainBehind(of *proxy.Origin) {
	ctx, cancel := context.WithTimeout(s.ctx, spreadTime)
	defer cancel()
	s.drain(ctx, of, drainStep)
	// What is left is in use, perhaps for hours (tunnels).
	s.drain(s.ctx, of, time.Second)
}
