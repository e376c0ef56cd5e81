package table_test

import (
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"reverseproxy/dataplane/internal/table"
)

// pick chooses a member for a request that tells nothing.
func pick(p *table.Pool) *table.Member { return p.Pick(&table.Choice{}) }

// take returns the letters that end the hosts of the next n members.
func take(p *table.Pool, n int) string {
	var s strings.Builder
	for range n {
		m := pick(p)
		if m == nil {
			return s.String() + "-"
		}
		s.WriteString(m.Host)
	}
	return s.String()
}

func TestRoundRobin(t *testing.T) {
	tests := []struct {
		name string
		pool []string
		want string
	}{
		{"one", []string{"http://a"}, "aaa"},
		{"first URL first", []string{"http://a", "http://b", "http://c"}, "abcabca"},
		{"weights", []string{"http://a 3", "http://b"}, "aabaaaba"},
		{"equal weights", []string{"http://b 7", "http://a 7"}, "baba"},
		{"smooth", []string{"http://a 5", "http://b", "http://c"}, "aabacaaaabacaa"},
		{"drained", []string{"http://a", "http://b 0", "http://c"}, "acaca"},
		{"drained, weights", []string{"http://a 0", "http://b 2", "http://c 1"}, "bcbbcb"},
		{"all drained", []string{"http://a 0"}, "-"},
		{"URL twice", []string{"http://a", "http://a", "http://b"}, "aabaab"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			tab := compile(t, wireTable(withPool(endpoint("e", "/"), test.pool...)), newState())
			if got := take(tab.Endpoint("e").Pool, len(test.want)); got != test.want {
				t.Errorf("got %s, want %s", got, test.want)
			}
		})
	}
}

// Over several goroutines every backend is chosen exactly as often as is its due.
func TestRoundRobinIsExactOverGoroutines(t *testing.T) {
	tab := compile(t, wireTable(withPool(endpoint("e", "/"), "http://a 3", "http://b 1", "http://c 2")), newState())
	const goroutines, rounds = 8, 600
	counts := make([]map[string]int, goroutines)
	var g sync.WaitGroup
	for i := range goroutines {
		g.Go(func() {
			counts[i] = map[string]int{}
			for range rounds {
				counts[i][pick(tab.Endpoint("e").Pool).Host]++
			}
		})
	}
	g.Wait()
	sum := map[string]int{}
	for _, c := range counts {
		for host, n := range c {
			sum[host] += n
		}
	}
	if sum["a"] != goroutines*rounds/2 || sum["b"] != goroutines*rounds/6 || sum["c"] != goroutines*rounds/3 {
		t.Errorf("counts are %v", sum)
	}
}

func TestCycleContinuesOverTables(t *testing.T) {
	tests := []struct {
		name, to string
		pool     []string
		want     string // what the pool gives after one request to a of a, b, c
	}{
		{"unchanged", "e", []string{"http://a", "http://b", "http://c"}, "bca"},
		{"other order", "e", []string{"http://a", "http://c", "http://b"}, "acb"},
		{"a backend more", "e", []string{"http://a", "http://b", "http://c", "http://d"}, "abc"},
		{"a backend less", "e", []string{"http://a", "http://b"}, "aba"},
		{"other weight", "e", []string{"http://a", "http://b", "http://c 2"}, "cab"},
		{"other path", "e", []string{"http://a", "http://b", "http://c/x"}, "abc"},
		{"other endpoint", "f", []string{"http://a", "http://b", "http://c"}, "abc"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			s := newState()
			first := compile(t, wireTable(
				endpoint("a", "/a"), endpoint("z", "/z"),
				withPool(endpoint("e", "/"), "http://a", "http://b", "http://c")), s)
			if got := take(first.Endpoint("e").Pool, 1); got != "a" {
				t.Fatalf("first is %s", got)
			}
			// The path and other endpoints may change; that is not the pool.
			second := compile(t, wireTable(
				endpoint("b", "/b"), endpoint("c", "/c"),
				withPool(endpoint(test.to, "/x"), test.pool...)), s)
			if got := take(second.Endpoint(test.to).Pool, 3); got != test.want {
				t.Errorf("got %s, want %s", got, test.want)
			}
		})
	}
}

// While requests still use the old table, both share one cycle.
func TestTablesShareTheCycle(t *testing.T) {
	s := newState()
	rt := wireTable(withPool(endpoint("e", "/"), "http://a", "http://b", "http://c"))
	first := compile(t, rt, s)
	second := compile(t, rt, s)
	got := ""
	for range 3 {
		got += take(first.Endpoint("e").Pool, 1) + take(second.Endpoint("e").Pool, 1)
	}
	if got != "abcabc" {
		t.Errorf("got %s", got)
	}
}

// setHealthy says which members are healthy, by the letters of their hosts.
func setHealthy(p *table.Pool, letters string) {
	for _, m := range p.Members() {
		m.Health.SetHealthy(strings.Contains(letters, m.Host))
	}
	p.Refresh()
}

func TestUnusableMembers(t *testing.T) {
	tests := []struct {
		name    string
		pool    []string
		healthy string // by the letters of the hosts, from the second request on
		want    string
	}{
		{"all", []string{"http://a", "http://b", "http://c"}, "abc", "abcabc"},
		{"one is not", []string{"http://a", "http://b", "http://c"}, "ac", "acacac"},
		{"one is", []string{"http://a", "http://b", "http://c"}, "b", "abbbbb"},
		{"none is", []string{"http://a", "http://b", "http://c"}, "", "abcabc"},
		{"weights", []string{"http://a 3", "http://b", "http://c"}, "ac", "aacaaaca"},
		{"equal weights are left", []string{"http://a 3", "http://b", "http://c"}, "bc", "acbcbc"},
		{"drained", []string{"http://a 0", "http://b", "http://c"}, "ab", "bbbb"},
		{"none but the drained", []string{"http://a 0", "http://b", "http://c"}, "a", "bcbcbc"},
		{"all drained", []string{"http://a 0"}, "a", "-"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			p := compile(t, wireTable(withPool(endpoint("e", "/"), test.pool...)), newState()).Endpoint("e").Pool
			got := take(p, 1)
			setHealthy(p, test.healthy)
			if got != "-" {
				got += take(p, len(test.want)-1)
			}
			if got != test.want {
				t.Errorf("got %s, want %s", got, test.want)
			}
		})
	}
}

// What has been found out about a member is known to the next table too, as long as
// endpoint, URL and address are the same.
func TestHealthOutlivesTables(t *testing.T) {
	s := newState()
	first := compile(t, wireTable(withPool(endpoint("e", "/"), "http://a", "http://b")), s).Endpoint("e").Pool
	setHealthy(first, "b")
	again := compile(t, wireTable(withPool(endpoint("e", "/x"), "http://a", "http://b")), s).Endpoint("e").Pool
	if got := take(again, 3); got != "bbb" {
		t.Errorf("the same pool gives %s", got)
	}
	other := compile(t, wireTable(withPool(endpoint("e", "/"), "http://c", "http://b", "http://a"), endpoint("f", "/f")), s)
	if got := take(other.Endpoint("e").Pool, 4); got != "cbcb" {
		t.Errorf("another pool gives %s", got)
	}
	moved := compile(t, wireTable(withPool(endpoint("e", "/"), "http://a/x", "http://b"), withPool(endpoint("f", "/f"), "http://a", "http://b")), s)
	if got := take(moved.Endpoint("e").Pool, 2) + take(moved.Endpoint("f").Pool, 2); got != "abab" {
		t.Errorf("another URL and another endpoint give %s", got)
	}
}

func TestTried(t *testing.T) {
	p := compile(t, wireTable(withPool(endpoint("e", "/"), "http://a 3", "http://b", "http://c")), newState()).Endpoint("e").Pool
	var tried table.Tried
	c := table.Choice{Tried: &tried}
	for range 10 {
		tried.Clear()
		seen := map[string]bool{}
		for range 3 {
			m := p.Pick(&c)
			if seen[m.Host] {
				t.Errorf("%s is chosen again", m.Host)
			}
			seen[m.Host] = true
			tried.Add(m)
		}
		if p.Pick(&c) == nil {
			t.Error("nobody is chosen when all have been tried")
		}
	}
}

// When one member fails all that it gets, the others share that evenly.
func TestWhoIsChosenInstead(t *testing.T) {
	p := compile(t, wireTable(withPool(endpoint("e", "/"), "http://a", "http://b", "http://c", "http://d")), newState()).Endpoint("e").Pool
	var tried table.Tried
	chosen := map[string]int{}
	for range 3000 {
		m := pick(p)
		if m.Host == "a" {
			tried.Clear()
			tried.Add(m)
			m = p.Pick(&table.Choice{Tried: &tried})
		}
		chosen[m.Host]++
	}
	if diff := cmp.Diff(map[string]int{"b": 1000, "c": 1000, "d": 1000}, chosen); diff != "" {
		t.Errorf("requests by member (-want +got):\n%s", diff)
	}
}

// While members come and go, every request gets one, and in the end every one its
// due again.
func TestConcurrentRefresh(t *testing.T) {
	p := compile(t, wireTable(withPool(endpoint("e", "/"), "http://a", "http://b", "http://c")), newState()).Endpoint("e").Pool
	var g sync.WaitGroup
	for range 4 {
		g.Go(func() {
			for range 2000 {
				if pick(p) == nil {
					t.Error("nobody is chosen")
				}
			}
		})
	}
	for _, m := range p.Members() {
		g.Go(func() {
			for range 100 {
				m.Health.SetHealthy(false)
				p.Refresh()
				m.Health.SetEjected(true)
				m.Health.SetHealthy(true)
				m.Health.SetEjected(false)
				p.Refresh()
			}
		})
	}
	g.Wait()
	counts := map[string]int{}
	for range 300 {
		counts[pick(p).Host]++
	}
	if diff := cmp.Diff(map[string]int{"a": 100, "b": 100, "c": 100}, counts); diff != "" {
		t.Errorf("requests by member (-want +got):\n%s", diff)
	}
}

func BenchmarkPick(b *testing.B) {
	for name, pool := range map[string][]string{
		"equal":    {"http://a", "http://b"},
		"weighted": {"http://a 3", "http://b"},
	} {
		tab := compile(b, wireTable(withPool(endpoint("e", "/"), pool...)), newState())
		b.Run(name, func(b *testing.B) {
			var c table.Choice
			for b.Loop() {
				tab.Endpoint("e").Pool.Pick(&c)
			}
		})
		b.Run(name+"/parallel", func(b *testing.B) {
			b.RunParallel(func(pb *testing.PB) {
				var c table.Choice
				p := tab.Endpoint("e").Pool
				for pb.Next() {
					p.Pick(&c)
				}
			})
		})
	}
}
