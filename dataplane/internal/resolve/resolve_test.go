package resolve_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"reverseproxy/dataplane/internal/backend"
	"reverseproxy/dataplane/internal/resolve"
)

// later lets lookups happen that are due within d.
func later(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func want(t *testing.T, n *backend.Name, list ...string) {
	t.Helper()
	if diff := cmp.Diff(append([]string{}, list...), append([]string{}, addresses(t, n)...)); diff != "" {
		t.Errorf("addresses of %s (-want +got):\n%s", n.Host(), diff)
	}
}

func TestAddressesAreKeptCurrent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{}
		w.set("shop", "10.0.0.2", "10.0.0.1")
		r := start(t, w, nil)
		n := backend.NewRegistry().Name("shop:8080")
		want(t, n, "unknown")
		r.Follow(n)
		synctest.Wait()
		want(t, n, "10.0.0.1:8080", "10.0.0.2:8080")
		w.since()

		later(time.Minute)
		if asked, changed := w.since(); asked < 5 || asked > 7 || changed != 0 {
			t.Errorf("in a minute without a change: asked %d times, told of %d changes", asked, changed)
		}
		w.set("shop", "10.0.0.3", "10.0.0.1", "10.0.0.3")
		later(11 * time.Second)
		want(t, n, "10.0.0.1:8080", "10.0.0.3:8080")
		if _, changed := w.since(); changed != 1 {
			t.Errorf("told of %d changes", changed)
		}
		w.set("shop", "10.0.0.1", "10.0.0.3") // another order is the same
		later(11 * time.Second)
		if _, changed := w.since(); changed != 0 {
			t.Error("told of a change that is none")
		}

		r.SetInterval(time.Second)
		later(10 * time.Second)
		if asked, _ := w.since(); asked < 9 || asked > 12 {
			t.Errorf("asked %d times in 10 intervals", asked)
		}
	})
}

func TestOnlyOneVersionOfIP(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{}
		w.set("both", "2001:db8::1", "10.0.0.1", "::ffff:10.0.0.2")
		w.set("six", "2001:db8::2", "2001:db8::1")
		r := start(t, w, nil)
		states := backend.NewRegistry()
		both, six := states.Name("both:80"), states.Name("six:80")
		r.Follow(both)
		r.Follow(six)
		synctest.Wait()
		want(t, both, "10.0.0.1:80", "10.0.0.2:80")
		want(t, six, "[2001:db8::1]:80", "[2001:db8::2]:80")
	})
}

func TestAddressesStayWhenLookupsFail(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{}
		w.set("shop", "10.0.0.1")
		var text bytes.Buffer
		r := start(t, w, slog.NewTextHandler(&text, nil))
		n := backend.NewRegistry().Name("shop:80")
		r.Follow(n)
		synctest.Wait()
		w.since()

		w.fail(errNone)
		later(5 * time.Minute)
		want(t, n, "10.0.0.1:80")
		asked, changed := w.since()
		if changed != 0 || asked < 20 || asked > 40 {
			t.Errorf("asked %d times in 5 minutes without an answer, told of %d changes", asked, changed)
		}
		w.fail(nil)
		w.set("shop") // an answer without an address is a failure too
		later(11 * time.Second)
		want(t, n, "10.0.0.1:80")
		w.set("shop", "10.0.0.2")
		later(11 * time.Second)
		want(t, n, "10.0.0.2:80")

		for line, times := range map[string]int{
			`msg="name resolved" name=shop addresses=10.0.0.1:80`:                                1,
			`msg="name cannot be resolved" name=shop error="no such host" kept=10.0.0.1:80`:      1,
			`msg="name cannot be resolved" name=shop error="it has no address" kept=10.0.0.1:80`: 1,
			`msg="name resolved" name=shop addresses=10.0.0.2:80`:                                1,
		} {
			if n := strings.Count(text.String(), line); n != times {
				t.Errorf("%q is logged %d times, want %d; log:\n%s", line, n, times, text.String())
			}
		}
	})
}

// A name that has never been found is asked for soon again, and less and less often.
func TestFirstLookupFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{err: errNone}
		r := start(t, w, nil)
		n := backend.NewRegistry().Name("shop:80")
		r.Follow(n)
		synctest.Wait()
		want(t, n)
		if asked, changed := w.since(); asked != 1 || changed != 1 {
			t.Errorf("asked %d times, told of %d changes", asked, changed)
		}
		later(1200 * time.Millisecond)
		if asked, changed := w.since(); asked != 1 || changed != 0 {
			t.Errorf("in the first second: asked %d times, told of %d changes", asked, changed)
		}
		later(time.Minute)
		if asked, _ := w.since(); asked < 6 || asked > 9 {
			t.Errorf("in a minute: asked %d times", asked)
		}
		w.fail(nil)
		w.set("shop", "10.0.0.1")
		later(11 * time.Second)
		want(t, n, "10.0.0.1:80")
	})
}

func TestNamesThatNobodyUses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{}
		w.set("shop", "10.0.0.1")
		r := start(t, w, nil)
		n := backend.NewRegistry().Name("shop:80")
		r.Follow(n)
		r.Follow(n)
		r.Leave(n)
		synctest.Wait()
		w.since()
		later(time.Minute)
		if asked, _ := w.since(); asked == 0 {
			t.Error("a name that is used twice was left with the first")
		}
		if n := testutil.CollectAndCount(r); n != 3 {
			t.Errorf("%d series, want 3", n)
		}
		r.Leave(n)
		later(time.Minute)
		if asked, _ := w.since(); asked != 0 {
			t.Error("a name that nobody uses is looked up")
		}
		if n := testutil.CollectAndCount(r); n != 0 {
			t.Errorf("%d series of a name that nobody uses", n)
		}
	})
}

func TestMetrics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{}
		w.set("shop", "10.0.0.1", "10.0.0.2")
		r := start(t, w, nil)
		states := backend.NewRegistry()
		r.Follow(states.Name("shop:80"))
		r.Follow(states.Name("shop:81"))
		synctest.Wait()
		w.fail(errNone)
		later(13 * time.Second)
		asked, _ := w.since()
		const text = `
# HELP dataplane_dns_addresses Addresses that the name of a backend stands for; they stay when lookups fail.
# TYPE dataplane_dns_addresses gauge
dataplane_dns_addresses{host="shop"} 2
`
		if err := testutil.CollectAndCompare(r, strings.NewReader(text), "dataplane_dns_addresses"); err != nil {
			t.Error(err)
		}
		if asked < 3 {
			t.Errorf("asked %d times", asked)
		}
	})
}

// A server that does not answer costs nothing but the wait, and Close does not wait
// for it.
func TestLookupsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var atOnce, most atomic.Int64
		lookup := func(ctx context.Context, _ string) ([]netip.Addr, error) {
			n := atOnce.Add(1)
			defer atOnce.Add(-1)
			most.Store(max(most.Load(), n))
			<-ctx.Done()
			return nil, ctx.Err()
		}
		var mu sync.Mutex
		changed := map[string]bool{}
		r := resolve.New(resolve.Options{Lookup: lookup, Log: slog.New(slog.DiscardHandler), Changed: func(n *backend.Name) {
			mu.Lock()
			defer mu.Unlock()
			changed[n.Host()] = true
		}})
		states := backend.NewRegistry()
		for i := range 200 {
			r.Follow(states.Name(strings.Repeat("x", i+1) + ":80"))
		}
		later(10 * time.Second)
		if most.Load() != 64 {
			t.Errorf("%d lookups at once", most.Load())
		}
		mu.Lock()
		if len(changed) < 100 {
			t.Errorf("%d names are known to be unknown", len(changed))
		}
		mu.Unlock()
		began := time.Now()
		r.Close()
		if took := time.Since(began); took > 0 {
			t.Errorf("closing took %v", took)
		}
		r.Follow(states.Name("late:80"))
		synctest.Wait()
		if atOnce.Load() != 0 {
			t.Error("something is looked up after Close")
		}
	})
}

func TestNames(t *testing.T) {
	states := backend.NewRegistry()
	for addr, isName := range map[string]bool{
		"shop.example.com:80": true, "shop:80": true, "shop.:80": true, "localhosts:80": true,
		"localhost:80": false, "localhost.:80": false, "127.0.0.1:80": false, "[::1]:80": false,
	} {
		if n := states.Name(addr); (n != nil) != isName {
			t.Errorf("%s: name %v", addr, n)
		} else if n != states.Name(addr) && isName {
			t.Errorf("%s has several names", addr)
		}
	}
}

// What a name stands for belongs to it, and the name goes with its address.
func TestNamesAreForgotten(t *testing.T) {
	states := backend.NewRegistry()
	n := states.Name("shop:80")
	n.Set([]netip.Addr{netip.MustParseAddr("10.0.0.1")})
	behind := states.State("10.0.0.1:80")
	states.State("10.0.0.2:80")
	if diff := cmp.Diff(map[string]bool{"shop:80": true, "10.0.0.2:80": true}, states.Addresses()); diff != "" {
		t.Errorf("addresses (-want +got):\n%s", diff)
	}
	states.Forget(map[string]bool{"shop:80": true})
	if states.Name("shop:80") == n {
		t.Error("the name is not forgotten")
	}
	if !states.Addresses()["10.0.0.1:80"] || states.State("10.0.0.1:80") != behind {
		t.Error("an address without its name does not go with the next table")
	}
}

func TestErrorsThatAreTheSame(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var text bytes.Buffer
		w := &world{err: errors.New("first")}
		r := start(t, w, slog.NewTextHandler(&text, nil))
		r.Follow(backend.NewRegistry().Name("shop:80"))
		later(time.Minute)
		w.fail(errors.New("second"))
		later(time.Minute)
		if n := strings.Count(text.String(), "\n"); n != 2 {
			t.Errorf("%d lines, want one for each reason:\n%s", n, text.String())
		}
	})
}
