//go:build unix

package loop_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// TestStoppingTheWorld: the Go runtime can stop all threads at any moment, which a
// garbage collection needs, whatever the loops wait in. A loop that goes from one
// system call to the next without a moment in between at which it can be stopped
// makes the process stand still, for ever.
func TestStoppingTheWorld(t *testing.T) {
	for _, procs := range []string{"1", "2", "4"} {
		t.Run("GOMAXPROCS="+procs, func(t *testing.T) {
			onEachDriver(t, func(t *testing.T, driver string) {
				if !apart(t, "GOMAXPROCS="+procs) {
					stopTheWorld(t, driver)
				}
			})
		})
	}
}

func stopTheWorld(t *testing.T, driver string) {
	r := start(t, driver, endpoint("/*", serve(t, always(ok)).url))
	idle := make([]*peer, 50)
	for i := range idle {
		idle[i] = dial(t, r.addr)
		idle[i].send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").response()
	}
	phase("GC, idle", func() {
		for range 50 {
			runtime.GC()
		}
	})
	phase("GC, loaded", func() { under(t, runtime.GC, r.addr) })
	phase("ReadMemStats, idle", func() {
		for range 1000 {
			readMemStats()
		}
	})
	phase("ReadMemStats, loaded", func() { under(t, readMemStats, r.addr) })
	for _, c := range idle {
		c.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").response()
	}
}

func readMemStats() { runtime.ReadMemStats(new(runtime.MemStats)) }

// phase runs f and says so: a process that stands still says where.
func phase(name string, f func()) {
	fmt.Println(name)
	began := time.Now()
	f()
	fmt.Println(name, "took", time.Since(began).Round(time.Millisecond))
}

// under has many requests answered while the world is stopped again and again.
func under(t *testing.T, stop func(), addr string) {
	t.Helper()
	served := make(chan struct{})
	go func() {
		defer close(served)
		load(t, addr, 16, 60)
	}()
	for stops := 0; ; stops++ {
		stop()
		select {
		case <-time.After(100 * time.Microsecond): // with one P, others need it too
		case <-served:
			fmt.Println(stops, "stops")
			return
		}
	}
}

// load has clients send so many requests each, the first half on one connection
// and the others on connections of their own.
func load(t *testing.T, addr string, clients, requests int) {
	t.Helper()
	var all sync.WaitGroup
	for range clients {
		all.Go(func() {
			c := dial(t, addr)
			for range requests / 2 {
				if m := c.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").response(); m.body != "ok" {
					t.Errorf("got %q", m.head)
					return
				}
			}
			for range requests / 2 {
				if got, err := fresh(addr); err != nil || !strings.HasSuffix(got, "ok") {
					t.Errorf("got %q: %v", got, err)
					return
				}
			}
		})
	}
	all.Wait()
}

// TestIdleServerRests: connections between two requests cost no processor time.
func TestIdleServerRests(t *testing.T) {
	onEachDriver(t, func(t *testing.T, driver string) {
		if !apart(t) {
			rest(t, driver)
		}
	})
}

func rest(t *testing.T, driver string) {
	r := start(t, driver, endpoint("/*", serve(t, always(ok)).url))
	for range 200 {
		dial(t, r.addr).send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").response()
	}
	// A thread that spins takes all of every window; rest is seen in one of them.
	const window, most = time.Second, 200 * time.Millisecond
	var used time.Duration
	for range 5 {
		before := processorTime(t)
		<-time.After(window)
		if used = processorTime(t) - before; used < most {
			fmt.Println("idle: used", used, "of", window)
			return
		}
	}
	t.Errorf("used %v of processor time in %v of rest", used, window)
}

func processorTime(t *testing.T) time.Duration {
	t.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// apart runs the calling test in a process of its own, with these variables in its
// environment, and fails it when that fails or stands still: a runtime that cannot
// stop its threads cannot run a test's deadline either. It returns false in that
// process.
func apart(t *testing.T, env ...string) bool {
	t.Helper()
	const mark = "TEST_APART"
	if os.Getenv(mark) == t.Name() {
		return false
	}
	var name []string
	for part := range strings.SplitSeq(t.Name(), "/") {
		name = append(name, "^"+regexp.QuoteMeta(part)+"$")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*patience)
	defer cancel()
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p := exec.CommandContext(ctx, program, "-test.run="+strings.Join(name, "/"), "-test.timeout=0")
	p.Env = append(append(os.Environ(), mark+"="+t.Name()), env...)
	p.Cancel = func() error { return p.Process.Signal(syscall.SIGQUIT) } // shows the stacks
	p.WaitDelay = patience
	output, err := p.CombinedOutput()
	switch {
	case ctx.Err() != nil:
		t.Errorf("the process stands still:\n%s", output)
	case err != nil:
		t.Errorf("%v:\n%s", err, output)
	case !bytes.Contains(output, []byte("PASS")) || errors.Is(err, exec.ErrWaitDelay):
		t.Errorf("did not run:\n%s", output)
	default:
		t.Logf("%s", output)
	}
	return true
}
