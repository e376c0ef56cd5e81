//go:build unix

package portable

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"reverseproxy/dataplane/internal/loop/driver"
	"reverseproxy/dataplane/internal/proxy"
)

// loops implements driver.Loops.
type loops struct {
	driver.Config
	all     []*eventLoop
	started time.Time

	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	// goroutines is all that has been started but the accepting ones, which add to
	// it; those are in accepting.
	goroutines sync.WaitGroup
	accepting  sync.WaitGroup

	next atomic.Uint64 // which loop gets the next connection
}

// New starts event loops.
func New(c driver.Config) (driver.Loops, error) {
	s := &loops{Config: c, started: time.Now()}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	for i := range c.Threads {
		l := newEventLoop(s, i)
		s.all = append(s.all, l)
		s.goroutines.Go(func() { l.keepTime(s.ctx.Done()) })
	}
	return s, nil
}

// now is the time that engines and deadlines know: monotonic nanoseconds, from 1.
func (s *loops) now() int64 { return int64(time.Since(s.started)) + 1 }

// at is a moment in the time of now.
func (s *loops) at(t time.Time) int64 { return int64(t.Sub(s.started)) + 1 }

// CloseIdle implements driver.Loops.
func (s *loops) CloseIdle(of *proxy.Origin, n int, since time.Time) int {
	closed := 0
	for _, l := range s.all {
		closed += l.closeIdle(of, n-closed, s.at(since))
	}
	return closed
}

// Close implements driver.Loops.
func (s *loops) Close() {
	s.cancel()
	s.accepting.Wait()
	for _, l := range s.all {
		l.closeAll()
	}
	s.goroutines.Wait()
}

// Panics implements driver.Loops.
func (s *loops) Panics() (n uint64) {
	for _, l := range s.all {
		n += l.panics.Load()
	}
	return n
}
