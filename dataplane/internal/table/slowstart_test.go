package table_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/types/known/durationpb"

	"reverseproxy/dataplane/internal/table"
	routetablev1 "reverseproxy/proto/routetable/v1"
)

// slowly gives an endpoint a slow start.
func slowly(e *routetablev1.Endpoint, d time.Duration) *routetablev1.Endpoint {
	if e.LoadBalancing == nil {
		e.LoadBalancing = &routetablev1.LoadBalancing{}
	}
	e.LoadBalancing.SlowStart = durationpb.New(d)
	return e
}

// inBubble runs a test in which time is not real, with the goroutine that refreshes.
func inBubble(t *testing.T, test func(t *testing.T, s *table.State)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := newState()
		ctx, cancel := context.WithCancel(t.Context())
		var g sync.WaitGroup
		g.Go(func() { s.Backends.Run(ctx) })
		test(t, s)
		cancel()
		g.Wait()
	})
}

// percent is how many of 1000 requests go to a host, in percent.
func percent(p *table.Pool, host string) int {
	n := 0
	for range 1000 {
		if pick(p).Host == host {
			n++
		}
	}
	return (n + 5) / 10
}

func TestSlowStart(t *testing.T) {
	inBubble(t, func(t *testing.T, s *table.State) {
		p := compile(t, wireTable(slowly(withPool(endpoint("e", "/"), "http://a", "http://b"), 90*time.Second)), s).Endpoint("e").Pool
		if got := take(p, 4); got != "abab" {
			t.Errorf("at first %s, want abab: all are new", got)
		}
		setHealthy(p, "a")
		time.Sleep(time.Hour)
		setHealthy(p, "ab")
		var got []int
		for range 11 {
			got = append(got, percent(p, "b"))
			time.Sleep(10 * time.Second)
			synctest.Wait()
		}
		t.Logf("measured: slowStart 90s, share of one of two backends every 10 s: %v %%", got)
		// n of n+10.
		if diff := cmp.Diff([]int{9, 17, 23, 29, 33, 38, 41, 44, 47, 50, 50}, got); diff != "" {
			t.Errorf("share in percent (-want +got):\n%s", diff)
		}
		if got := take(p, 4); got != "abab" && got != "baba" {
			t.Errorf("in the end %s", got)
		}
	})
}

// What is new in a pool starts slowly as well, and what was drained.
func TestSlowStartOfNewBackends(t *testing.T) {
	inBubble(t, func(t *testing.T, s *table.State) {
		e := func(urls ...string) *routetablev1.RouteTable {
			return wireTable(slowly(withPool(endpoint("e", "/"), urls...), 90*time.Second))
		}
		compile(t, e("http://a 3", "http://b 0"), s).Endpoint("e")
		p := compile(t, e("http://a 3", "http://b 3", "http://c 3"), s).Endpoint("e").Pool
		if a, b, c := percent(p, "a"), percent(p, "b"), percent(p, "c"); a != 83 || b != 8 || c != 8 {
			t.Errorf("shares of %d, %d and %d %%, want 83, 8 and 8", a, b, c)
		}
		time.Sleep(90 * time.Second)
		synctest.Wait()
		p = compile(t, e("http://a 3", "http://b 3", "http://c 2"), s).Endpoint("e").Pool
		if a, b, c := percent(p, "a"), percent(p, "b"), percent(p, "c"); a != 38 || b != 38 || c != 25 {
			t.Errorf("in the end shares of %d, %d and %d %%, want 38, 38 and 25", a, b, c)
		}
	})
}

// Shares that make a schedule too long become coarser; nobody loses all of theirs.
func TestSlowStartOfALongSchedule(t *testing.T) {
	inBubble(t, func(t *testing.T, s *table.State) {
		var urls []string
		for i := range 90 {
			urls = append(urls, fmt.Sprintf("http://h%d 999", i))
		}
		urls = append(urls, "http://last 1")
		rt := func(urls []string) *routetablev1.RouteTable {
			return wireTable(slowly(withPool(endpoint("e", "/"), urls...), 90*time.Second))
		}
		compile(t, rt(urls), s).Endpoint("e")
		p := compile(t, rt(append(urls, "http://new 999")), s).Endpoint("e").Pool
		seen := map[string]bool{}
		for range 100_000 {
			seen[pick(p).Host] = true
		}
		if len(seen) != 92 {
			t.Errorf("%d of 92 have a share", len(seen))
		}
	})
}

// Every policy heeds the share.
func TestSlowStartOfEveryPolicy(t *testing.T) {
	for _, policy := range []routetablev1.Policy{leastRequest, random, consistentHash} {
		inBubble(t, func(t *testing.T, s *table.State) {
			e := slowly(by(withPool(endpoint("e", "/"), "http://a", "http://b"), policy), 90*time.Second)
			p := compile(t, wireTable(e), s).Endpoint("e").Pool
			setHealthy(p, "a")
			setHealthy(p, "ab")
			got := counts{}
			for i := range requests {
				c := keyed(fmt.Sprint(i))
				c.Random = c.Hash
				got[p.Pick(c).Host]++
			}
			t.Logf("measured: slowStart, %s: %v", strings.TrimPrefix(policy.String(), "POLICY_"), got)
			wantShares(t, got, map[string]float64{"a": 10. / 11, "b": 1. / 11})
		})
	}
}
