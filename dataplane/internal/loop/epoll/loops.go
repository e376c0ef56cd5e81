//go:build linux

package epoll

import (
	"context"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"reverseproxy/dataplane/internal/loop/driver"
	"reverseproxy/dataplane/internal/loop/wheel"
	"reverseproxy/dataplane/internal/proxy"
)

// SpareProcessors is how much more than the number of loops GOMAXPROCS should be.
const SpareProcessors = 1

// loops implements driver.Loops.
type loops struct {
	driver.Config
	all     []*eventLoop
	started time.Time

	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	// goroutines is all that has been started, loops and helpers.
	goroutines sync.WaitGroup
}

// New starts event loops.
func New(c driver.Config) (driver.Loops, error) {
	s := &loops{Config: c, started: time.Now()}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	for i := range c.Threads {
		l, err := newEventLoop(s)
		if err != nil {
			for _, l := range s.all {
				l.free()
			}
			s.cancel()
			return nil, fmt.Errorf("event loop %d: %w", i, err)
		}
		l.engine = c.NewEngine(i, (*driverOf)(l))
		s.all = append(s.all, l)
	}
	for _, l := range s.all {
		s.goroutines.Go(l.run)
	}
	s.goroutines.Go(s.keepTime)
	return s, nil
}

// now is the time that engines and deadlines know: monotonic nanoseconds, from 1.
func (s *loops) now() int64 { return int64(time.Since(s.started)) + 1 }

// at is a moment in the time of now.
func (s *loops) at(t time.Time) int64 { return int64(t.Sub(s.started)) + 1 }

// keepTime wakes loops that sleep while they have deadlines.
func (s *loops) keepTime() {
	clock := time.NewTicker(wheel.Tick)
	defer clock.Stop()
	for {
		select {
		case <-clock.C:
			for _, l := range s.all {
				if l.timed.Load() {
					l.wake()
				}
			}
		case <-s.ctx.Done():
			return
		}
	}
}

// CloseIdle implements driver.Loops.
func (s *loops) CloseIdle(of *proxy.Origin, n int, since time.Time) int {
	closed := 0
	for _, l := range s.all {
		l.do(func() { closed += l.closeIdle(of, n-closed, s.at(since)) })
	}
	return closed
}

// Close implements driver.Loops.
func (s *loops) Close() {
	s.cancel()
	for _, l := range s.all {
		l.stop()
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

// free gives back what a loop that does not run (any more) has of the operating
// system.
func (l *eventLoop) free() {
	_ = unix.Close(l.epfd)
	_ = unix.Close(l.wakefd)
}
