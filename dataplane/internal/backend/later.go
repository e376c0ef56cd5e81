package backend

import (
	"context"
	"sync"
	"time"
)

// Refresher is who looks at members: a pool.
type Refresher interface{ Refresh() }

// later is who is to be refreshed when.
type later struct {
	wake chan struct{} // has room for one: there is another moment to wait for

	mu  sync.Mutex // guards the following
	due map[Refresher]time.Time
}

// RefreshLater has p refreshed after some time, by Run. A moment that was named before
// is forgotten. It may be called from several goroutines.
func (r *Registry) RefreshLater(p Refresher, after time.Duration) {
	l := &r.later
	l.mu.Lock()
	l.due[p] = time.Now().Add(after)
	l.mu.Unlock()
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// Run refreshes whom RefreshLater names, until ctx ends. Only one goroutine calls it.
func (r *Registry) Run(ctx context.Context) {
	l := &r.later
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-l.wake:
		case <-timer.C:
		}
		for _, p := range l.take(timer) {
			p.Refresh()
		}
	}
}

// take takes out whose moment has come, and sets the timer for the next one.
func (l *later) take(timer *time.Timer) (list []Refresher) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	var next time.Time
	for p, at := range l.due {
		switch {
		case !at.After(now):
			list = append(list, p)
			delete(l.due, p)
		case next.IsZero() || at.Before(next):
			next = at
		}
	}
	if next.IsZero() {
		timer.Stop()
	} else {
		timer.Reset(next.Sub(now))
	}
	return list
}
