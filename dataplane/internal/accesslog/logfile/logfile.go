// Package logfile writes the access log. The lines of the event loops come in
// (package accesslog), and go to a file or to standard output, many at a time,
// from one goroutine. Nothing that a file can do to it reaches the request path:
// while it cannot be written, lines wait in the rings of the loops, and what has
// no room there is dropped and counted. Package activate says which file; an
// error is told in the program's log when it begins, and as a metric.
package logfile

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"reverseproxy/dataplane/internal/accesslog"
)

// flushTime is how long a line waits at most before it is written, how often it
// is looked whether the file is still in its place, and how long after a failure
// the next attempt is made.
const flushTime = time.Second

// Writer writes what the shards of a Log hold. All methods may be called from
// several goroutines.
type Writer struct {
	lines *accesslog.Log
	log   *slog.Logger

	changed chan struct{} // path or reopen
	stop    chan struct{}
	stopped sync.Once
	done    chan struct{}

	written, lost, failures atomic.Uint64 // lines, lines, attempts

	mu     sync.Mutex
	path   string // of the route table in force; empty: none
	reopen bool

	// Of the goroutine.
	files  map[string]*file  // by path
	told   map[string]string // errors of paths that have been logged
	first  int               // shard that comes first in the next round
	failed time.Time         // when writing to the path in force failed; zero: it has not
}

// file is an open file.
type file struct {
	f *os.File
	// torn: what was written last ends within a line.
	torn bool
	// skip: the rest of a line comes first whose beginning is in another file.
	skip bool
}

// New returns a writer that has begun to work. Close ends it.
func New(lines *accesslog.Log, log *slog.Logger) *Writer {
	w := &Writer{
		lines: lines, log: log, changed: make(chan struct{}, 1), stop: make(chan struct{}), done: make(chan struct{}),
		files: map[string]*file{}, told: map[string]string{},
	}
	go w.run()
	return w
}

// Check says why lines cannot be written to a path. It makes the file if there is
// none.
func (w *Writer) Check(path string) error {
	f, err := open(path)
	if err == nil {
		f.Close()
	}
	return err
}

// Follow makes the log open the file of the route table in force; an empty path
// is none. Lines for another path that are still to be written are, before that
// one is closed.
func (w *Writer) Follow(path string) {
	w.mu.Lock()
	w.path = path
	w.mu.Unlock()
	w.nudge()
}

// Reopen opens the file again: the one under its name may be another one now.
func (w *Writer) Reopen() {
	w.mu.Lock()
	w.reopen = true
	w.mu.Unlock()
	w.nudge()
}

func (w *Writer) nudge() {
	select {
	case w.changed <- struct{}{}:
	default: // the goroutine is about to look
	}
}

// Close writes what is left and ends the writer. When ctx ends before, because
// nobody takes what is written, the error says so.
func (w *Writer) Close(ctx context.Context) error {
	w.stopped.Do(func() { close(w.stop) })
	select {
	case <-w.done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("write the rest of the access log: %w", ctx.Err())
	}
}

func (w *Writer) run() {
	defer close(w.done)
	timer := time.NewTimer(flushTime)
	for {
		select {
		case <-w.lines.Wake():
			if !w.failed.IsZero() && time.Since(w.failed) < flushTime {
				continue // the timer is set
			}
		case <-timer.C:
		case <-w.changed:
		case <-w.stop:
			w.round()
			w.end()
			return
		}
		if w.round() {
			timer.Reset(flushTime)
		} else {
			timer.Stop()
		}
	}
}

// round writes what there is, and reports whether there may be more.
func (w *Writer) round() bool {
	w.mu.Lock()
	path, reopen := w.path, w.reopen
	w.reopen = false
	w.mu.Unlock()

	w.failed = time.Time{}
	for name, f := range w.files {
		if reopen || moved(name, f.f) {
			w.replace(name)
		}
	}
	if path != "" {
		// So that the file is there, and an error told, before the first line.
		_, _ = w.get(path)
	}
	for range w.lines.Shards() {
		if !w.drain(w.lines.Shard(w.first), path) {
			break // the shard may have a torn line, whose rest comes first
		}
		w.first = (w.first + 1) % w.lines.Shards()
	}
	for name, f := range w.files {
		if name != path {
			f.f.Close()
			delete(w.files, name)
		}
	}
	for name := range w.told {
		if name != path {
			delete(w.told, name)
		}
	}
	return path != ""
}

// drain writes what a shard holds. It returns false when the path in force cannot
// be written to now.
func (w *Writer) drain(s *accesslog.Shard, inForce string) bool {
	// A line that comes meanwhile is for the next round, or a busy loop would keep
	// the others waiting. Few pieces can be there at the same time.
	const pieces = 16
	for range pieces {
		path, lines := s.Next()
		if lines == nil {
			return true
		}
		n, err := w.write(path, lines)
		s.Done(n)
		if err == nil {
			continue
		}
		w.tell(path, err)
		if path == inForce {
			w.failed = time.Now()
			return false
		}
		// Nobody will mend a file that is not asked for any more.
		w.lose(lines[n:])
		s.Done(len(lines) - n)
	}
	return true
}

// write returns how many bytes have been dealt with.
func (w *Writer) write(path string, lines []byte) (n int, err error) {
	f, err := w.get(path)
	if err != nil {
		return 0, err
	}
	if f.skip {
		n = bytes.IndexByte(lines, '\n') + 1
		w.lose(lines[:n])
		f.skip = false
	}
	// Only for what can block, such as pipes; files know no deadlines.
	_ = f.f.SetWriteDeadline(time.Now().Add(flushTime))
	m, err := f.f.Write(lines[n:])
	w.written.Add(uint64(bytes.Count(lines[n:n+m], newline)))
	if n += m; n > 0 {
		f.torn = lines[n-1] != '\n'
	}
	if err != nil {
		return n, fmt.Errorf("write access log: %w", err)
	}
	w.worked(path)
	return n, nil
}

var newline = []byte("\n")

// lose counts lines that will not be written.
func (w *Writer) lose(lines []byte) { w.lost.Add(uint64(bytes.Count(lines, newline))) }

// get returns the file of a path, opening it.
func (w *Writer) get(path string) (*file, error) {
	if f := w.files[path]; f != nil {
		return f, nil
	}
	opened, err := open(path)
	if err != nil {
		w.tell(path, err)
		return nil, err
	}
	f := &file{f: opened}
	w.files[path] = f
	return f, nil
}

// replace opens a file anew. When that is impossible, the old one goes on being
// written, wherever it is now.
func (w *Writer) replace(path string) {
	fresh, err := open(path)
	if err != nil {
		w.tell(path, err)
		return
	}
	f := w.files[path]
	f.f.Close()
	f.f = fresh
	f.torn, f.skip = false, f.torn || f.skip
}

// end closes the files and says what has been left behind.
func (w *Writer) end() {
	before := w.lost.Load()
	for i := range w.lines.Shards() {
		s := w.lines.Shard(i)
		for _, lines := s.Next(); lines != nil; _, lines = s.Next() {
			w.lose(lines)
			s.Done(len(lines))
		}
	}
	for _, f := range w.files {
		f.f.Close()
	}
	if n := w.lost.Load() - before; n > 0 {
		w.log.Warn("access log lines not written at the end", "lines", n)
	}
}

// tell logs an error of a path once, until it works again or the error is
// another.
func (w *Writer) tell(path string, err error) {
	w.failures.Add(1)
	if text := err.Error(); w.told[path] != text {
		w.told[path] = text
		w.log.Error("access log fails; requests are served on", "path", path, "error", err)
	}
}

func (w *Writer) worked(path string) {
	if w.told[path] != "" {
		delete(w.told, path)
		w.log.Info("access log works again", "path", path, "dropped", w.lines.Dropped()+w.lost.Load())
	}
}
