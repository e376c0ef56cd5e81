package loop

import (
	"context"
	"fmt"
	"sync"
	"time"

	"reverseproxy/dataplane/internal/proxy"
)

// Drain ends the server without losing a request: it stops accepting as
// Listener.Close does, sends clients away, and waits for what is in progress. What is still there when ctx ends is cut off, and the error says how
// much that was. The server is closed when Drain returns.
//
// Connections are sent away a few at a time, over up to half of the time that ctx
// leaves, so that their clients do not all come back at the same moment: those in
// use are told by a response, idle ones are closed when they have been silent for a
// while, as long as they are watched.
func (s *Server) Drain(ctx context.Context) error {
	s.mu.Lock()
	all := s.open()
	s.mu.Unlock()
	var stopping sync.WaitGroup
	for _, l := range all {
		stopping.Go(func() { l.stop(ctx) })
	}
	s.drain(ctx, all, nil, drainStep)
	stopping.Wait()
	s.drain(ctx, all, nil, drainStep) // who came while it left
	left := s.connections.Load()
	s.Close()
	if left > 0 {
		return fmt.Errorf("%d connections cut off: %w", left, context.Cause(ctx))
	}
	return nil
}

const (
	// drainStep is how often some clients are sent away while draining, and
	// drainPace how long that takes per connection: without it, a hundred would
	// take half of the drain time.
	drainStep = 10 * time.Millisecond
	drainPace = 5 * time.Millisecond
	// few clients may all come back at the same moment.
	few = 10
	// quietTime is how long a connection must have been silent before draining
	// closes it: a client that has just been answered, or has just connected, is
	// about to send its next request, which would cross with the close and be
	// lost. It gets a response that says Connection: close instead. Never more
	// than a quarter of the drain time.
	quietTime = time.Second
	// spreadTime is the drain time of a listener that closes while others go on.
	spreadTime = 10 * time.Second
)

// drain sends the clients of listeners away, some every step, and closes idle
// connections from of, or all, until there are none left or ctx ends.
func (s *Server) drain(ctx context.Context, from []*Listener, of *proxy.Origin, every time.Duration) {
	count := &s.connections
	if of != nil {
		count = &of.Connections
	}
	spread, quiet := time.Duration(0), quietTime
	if n := count.Load(); n > few {
		spread = time.Duration(n) * drainPace
	}
	if end, ok := ctx.Deadline(); ok {
		spread, quiet = min(spread, time.Until(end)/2), min(quiet, time.Until(end)/4)
	}
	steps := max(int64(spread/every), 1)
	each := int((count.Load() + steps - 1) / steps)

	step := time.NewTicker(every)
	defer step.Stop()
	last := time.Now()
	watching := last // since when this process has not been held up
	for done := int64(1); count.Load() > 0; done++ {
		for _, l := range from {
			l.origin.Drain(uint32(min(done*proxy.AllShares/steps, proxy.AllShares)))
		}
		// That nothing has come while the machine stood still, or before it was
		// watched for, says nothing about the clients, which stood still as well.
		now := time.Now()
		if now.Sub(last) > every+max(quiet/4, drainStep) {
			watching = now
		}
		if last = now; now.Sub(watching) >= quiet {
			s.loops.CloseIdle(of, max(each, 1), now.Add(-quiet))
		}
		select {
		case <-step.C:
		case <-ctx.Done():
			return
		}
	}
}

// drainBehind sends the clients of a listener that is gone away, while others go
// on.
func (s *Server) drainBehind(l *Listener) {
	ctx, cancel := context.WithTimeout(s.ctx, spreadTime)
	defer cancel()
	all := []*Listener{l}
	s.drain(ctx, all, &l.origin, drainStep)
	<-l.stopped
	// What is left is in use, perhaps for hours (tunnels).
	l.origin.Drain(proxy.AllShares)
	s.drain(s.ctx, all, &l.origin, time.Second)
}
