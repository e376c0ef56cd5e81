package logfile_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"reverseproxy/dataplane/internal/accesslog"
	"reverseproxy/dataplane/internal/accesslog/logfile"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = 20 * time.Second

// world is a writer, the loops that feed it, and what it has logged.
type world struct {
	*testing.T
	lines  *accesslog.Log
	writer *logfile.Writer
	log    *buffer
	dir    string
}

func start(t *testing.T, shards int) *world {
	t.Helper()
	t.Parallel()
	w := &world{T: t, lines: accesslog.New(shards), log: new(buffer), dir: t.TempDir()}
	w.writer = logfile.New(w.lines, slog.New(slog.NewTextHandler(w.log, nil)))
	t.Cleanup(func() {
		w.close()
		if t.Failed() {
			t.Log(w.log.String())
		}
	})
	return w
}

func (w *world) close() {
	w.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := w.writer.Close(ctx); err != nil {
		w.Error(err)
	}
}

// add adds lines of requests for /from to /to-1.
func (w *world) add(shard int, path string, from, to int) {
	s := w.lines.Shard(shard)
	for i := from; i < to; i++ {
		s.Add(path, accesslog.Common, &accesslog.Line{Client: []byte("c"), Method: []byte("GET"), Target: fmt.Appendf(nil, "/%d", i), Status: 200})
	}
}

// want waits until a file holds exactly the lines for /from to /to-1.
func (w *world) want(path string, from, to int) {
	w.Helper()
	w.eventually(func() error { return holds(path, from, to) })
}

func holds(path string, from, to int) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	i := from
	for line := range strings.Lines(string(text)) {
		if want := fmt.Sprintf("c - - [01/Jan/1970:00:00:00 +0000] \"GET /%d HTTP/1.0\" 200 0\n", i); line != want || i >= to {
			return fmt.Errorf("%s has %q, want %q, up to %d", filepath.Base(path), line, want, to)
		}
		i++
	}
	if i != to {
		return fmt.Errorf("%s ends before %d, want %d", filepath.Base(path), i, to)
	}
	return nil
}

func (w *world) eventually(f func() error) {
	w.Helper()
	deadline := time.Now().Add(patience)
	for {
		err := f()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			w.Fatal(err)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// metric returns the value of one of the writer's metrics.
func (w *world) metric(name string) float64 {
	w.Helper()
	problems, err := testutil.CollectAndLint(w.writer)
	if err != nil || len(problems) > 0 {
		w.Errorf("lint: %v, %v", problems, err)
	}
	r := prometheus.NewPedanticRegistry()
	r.MustRegister(w.writer)
	families, err := r.Gather()
	if err != nil {
		w.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			return f.GetMetric()[0].GetCounter().GetValue()
		}
	}
	w.Fatalf("no metric %s", name)
	return 0
}

func (w *world) wantLogged(text string, times int) {
	w.Helper()
	w.eventually(func() error {
		if n := strings.Count(w.log.String(), text); n != times {
			return fmt.Errorf("logged %q %d times, want %d", text, n, times)
		}
		return nil
	})
}

// buffer is a bytes.Buffer for several goroutines.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

const (
	fails = "access log fails"
	works = "access log works again"
)

func TestLinesAreWritten(t *testing.T) {
	w := start(t, 2)
	path := filepath.Join(w.dir, "a.log")
	w.writer.Follow(path)
	w.want(path, 0, 0) // there before the first line
	if info, err := os.Stat(path); err != nil || info.Mode().Perm()&0o007 != 0 {
		t.Errorf("mode: %v, %v", info.Mode(), err)
	}
	w.add(0, path, 0, 3)
	w.want(path, 0, 3) // without another reason than time
	w.add(1, path, 3, 5)
	w.close()
	w.want(path, 0, 5)
	if n := w.metric("dataplane_access_log_lines_total"); n != 5 {
		t.Errorf("%v lines counted", n)
	}
	if w.log.String() != "" {
		t.Errorf("logged: %s", w.log)
	}
}

// Lines go to the file they were made for; the one before is closed.
func TestPathChanges(t *testing.T) {
	w := start(t, 1)
	a, b := filepath.Join(w.dir, "a.log"), filepath.Join(w.dir, "b.log")
	w.writer.Follow(a)
	w.add(0, a, 0, 10)
	w.add(0, b, 10, 15) // a loop may be faster than Follow
	w.writer.Follow(b)
	w.want(a, 0, 10)
	w.want(b, 10, 15)
	w.add(0, a, 10, 12) // or slower
	w.add(0, b, 15, 20)
	w.want(a, 0, 12)
	w.want(b, 10, 20)
	w.writer.Follow("")
	w.eventually(func() error {
		if open := opened(w.dir); len(open) > 0 {
			return fmt.Errorf("open: %v", open)
		}
		return nil
	})
	w.writer.Follow(a)
	w.add(0, a, 12, 13)
	w.want(a, 0, 13)
}

// opened returns the files below dir that this process holds.
func opened(dir string) (names []string) {
	links, _ := filepath.Glob("/proc/self/fd/*")
	for _, l := range links {
		if name, err := os.Readlink(l); err == nil && strings.HasPrefix(name, dir) {
			names = append(names, name)
		}
	}
	return names
}

func TestRotation(t *testing.T) {
	for name, reopen := range map[string]bool{"SIGHUP": true, "unasked": false} {
		t.Run(name, func(t *testing.T) {
			w := start(t, 1)
			path, old := filepath.Join(w.dir, "a.log"), filepath.Join(w.dir, "a.log.1")
			w.writer.Follow(path)
			w.add(0, path, 0, 10)
			w.want(path, 0, 10)
			if err := os.Rename(path, old); err != nil {
				t.Fatal(err)
			}
			if reopen {
				w.writer.Reopen()
			}
			w.want(path, 0, 0)
			w.add(0, path, 10, 20)
			w.want(path, 10, 20)
			w.want(old, 0, 10)
		})
	}
}

func TestRemovedFile(t *testing.T) {
	w := start(t, 1)
	path := filepath.Join(w.dir, "a.log")
	w.writer.Follow(path)
	w.want(path, 0, 0)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	w.want(path, 0, 0)
	w.add(0, path, 0, 1)
	w.want(path, 0, 1)
}

// copytruncate, as logrotate calls it.
func TestTruncatedFile(t *testing.T) {
	w := start(t, 1)
	path := filepath.Join(w.dir, "a.log")
	w.writer.Follow(path)
	w.add(0, path, 0, 10)
	w.want(path, 0, 10)
	if err := os.Truncate(path, 0); err != nil {
		t.Fatal(err)
	}
	w.add(0, path, 10, 11)
	w.want(path, 10, 11)
}

// A file that cannot be opened is told once, and its lines wait for it.
func TestUnopenablePath(t *testing.T) {
	w := start(t, 1)
	path := filepath.Join(w.dir, "missing", "a.log")
	if err := w.writer.Check(path); err == nil || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("check: %v", err)
	}
	w.writer.Follow(path)
	w.add(0, path, 0, 10)
	w.eventually(func() error {
		if n := w.metric("dataplane_access_log_failures_total"); n < 3 {
			return fmt.Errorf("%v failures", n)
		}
		return nil
	})
	w.wantLogged(fails, 1)
	if err := os.Mkdir(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	w.want(path, 0, 10)
	w.wantLogged(works, 1)
	if n := w.metric("dataplane_access_log_dropped_total"); n != 0 {
		t.Errorf("%v lines dropped", n)
	}
	if err := w.writer.Check(path); err != nil {
		t.Errorf("check: %v", err)
	}
	if err := w.writer.Check(w.dir); err == nil {
		t.Error("a directory passes")
	}
}

// When the file cannot be opened again, the old one goes on.
func TestUnopenableAfterRotation(t *testing.T) {
	w := start(t, 1)
	dir, moved := filepath.Join(w.dir, "d"), filepath.Join(w.dir, "e")
	path := filepath.Join(dir, "a.log")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	w.writer.Follow(path)
	w.add(0, path, 0, 10)
	w.want(path, 0, 10)
	if err := os.Rename(dir, moved); err != nil {
		t.Fatal(err)
	}
	w.writer.Reopen()
	w.wantLogged(fails, 1)
	w.add(0, path, 10, 20)
	w.want(filepath.Join(moved, "a.log"), 0, 20)
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	w.want(path, 0, 0)
	w.add(0, path, 20, 30)
	w.want(path, 20, 30)
}

// A full disk: nobody waits, the lines that have no room are counted, and those
// of a file that is not wanted any more are given up.
func TestFullDisk(t *testing.T) {
	const full = "/dev/full"
	if _, err := os.Stat(full); err != nil {
		t.Skip(err)
	}
	w := start(t, 1)
	w.writer.Follow(full)
	const lines = 200_000
	w.add(0, full, 0, lines)
	w.wantLogged(fails, 1)
	dropped := w.metric("dataplane_access_log_dropped_total")
	if dropped == 0 || w.metric("dataplane_access_log_lines_total") != 0 {
		t.Errorf("%v dropped, %v written", dropped, w.metric("dataplane_access_log_lines_total"))
	}
	path := filepath.Join(w.dir, "a.log")
	w.writer.Follow(path)
	w.eventually(func() error {
		if n := w.metric("dataplane_access_log_dropped_total"); n != lines {
			return fmt.Errorf("%v of %d lines counted as dropped", n, lines)
		}
		return nil
	})
	w.add(0, path, 0, 10)
	w.want(path, 0, 10)
}

// A pipe whose reader is slow, or gone: lines are cut nowhere, nobody waits for
// it, and a file that takes its place begins with a whole line.
func TestPipe(t *testing.T) {
	w := start(t, 1)
	path := filepath.Join(w.dir, "pipe")
	if err := unix.Mkfifo(path, 0o600); err != nil {
		t.Skip(err)
	}
	w.writer.Follow(path)
	w.wantLogged(fails, 1) // nobody reads
	w.add(0, path, 0, 10_000)
	r, err := os.Open(path) // waits for the writer
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	copied := filepath.Join(w.dir, "copy")
	out, err := os.Create(copied)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	if _, err := io.CopyN(out, r, 300_000); err != nil {
		t.Fatal(err)
	}
	// Now nobody reads for longer than a write may take.
	w.eventually(func() error {
		if n := w.metric("dataplane_access_log_failures_total"); n < 4 {
			return fmt.Errorf("%v failures", n)
		}
		return nil
	})
	for in, line := bufio.NewReader(r), ""; !strings.Contains(line, "GET /9999 HTTP"); {
		if line, err = in.ReadString('\n'); err != nil {
			t.Fatal(err)
		}
		out.WriteString(line)
	}
	w.want(copied, 0, 10_000)

	w.add(0, path, 10_000, 20_000) // more than a pipe holds
	w.eventually(func() error {
		if w.metric("dataplane_access_log_lines_total") == 10_000 {
			return fmt.Errorf("nothing written")
		}
		return nil
	})
	if err := os.Rename(path, path+".old"); err != nil {
		t.Fatal(err)
	}
	w.eventually(func() error {
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if !bytes.Contains(text, []byte("/19999 ")) {
			return fmt.Errorf("%d bytes", len(text))
		}
		return nil
	})
	text, _ := os.ReadFile(path)
	first, _, _ := strings.Cut(string(text), "\n")
	var n int
	if _, err := fmt.Sscanf(first, `c - - [01/Jan/1970:00:00:00 +0000] "GET /%d HTTP/1.0" 200 0`, &n); err != nil || n <= 10_000 || holds(path, n, 20_000) != nil {
		t.Errorf("%v in the first line %q; %v", err, first, holds(path, n, 20_000))
	}
	w.close()
	written, dropped := w.metric("dataplane_access_log_lines_total"), w.metric("dataplane_access_log_dropped_total")
	if written+dropped != 20_000 || dropped > 1 {
		t.Errorf("%v written and %v dropped", written, dropped)
	}
}

// Several loops under load while the file is moved away again and again: every
// line is in one of the files.
func TestRotationUnderLoad(t *testing.T) {
	const (
		shards    = 4
		each      = 20_000
		rotations = 20
	)
	w := start(t, shards)
	path := filepath.Join(w.dir, "a.log")
	w.writer.Follow(path)
	var g sync.WaitGroup
	var ended atomic.Int32
	for i := range shards {
		g.Go(func() {
			defer ended.Add(1)
			for n := range each / 100 {
				w.add(i, path, i*each+n*100, i*each+n*100+100)
				time.Sleep(100 * time.Microsecond) // as a network would
			}
		})
	}
	for i := range rotations {
		w.eventually(func() error { _, err := os.Stat(path); return err })
		if err := os.Rename(path, fmt.Sprintf("%s.%d", path, i)); err != nil {
			t.Fatal(err)
		}
		if i%2 == 0 {
			w.writer.Reopen()
		}
	}
	g.Wait()
	w.close()
	seen := make([]bool, shards*each)
	names, _ := filepath.Glob(path + "*")
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			var n int
			if _, err := fmt.Sscanf(strings.Fields(line)[6], "/%d", &n); err != nil || seen[n] {
				t.Fatalf("twice, or broken: %q", line)
			}
			seen[n] = true
		}
	}
	missing := 0
	for _, s := range seen {
		if !s {
			missing++
		}
	}
	if dropped := int(w.metric("dataplane_access_log_dropped_total")); missing != dropped || len(names) < rotations {
		t.Errorf("%d lines missing, %d dropped, in %d files", missing, dropped, len(names))
	}
}

// Closing gives up when nobody takes the rest.
func TestCloseDoesNotWaitForEver(t *testing.T) {
	w := start(t, 1)
	path := filepath.Join(w.dir, "missing", "a.log")
	w.writer.Follow(path)
	w.add(0, path, 0, 7)
	w.close()
	w.wantLogged("access log lines not written at the end\" lines=7", 1)
}
