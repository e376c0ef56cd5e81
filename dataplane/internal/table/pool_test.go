package table_test

import (
	"strings"
	"sync"
	"testing"

	"reverseproxy/dataplane/internal/table"
)

// take returns the letters that end the hosts of the next n backends.
func take(p *table.Pool, n int) string {
	var s strings.Builder
	for range n {
		b := p.Next()
		if b == nil {
			return s.String() + "-"
		}
		s.WriteString(b.Host)
	}
	return s.String()
}

func TestNext(t *testing.T) {
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
func TestNextIsExactOverGoroutines(t *testing.T) {
	tab := compile(t, wireTable(withPool(endpoint("e", "/"), "http://a 3", "http://b 1", "http://c 2")), newState())
	const goroutines, rounds = 8, 600
	counts := make([]map[string]int, goroutines)
	var g sync.WaitGroup
	for i := range goroutines {
		g.Go(func() {
			counts[i] = map[string]int{}
			for range rounds {
				counts[i][tab.Endpoint("e").Pool.Next().Host]++
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

func BenchmarkNext(b *testing.B) {
	for name, pool := range map[string][]string{
		"equal":    {"http://a", "http://b"},
		"weighted": {"http://a 3", "http://b"},
	} {
		tab := compile(b, wireTable(withPool(endpoint("e", "/"), pool...)), newState())
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				tab.Endpoint("e").Pool.Next()
			}
		})
	}
}
