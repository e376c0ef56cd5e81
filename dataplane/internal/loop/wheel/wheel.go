// Package wheel holds the deadlines of an event loop.
package wheel

import "time"

// Tick is the precision of deadlines: they pass up to one tick late.
const Tick = 50 * time.Millisecond

const slots = 256

// Timer is the one deadline of a connection of type T, in a wheel. Owner is set
// once, before the timer is.
type Timer[T any] struct {
	Owner *T

	next, prev *Timer[T] // in the slot's ring; nil when in none
	deadline   int64     // 0: none
	due        int64     // tick for which it is queued
}

// Wheel holds the deadlines of a loop, in nanoseconds since an arbitrary moment.
// A deadline that moves away, which each request does, is only noted; its timer is
// looked at when its slot comes up. So a deadline costs a store, and the operating
// system sees one timer per loop. Not for concurrent use.
type Wheel[T any] struct {
	ring [slots]Timer[T] // sentinels
	at   int64           // last tick that has been worked through
	n    int             // timers queued
	// soonest is a tick before which no timer is queued.
	soonest int64
}

// Init makes w ready for use.
func (w *Wheel[T]) Init(now int64) {
	w.start(now)
	for i := range w.ring {
		w.ring[i].next, w.ring[i].prev = &w.ring[i], &w.ring[i]
	}
}

// Empty reports whether no timer is queued.
func (w *Wheel[T]) Empty() bool { return w.n == 0 }

// Next returns the time at which Expired is to be called next, 0 when no timer is queued.
// There may be nothing for it to do then.
func (w *Wheel[T]) Next() int64 {
	if w.n == 0 {
		return 0
	}
	w.soonest = max(w.soonest, w.at+1)
	for s := &w.ring[w.soonest%slots]; s.next == s; s = &w.ring[w.soonest%slots] {
		w.soonest++
	}
	return w.soonest * int64(Tick)
}

// start sets the wheel, which must be empty, to now.
func (w *Wheel[T]) start(now int64) {
	w.at = now / int64(Tick)
	w.soonest = w.at + slots
}

// Set moves the deadline of t; 0 is none. now is only looked at when w is Empty.
func (w *Wheel[T]) Set(t *Timer[T], deadline, now int64) {
	t.deadline = deadline
	if deadline == 0 {
		return // found out when its slot comes up
	}
	if w.n == 0 {
		w.start(now) // nobody has turned it since it ran empty
	}
	due := w.slot(deadline)
	if t.next != nil {
		if t.due <= due {
			return
		}
		w.unlink(t)
	}
	w.link(t, due)
}

// Drop takes t out.
func (w *Wheel[T]) Drop(t *Timer[T]) {
	t.deadline = 0
	if t.next != nil {
		w.unlink(t)
	}
}

// slot returns the tick in which a deadline is looked at: the first after it, as
// far as the wheel reaches.
func (w *Wheel[T]) slot(deadline int64) int64 {
	due := deadline/int64(Tick) + 1
	return min(max(due, w.at+1), w.at+slots-1)
}

func (w *Wheel[T]) link(t *Timer[T], due int64) {
	s := &w.ring[due%slots]
	t.due = due
	t.prev, t.next = s.prev, s
	t.prev.next, s.prev = t, t
	w.soonest = min(w.soonest, due)
	w.n++
}

func (w *Wheel[T]) unlink(t *Timer[T]) {
	t.prev.next, t.next.prev = t.next, t.prev
	t.next, t.prev = nil, nil
	w.n--
}

// Expired returns the owner of a timer whose deadline has passed, nil when there
// is none left. The timer is out of the wheel then.
func (w *Wheel[T]) Expired(now int64) *T {
	for end := now / int64(Tick); ; w.at++ {
		s := &w.ring[w.at%slots]
		for s.next != s {
			t := s.next
			w.unlink(t)
			switch {
			case t.deadline == 0:
			case t.deadline <= now:
				t.deadline = 0
				return t.Owner
			default:
				w.link(t, w.slot(t.deadline))
			}
		}
		if w.at >= end {
			return nil
		}
	}
}
