package fleet

import (
	"container/list"
	"sync"
	"time"
)

// senders send to the streams that have something to be sent. A stream has no goroutine
// of its own for that: it would wait nearly always, and the stacks of 10,000 of them
// are 80 MB.
type senders struct {
	// hold is how long one may be occupied with a stream; then another takes its place, so
	// that receivers that have stopped reading delay nobody.
	hold time.Duration

	mu sync.Mutex
	// free is how many more may be at work.
	free int
	// woken are the streams that may have something to be sent; waiting those that are to
	// be sent a table, which can wait until the others have their few bytes.
	woken, waiting fifo
}

// sending is what the senders note of one stream; their mu guards it.
type sending struct {
	woken, waiting bool // in the queue of that name
	busy           bool // a sender is occupied with it
	again          bool // it was woken meanwhile
}

// wake has a sender look after a stream, soon; it never blocks.
func (p *senders) wake(st *stream) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.enqueue(st)
	p.start()
}

// enqueue notes that there may be something to be sent. mu is held.
func (p *senders) enqueue(st *stream) {
	switch {
	case st.sending.busy:
		st.sending.again = true
	case !st.sending.woken:
		st.sending.woken = true
		p.woken.push(st)
	}
}

// start sets another sender to work if there is work and one may be. mu is held.
func (p *senders) start() {
	if p.free > 0 && (p.woken.len() > 0 || p.waiting.len() > 0) {
		p.free--
		go p.work()
	}
}

// work goes from stream to stream until none is left.
func (p *senders) work() {
	for {
		st, table := p.take()
		if st == nil || !p.attend(st, table) {
			return
		}
	}
}

// take returns the next stream, and whether it is its turn to be sent a table; nil when
// there is none, which sets the sender free.
func (p *senders) take() (st *stream, table bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if st := p.woken.pop(); st != nil {
		st.sending.woken, st.sending.busy = false, true
		return st, false
	}
	for st := p.waiting.pop(); st != nil; st = p.waiting.pop() {
		st.sending.waiting = false
		if !st.sending.busy {
			st.sending.busy = true
			return st, true
		}
		st.sending.again = true // another sender is occupied with it, for a moment
	}
	p.free++
	return nil, false
}

// attend sends to one stream what it is to be sent, and reports whether the sender is to
// go on: not when another has taken its place.
func (p *senders) attend(st *stream, table bool) bool {
	replaced, over := false, false // guarded by mu
	defer time.AfterFunc(p.hold, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if !over {
			replaced = true
			p.free++
			p.start()
		}
	}).Stop()
	wantsTable := st.send(table)

	p.mu.Lock()
	defer p.mu.Unlock()
	over = true
	st.sending.busy = false
	if wantsTable && !st.sending.waiting {
		st.sending.waiting = true
		p.waiting.push(st)
	}
	if st.sending.again {
		st.sending.again = false
		p.enqueue(st)
	}
	if replaced {
		p.start()
	}
	return !replaced
}

// fifo is a queue of streams.
type fifo struct{ list list.List }

func (q *fifo) len() int { return q.list.Len() }

func (q *fifo) push(st *stream) { q.list.PushBack(st) }

// pop returns the first one, nil when there is none.
func (q *fifo) pop() *stream {
	first := q.list.Front()
	if first == nil {
		return nil
	}
	return q.list.Remove(first).(*stream)
}
