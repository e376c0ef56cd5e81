package loop

import "time"

const (
	// tick is the precision of deadlines: they pass up to one tick late.
	tick  = 50 * time.Millisecond
	slots = 256
)

// timer is the one deadline of a connection, in a wheel.
type timer struct {
	next, prev *timer // in the slot's ring; nil when in none
	conn       *conn
	deadline   int64 // 0: none
	due        int64 // tick for which it is queued
}

// wheel holds the deadlines of a loop. A deadline that moves away, which each
// request does, is only noted; its timer is looked at when its slot comes up. So
// a deadline costs a store, and the operating system sees one timer per loop.
type wheel struct {
	ring [slots]timer // sentinels
	at   int64        // last tick that has been worked through
	n    int          // timers queued
}

func (w *wheel) init(now int64) {
	w.start(now)
	for i := range w.ring {
		w.ring[i].next, w.ring[i].prev = &w.ring[i], &w.ring[i]
	}
}

// start sets the wheel, which must be empty, to now.
func (w *wheel) start(now int64) { w.at = now / int64(tick) }

// set moves the deadline of t; 0 is none.
func (w *wheel) set(t *timer, deadline int64) {
	t.deadline = deadline
	if deadline == 0 {
		return // found out when its slot comes up
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

// drop takes t out.
func (w *wheel) drop(t *timer) {
	t.deadline = 0
	if t.next != nil {
		w.unlink(t)
	}
}

// slot returns the tick in which a deadline is looked at: the first after it, as
// far as the wheel reaches.
func (w *wheel) slot(deadline int64) int64 {
	due := deadline/int64(tick) + 1
	return min(max(due, w.at+1), w.at+slots-1)
}

func (w *wheel) link(t *timer, due int64) {
	s := &w.ring[due%slots]
	t.due = due
	t.prev, t.next = s.prev, s
	t.prev.next, s.prev = t, t
	w.n++
}

func (w *wheel) unlink(t *timer) {
	t.prev.next, t.next.prev = t.next, t.prev
	t.next, t.prev = nil, nil
	w.n--
}

// expired returns the connection of a timer whose deadline has passed, nil when
// there is none left. The timer is out of the wheel then.
func (w *wheel) expired(now int64) *conn {
	for end := now / int64(tick); ; w.at++ {
		s := &w.ring[w.at%slots]
		for s.next != s {
			t := s.next
			w.unlink(t)
			switch {
			case t.deadline == 0:
			case t.deadline <= now:
				t.deadline = 0
				return t.conn
			default:
				w.link(t, w.slot(t.deadline))
			}
		}
		if w.at >= end {
			return nil
		}
	}
}
