package accesslog

import (
	"bytes"
	"sync/atomic"
)

const (
	// ringBytes is how much a shard holds that has not been written: at a line of
	// 400 bytes some 10,000 requests, so that a disk may hang for a moment. It is
	// allocated with the first line.
	ringBytes = 4 << 20
	// wakeBytes is after how much the writer is woken before its time.
	wakeBytes = 256 << 10
	// maxMarks bounds the changes of path among the lines not written yet.
	maxMarks = 8
)

// Log is the shards of all event loops.
type Log struct {
	shards []Shard
	wake   chan struct{}
}

// New returns a log with a shard for each event loop.
func New(shards int) *Log {
	l := &Log{shards: make([]Shard, shards), wake: make(chan struct{}, 1)}
	for i := range l.shards {
		l.shards[i].wake = l.wake
	}
	return l
}

// Shard returns the shard of an event loop; nil when l is.
func (l *Log) Shard(i int) *Shard {
	if l == nil {
		return nil
	}
	return &l.shards[i]
}

// Shards returns the number of shards.
func (l *Log) Shards() int { return len(l.shards) }

// Wake returns what a value comes from when there is enough to be written.
func (l *Log) Wake() <-chan struct{} { return l.wake }

// Dropped returns how many lines have been lost because there was no room.
func (l *Log) Dropped() (n uint64) {
	for i := range l.shards {
		n += l.shards[i].dropped.Load()
	}
	return n
}

// Shard takes lines from one event loop, calls Add, and gives them to one writer,
// which calls Next and Done. The two may run at the same time; neither ever waits
// for the other. It is a ring of bytes: positions count from the start of time.
type Shard struct {
	// Of the loop.
	ring  []byte // set before filled is first more than 0
	path  string // of the newest line
	line  []byte // scratch
	day   day
	woken uint64 // filled when the writer was last woken
	freed uint64 // what taken was when it was last looked at
	wake  chan<- struct{}

	_ [64]byte // what the loop writes, and what the writer writes, on lines of their own

	filled  atomic.Uint64 // end of what is there; written by the loop
	made    atomic.Uint32 // marks; written by the loop
	marks   [maxMarks]mark
	dropped atomic.Uint64 // written by the loop

	_ [64]byte

	taken  atomic.Uint64 // end of what has been written; by the writer
	passed atomic.Uint32 // marks that the writer has passed

	// Of the writer.
	current string // path of the line at taken
	split   []byte // a line that lies at both ends of the ring
}

// mark says that from a position on, lines are for another path.
type mark struct {
	at   uint64
	path string
}

// Add formats a line for a path and takes it over. It never waits: without room
// the line is dropped and counted.
func (s *Shard) Add(path string, f Format, l *Line) {
	s.line = l.append(s.line[:0], f, &s.day)
	if !s.put(path) {
		s.dropped.Store(s.dropped.Load() + 1)
	}
	if cap(s.line) > 64<<10 {
		s.line = nil // of one unusual request
	}
}

func (s *Shard) put(path string) bool {
	if s.ring == nil {
		s.ring = make([]byte, ringBytes)
	}
	start := s.filled.Load()
	end := start + uint64(len(s.line))
	if end-s.freed > ringBytes {
		if s.freed = s.taken.Load(); end-s.freed > ringBytes {
			return false
		}
	}
	if path != s.path {
		made := s.made.Load()
		if made-s.passed.Load() == maxMarks {
			return false
		}
		s.marks[made%maxMarks] = mark{start, path}
		s.made.Store(made + 1)
		s.path = path
	}
	at := start % ringBytes
	n := copy(s.ring[at:], s.line)
	copy(s.ring, s.line[n:])
	s.filled.Store(end)
	if end-s.woken >= wakeBytes {
		s.woken = end
		select {
		case s.wake <- struct{}{}:
		default: // awake already
		}
	}
	return true
}

// Next returns whole lines for one path that have not been written; of the first
// one, what has not been. Nil when there are none. They are valid until Done.
func (s *Shard) Next() (path string, lines []byte) {
	// In this order: the mark before a line is made before the line is counted.
	filled, made := s.filled.Load(), s.made.Load()
	start, end := s.taken.Load(), filled
	if start == end {
		return "", nil
	}
	for n := s.passed.Load(); n != made; n++ {
		m := &s.marks[n%maxMarks]
		if m.at > start {
			end = min(end, m.at)
			break
		}
		s.current = m.path
		s.passed.Store(n + 1)
	}
	at := start % ringBytes
	if size := end - start; at+size <= ringBytes {
		return s.current, s.ring[at : at+size]
	}
	first := s.ring[at:]
	if i := bytes.LastIndexByte(first, '\n'); i >= 0 {
		return s.current, first[:i+1]
	}
	s.split = append(s.split[:0], first...)
	s.split = append(s.split, s.ring[:bytes.IndexByte(s.ring, '\n')+1]...)
	return s.current, s.split
}

// Done tells that the first n bytes of what Next returned are not needed any
// more.
func (s *Shard) Done(n int) { s.taken.Add(uint64(n)) }
