package accesslog_test

import (
	"bytes"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"

	"reverseproxy/dataplane/internal/accesslog"
)

// numbered is a line that tells its number; its length varies.
func numbered(l *accesslog.Line, n int) *accesslog.Line {
	l.Target = fmt.Appendf(l.Target[:0], "/%d?%s", n, strings.Repeat("x", n%700))
	return l
}

// take returns all that is there, by path, and frees it.
func take(s *accesslog.Shard, into map[string]*bytes.Buffer) {
	for {
		path, lines := s.Next()
		if lines == nil {
			return
		}
		if into[path] == nil {
			into[path] = new(bytes.Buffer)
		}
		into[path].Write(lines)
		s.Done(len(lines))
	}
}

func TestNothingIsThere(t *testing.T) {
	s := accesslog.New(1).Shard(0)
	if path, lines := s.Next(); path != "" || lines != nil {
		t.Errorf("%q, %q", path, lines)
	}
	var none *accesslog.Log
	if none.Shard(0) != nil {
		t.Error("a log that is nil has a shard")
	}
}

// A full ring drops lines and counts them; the others come out whole and in
// order, and there is room again.
func TestFullRing(t *testing.T) {
	log := accesslog.New(2)
	s := log.Shard(1)
	l := sample()
	kept := 0
	for range 3 {
		n := 0
		for dropped := log.Dropped(); log.Dropped() == dropped; n++ {
			s.Add("p", accesslog.Common, numbered(l, kept+n))
		}
		n-- // the last one
		if n < 1000 {
			t.Fatalf("full after %d lines", n)
		}
		got := map[string]*bytes.Buffer{}
		take(s, got)
		lines := strings.SplitAfter(strings.TrimSuffix(got["p"].String(), "\n"), "\n")
		if len(lines) != n {
			t.Fatalf("%d lines, want %d", len(lines), n)
		}
		for i, line := range lines {
			if !strings.Contains(line, fmt.Sprintf(`"GET /%d?`, kept+i)) {
				t.Fatalf("line %d is %s", i, line)
			}
		}
		kept += n
	}
	if log.Dropped() != 3 {
		t.Errorf("%d lines dropped", log.Dropped())
	}
}

// What was written in part goes on where it stopped, also over the ring's end.
func TestWrittenInPart(t *testing.T) {
	log := accesslog.New(1)
	s := log.Shard(0)
	l := sample()
	var want, got bytes.Buffer
	n := 0
	for range 25 {
		for range 1000 {
			numbered(l, n)
			fmt.Fprintf(&want, "%s\n", l.Target)
			s.Add("p", accesslog.Common, l)
			n++
		}
		for size := 1; ; size = size*7%1009 + 1 {
			_, lines := s.Next()
			if lines == nil {
				break
			}
			if !bytes.HasSuffix(lines, []byte("\n")) {
				t.Fatalf("half a line: %q", lines[max(0, len(lines)-100):])
			}
			size = min(size, len(lines))
			got.Write(lines[:size])
			s.Done(size)
		}
	}
	var targets bytes.Buffer
	for line := range bytes.Lines(got.Bytes()) {
		targets.Write(bytes.Fields(line)[6])
		targets.WriteByte('\n')
	}
	if log.Dropped() != 0 || !bytes.Equal(want.Bytes(), targets.Bytes()) {
		t.Errorf("%d of %d bytes, or other ones; %d dropped", targets.Len(), want.Len(), log.Dropped())
	}
}

// Lines come out under the path they were given for.
func TestPathChanges(t *testing.T) {
	log := accesslog.New(1)
	s := log.Shard(0)
	paths := []string{"a", "b", "a", "c"}
	for i := range 40 {
		s.Add(paths[i/10], accesslog.JSON, numbered(sample(), i))
	}
	got := map[string]*bytes.Buffer{}
	take(s, got)
	for path, want := range map[string]int{"a": 20, "b": 10, "c": 10} {
		if n := bytes.Count(got[path].Bytes(), []byte("\n")); n != want {
			t.Errorf("%s has %d lines, want %d", path, n, want)
		}
	}
	// More changes than are kept track of: dropped, and all is well afterwards.
	for i := range 100 {
		s.Add(fmt.Sprint(i), accesslog.JSON, sample())
	}
	dropped := log.Dropped()
	if dropped == 0 || dropped >= 100 {
		t.Errorf("%d of 100 dropped", dropped)
	}
	clear(got)
	take(s, got)
	if len(got) != 100-int(dropped) {
		t.Errorf("%d paths, %d dropped", len(got), dropped)
	}
	s.Add("last", accesslog.JSON, sample())
	if path, lines := s.Next(); path != "last" || len(lines) == 0 {
		t.Errorf("afterwards: %q, %q", path, lines)
	}
}

// The writer is woken when there is much, not for each line.
func TestWake(t *testing.T) {
	log := accesslog.New(1)
	s := log.Shard(0)
	woken, size := 0, len(render(accesslog.JSON, sample()))
	for range 2 << 20 / size {
		s.Add("p", accesslog.JSON, sample())
		select {
		case <-log.Wake():
			woken++
		default:
		}
	}
	if woken < 4 || woken > 64 {
		t.Errorf("woken %d times for 2 MiB", woken)
	}
}

// A loop and the writer at the same time: every line that was not dropped comes
// out once, whole, in order, under its path.
func TestAtTheSameTime(t *testing.T) {
	const lines = 30_000
	log := accesslog.New(1)
	s := log.Shard(0)
	var g sync.WaitGroup
	done := make(chan struct{})
	g.Go(func() {
		defer close(done)
		l := sample()
		for i := range lines {
			s.Add(fmt.Sprint(i/1000%3), accesslog.Common, numbered(l, i))
		}
	})
	got := map[string]*bytes.Buffer{}
	for ended := false; !ended; {
		select {
		case <-done:
			ended = true
		default:
			runtime.Gosched()
		}
		take(s, got)
	}
	g.Wait()
	total := 0
	for path, b := range got {
		last := -1
		for line := range bytes.Lines(b.Bytes()) {
			var n int
			if _, err := fmt.Sscanf(string(bytes.Fields(line)[6]), "/%d?", &n); err != nil || n <= last || fmt.Sprint(n/1000%3) != path {
				t.Fatalf("path %s, after %d: %s", path, last, line)
			}
			last = n
			total++
		}
	}
	if total+int(log.Dropped()) != lines {
		t.Errorf("%d lines and %d dropped, want %d", total, log.Dropped(), lines)
	}
}
