//go:build linux

package epoll

import (
	"context"
	"fmt"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"reverseproxy/dataplane/internal/loop/driver"
	"reverseproxy/dataplane/internal/proxy"
)

// SpareProcessors is how much more than the number of loops GOMAXPROCS should be.
const SpareProcessors = 1

// loops implements driver.Loops.
type loops struct {
	driver.Config
	all     []*eventLoop
	started time.Time

	// planned is when keepTime looks for alarms next; sooner tells it of one before
	// that.
	planned atomic.Int64
	sooner  chan struct{}

	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	// goroutines is all that has been started, loops and helpers.
	goroutines sync.WaitGroup
}

// New starts event loops.
func New(c driver.Config) (driver.Loops, error) {
	s := &loops{Config: c, started: time.Now(), sooner: make(chan struct{}, 1)}
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

// setAlarm has a loop that goes to sleep woken at a time; 0 is never.
func (s *loops) setAlarm(l *eventLoop, at int64) {
	l.alarm.Store(at)
	if at != 0 && at < s.planned.Load() {
		select {
		case s.sooner <- struct{}{}:
		default:
		}
	}
}

// keepTime wakes loops that sleep when it is time for their alarms. A clock that ticked
// while there are deadlines, and of idle connections there always are, would cost an idle data
// plane 3 % of a CPU.
func (s *loops) keepTime() {
	const never = math.MaxInt64
	alarm := time.NewTimer(0)
	defer alarm.Stop()
	for {
		// A loop that sets its alarm from here on says so, or is seen below.
		s.planned.Store(never)
		next := int64(never)
		for _, l := range s.all {
			at := l.alarm.Load()
			switch {
			case at == 0:
			case at <= s.now():
				l.wake()
			default:
				next = min(next, at)
			}
		}
		s.planned.Store(next)
		if next != never {
			alarm.Reset(time.Duration(next - s.now()))
		} else {
			alarm.Stop()
		}
		select {
		case <-alarm.C:
		case <-s.sooner:
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
