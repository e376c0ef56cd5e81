package table_test

import (
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"reverseproxy/dataplane/internal/table"
	routetablev1 "reverseproxy/proto/routetable/v1"
)

// by gives an endpoint a policy, and ConsistentHash a key.
func by(e *routetablev1.Endpoint, p routetablev1.Policy) *routetablev1.Endpoint {
	if p == routetablev1.Policy_POLICY_UNSPECIFIED {
		return e
	}
	e.LoadBalancing = &routetablev1.LoadBalancing{Policy: p}
	if p == routetablev1.Policy_POLICY_CONSISTENT_HASH {
		e.LoadBalancing.Key = &routetablev1.Key{Kind: routetablev1.KeyKind_KEY_KIND_PATH}
	}
	return e
}

const (
	roundRobin     = routetablev1.Policy_POLICY_UNSPECIFIED
	leastRequest   = routetablev1.Policy_POLICY_LEAST_REQUEST
	random         = routetablev1.Policy_POLICY_RANDOM
	consistentHash = routetablev1.Policy_POLICY_CONSISTENT_HASH
)

// balanced makes a pool of "url weight" pairs, in a state of its own.
func balanced(t testing.TB, p routetablev1.Policy, urls ...string) *table.Pool {
	t.Helper()
	return compile(t, wireTable(by(withPool(endpoint("e", "/"), urls...), p)), newState()).Endpoint("e").Pool
}

// keyed is the choice of a request with a key.
func keyed(key string) *table.Choice {
	return &table.Choice{Keyed: true, Hash: table.Hash([]byte(key))}
}

const requests = 10_000

// counts of requests by the hosts of the members that they were given to.
type counts map[string]int

func (c counts) String() string {
	var s []string
	for _, host := range slices.Sorted(maps.Keys(c)) {
		s = append(s, fmt.Sprintf("%s: %d", host, c[host]))
	}
	return strings.Join(s, ", ")
}

// wantShares checks counts of requests that are drawn by lot against their shares: six
// and a half standard deviations off is less probable than 1e-10.
func wantShares(t *testing.T, got counts, shares map[string]float64) {
	t.Helper()
	n := 0
	for _, c := range got {
		n += c
	}
	for host, share := range shares {
		mean := share * float64(n)
		if d := math.Abs(float64(got[host]) - mean); d > 6.5*math.Sqrt(mean*(1-share)) {
			t.Errorf("%s has %d of %d requests, %.0f are its share", host, got[host], n, mean)
		}
	}
}

// The distribution of each policy over 10,000 requests, one after the other.
func TestDistribution(t *testing.T) {
	pool := []string{"http://a 5", "http://b 3", "http://c 2", "http://d 0"}
	shares := map[string]float64{"a": .5, "b": .3, "c": .2}
	draw := rand.New(rand.NewPCG(1, 2))
	for _, policy := range []routetablev1.Policy{roundRobin, leastRequest, random, consistentHash} {
		p := balanced(t, policy, pool...)
		got := counts{}
		for i := range requests {
			c := keyed(fmt.Sprint("user-", i))
			c.Random = draw.Uint64()
			got[p.Pick(c).Host]++
		}
		t.Logf("measured: %v, weights 5, 3, 2 and 0: %v", policy, got)
		if policy == roundRobin {
			if diff := cmp.Diff(counts{"a": 5000, "b": 3000, "c": 2000}, got); diff != "" {
				t.Errorf("round robin is not exact (-want +got):\n%s", diff)
			}
			continue
		}
		if got["d"] != 0 {
			t.Errorf("%v: d, whose weight is 0, has %d requests", policy, got["d"])
		}
		// LeastRequest too: when nobody is busy the first of the two is chosen.
		wantShares(t, got, shares)
	}
}

// Of two the one with fewer requests in flight for its weight is chosen.
func TestLeastRequest(t *testing.T) {
	draw := rand.New(rand.NewPCG(3, 4))
	p := balanced(t, leastRequest, "http://a", "http://b")
	m := p.Members()
	m[0].Health.State.Begin()
	for range 1000 {
		if got := p.Pick(&table.Choice{Random: draw.Uint64()}); got != m[1] {
			t.Fatalf("%s is chosen, which is busier", got.Host)
		}
	}
	m[1].Health.State.Begin()
	got := counts{}
	for range requests {
		got[p.Pick(&table.Choice{Random: draw.Uint64()}).Host]++
	}
	wantShares(t, got, map[string]float64{"a": .5, "b": .5})

	// With 3 in flight a weight of 4 has less to do than a weight of 1 with 1.
	p = balanced(t, leastRequest, "http://a 4", "http://b")
	m = p.Members()
	for range 3 {
		m[0].Health.State.Begin()
	}
	m[1].Health.State.Begin()
	if got := p.Pick(&table.Choice{Random: draw.Uint64()}); got != m[0] {
		t.Errorf("%s is chosen", got.Host)
	}
	m[0].Health.State.Begin()
	m[0].Health.State.Begin()
	if got := p.Pick(&table.Choice{Random: draw.Uint64()}); got != m[1] {
		t.Errorf("%s is chosen", got.Host)
	}
}

// A slow member gets less, in the end, than those that answer: a queue model in which
// a takes ten times as long.
func TestLeastRequestAvoidsASlowMember(t *testing.T) {
	draw := rand.New(rand.NewPCG(5, 6))
	p := balanced(t, leastRequest, "http://a", "http://b", "http://c")
	ends := map[int][]*table.Member{}
	got := counts{}
	for now := range requests {
		for _, m := range ends[now] {
			m.Health.State.End()
		}
		delete(ends, now)
		m := p.Pick(&table.Choice{Random: draw.Uint64()})
		m.Health.State.Begin()
		got[m.Host]++
		takes := 4
		if m.Host == "a" {
			takes = 40
		}
		ends[now+takes] = append(ends[now+takes], m)
	}
	t.Logf("measured: LeastRequest, a ten times slower than b and c: %v", got)
	if got["a"] > got["b"]/2 || got["a"] > got["c"]/2 {
		t.Errorf("the slow one has too many: %v", got)
	}
}

// One key goes to one member, whoever asks and in whichever order the pool is written.
func TestConsistentHashAgrees(t *testing.T) {
	one := balanced(t, consistentHash, "http://a", "http://b 3", "http://c", "http://d")
	two := balanced(t, consistentHash, "http://d", "http://c", "http://b 3", "http://a")
	for i := range requests {
		k := fmt.Sprint(i)
		if a, b := one.Pick(keyed(k)).Host, two.Pick(keyed(k)).Host; a != b {
			t.Fatalf("key %s goes to %s, and to %s", k, a, b)
		}
	}
	// It is the same in every process and release.
	var got strings.Builder
	for i := range 16 {
		got.WriteString(one.Pick(keyed(fmt.Sprint(i))).Host)
	}
	if want := "bddbcbbabcabbaba"; got.String() != want {
		t.Errorf("the first keys go to %s, want %s", got.String(), want)
	}
}

// A member more takes its share of the keys, and hardly any other key moves.
func TestConsistentHashMovesLittle(t *testing.T) {
	urls := func(n int) (list []string) {
		for i := range n {
			list = append(list, fmt.Sprintf("http://10.0.0.%d:8080", i))
		}
		return list
	}
	for _, n := range []int{1, 2, 3, 10, 100} {
		before, after := balanced(t, consistentHash, urls(n)...), balanced(t, consistentHash, urls(n+1)...)
		moved, astray := 0, 0
		for i := range requests {
			k := keyed(fmt.Sprint("key ", i))
			was, is := before.Pick(k).Host, after.Pick(k).Host
			if was != is {
				moved++
				if is != after.Members()[n].Host {
					astray++
				}
			}
		}
		share := 1 / float64(n+1)
		t.Logf("measured: ConsistentHash, %d backends and one more: %d of %d keys move (%.2f %%; 1/n is %.2f %%), %d of them between the others",
			n, moved, requests, 100*float64(moved)/requests, 100*share, astray)
		if mean := share * requests; math.Abs(float64(moved-astray)-mean) > 6.5*math.Sqrt(mean)+.02*mean || astray > requests/20 {
			t.Errorf("%d keys move to the new one, %d elsewhere", moved-astray, astray)
		}
	}
}

func TestConsistentHashKeepsEvenShares(t *testing.T) {
	var pool []string
	shares := map[string]float64{}
	for i := range 100 {
		pool = append(pool, fmt.Sprintf("http://h%d", i))
		shares[fmt.Sprint("h", i)] = .01
	}
	p := balanced(t, consistentHash, pool...)
	got := counts{}
	for i := range 100 * requests {
		got[p.Pick(keyed(fmt.Sprint(i))).Host]++
	}
	least, most := slices.Min(slices.Collect(maps.Values(got))), slices.Max(slices.Collect(maps.Values(got)))
	t.Logf("measured: ConsistentHash, 1,000,000 keys over 100 backends: %d to %d", least, most)
	wantShares(t, got, shares)
}

// A request without a key goes to anybody.
func TestConsistentHashWithoutKey(t *testing.T) {
	draw := rand.New(rand.NewPCG(7, 8))
	p := balanced(t, consistentHash, "http://a 3", "http://b")
	got := counts{}
	for range requests {
		got[p.Pick(&table.Choice{Random: draw.Uint64()}).Host]++
	}
	wantShares(t, got, map[string]float64{"a": .75, "b": .25})
}

// Who is chosen instead of one that has failed is the same everywhere too, and differs
// by key.
func TestConsistentHashChoosesTheSameInstead(t *testing.T) {
	one := balanced(t, consistentHash, "http://a", "http://b", "http://c", "http://d")
	two := balanced(t, consistentHash, "http://a", "http://b", "http://c", "http://d")
	instead := counts{}
	for i := range requests {
		c, d := keyed(fmt.Sprint(i)), keyed(fmt.Sprint(i))
		c.Tried, d.Tried = new(table.Tried), new(table.Tried)
		seen := ""
		for range 4 {
			m, n := one.Pick(c), two.Pick(d)
			if m.Host != n.Host || strings.Contains(seen, m.Host) {
				t.Fatalf("after %q key %d goes to %s, and to %s", seen, i, m.Host, n.Host)
			}
			if seen == "a" {
				instead[m.Host]++
			}
			seen += m.Host
			c.Tried.Add(m)
			d.Tried.Add(n)
		}
	}
	wantShares(t, instead, map[string]float64{"b": 1. / 3, "c": 1. / 3, "d": 1. / 3})
}

// A large pool has a large table: nobody is left out.
func TestConsistentHashOfALargePool(t *testing.T) {
	var pool []string
	for i := range 1200 {
		pool = append(pool, fmt.Sprintf("http://h%d", i))
	}
	p := balanced(t, consistentHash, pool...)
	got := counts{}
	for i := range 200 * 1200 {
		got[p.Pick(keyed(fmt.Sprint(i))).Host]++
	}
	if len(got) != 1200 {
		t.Errorf("%d of 1200 have a share", len(got))
	}
}

func TestBackups(t *testing.T) {
	backup := func(e *routetablev1.Endpoint, hosts string) *routetablev1.Endpoint {
		for _, b := range e.Pool {
			b.Backup = strings.Contains(hosts, b.Url[len("http://"):])
		}
		return e
	}
	tests := []struct {
		name    string
		pool    []string
		backups string
		healthy string
		want    string
	}{
		{"not used", []string{"http://a", "http://b", "http://c"}, "bc", "abc", "aaa"},
		{"not used while one is left", []string{"http://a", "http://b", "http://c"}, "c", "bc", "bbb"},
		{"used when nobody is", []string{"http://a", "http://b", "http://c"}, "bc", "bc", "bcbc"},
		{"one of them is", []string{"http://a", "http://b", "http://c"}, "bc", "c", "ccc"},
		{"used when all others are drained", []string{"http://a 0", "http://b 3", "http://c"}, "bc", "abc", "bbcb"},
		{"nobody is usable: as if all were", []string{"http://a", "http://b", "http://c"}, "c", "", "abab"},
		{"nothing but backups", []string{"http://a", "http://b"}, "ab", "ab", "abab"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			p := compile(t, wireTable(backup(withPool(endpoint("e", "/"), test.pool...), test.backups)), newState()).Endpoint("e").Pool
			setHealthy(p, test.healthy)
			if got := take(p, len(test.want)); got != test.want {
				t.Errorf("got %s, want %s", got, test.want)
			}
		})
	}
}

// When nobody is usable, somebody is told once, and again when that has ended.
func TestPanic(t *testing.T) {
	for _, refuses := range []bool{false, true} {
		s := newState()
		var told []string
		s.OnPanic = func(endpoint string, panicking, refuses bool) {
			told = append(told, fmt.Sprintf("%s %t %t", endpoint, panicking, refuses))
		}
		e := withPool(endpoint("e", "/"), "http://a", "http://b", "http://c 0")
		e.RefuseWhenUnhealthy = refuses
		p := compile(t, wireTable(e), s).Endpoint("e").Pool
		want := map[bool]string{false: "abab", true: "-"}[refuses]
		for range 2 {
			setHealthy(p, "c") // which is drained
			if got := take(p, 4); got != want || p.Unhealthy() != refuses {
				t.Errorf("refuses %t: got %s, want %s; unhealthy: %t", refuses, got, want, p.Unhealthy())
			}
		}
		// It goes on in the next table, with another pool.
		e.Pool[0].Weight = 2
		p = compile(t, wireTable(e), s).Endpoint("e").Pool
		setHealthy(p, "")
		setHealthy(p, "b")
		if got := take(p, 3); got != "bbb" || p.Unhealthy() {
			t.Errorf("refuses %t: got %s, want bbb; unhealthy: %t", refuses, got, p.Unhealthy())
		}
		if diff := cmp.Diff([]string{fmt.Sprintf("e true %t", refuses), fmt.Sprintf("e false %t", refuses)}, told); diff != "" {
			t.Errorf("told (-want +got):\n%s", diff)
		}
	}
}

// What a pool sees that has been replaced, or that has never been in force, is no news.
func TestPanicOfAnotherPool(t *testing.T) {
	s := newState()
	var told []bool
	s.OnPanic = func(_ string, panicking, _ bool) { told = append(told, panicking) }
	rt := func(urls ...string) *routetablev1.RouteTable { return wireTable(withPool(endpoint("e", "/"), urls...)) }
	first := inForce(t, rt("http://a", "http://b"), nil, s)
	second := inForce(t, rt("http://a"), first, s)
	setHealthy(second.Endpoint("e").Pool, "")
	first.Endpoint("e").Pool.Refresh() // b is healthy
	if diff := cmp.Diff([]bool{true}, told); diff != "" {
		t.Errorf("told (-want +got):\n%s", diff)
	}
	never := compile(t, rt("http://c"), s)
	never.Warm(second)
	s.Retain(second)
	if diff := cmp.Diff([]bool{true, false, true}, told); diff != "" {
		t.Errorf("told in the end (-want +got):\n%s", diff)
	}
}

// That nobody may get a request because all are drained is no panic.
func TestDrainedIsNoPanic(t *testing.T) {
	s := newState()
	s.OnPanic = func(string, bool, bool) { t.Error("somebody is told") }
	p := compile(t, wireTable(withPool(endpoint("e", "/"), "http://a 0")), s).Endpoint("e").Pool
	setHealthy(p, "")
	if p.Pick(&table.Choice{}) != nil || p.Unhealthy() {
		t.Error("a drained pool is not empty, or unhealthy")
	}
}

// Settings change without a new turn of the round robin.
func TestCycleContinuesOverSettings(t *testing.T) {
	s := newState()
	e := withPool(endpoint("e", "/"), "http://a", "http://b", "http://c")
	got := take(compile(t, wireTable(e), s).Endpoint("e").Pool, 1)
	e.RefuseWhenUnhealthy = true
	got += take(compile(t, wireTable(e), s).Endpoint("e").Pool, 1)
	by(e, random)
	second := compile(t, wireTable(e), s).Endpoint("e").Pool
	if second.Policy != table.Random {
		t.Errorf("the policy is %v", second.Policy)
	}
	e.LoadBalancing = nil
	if got += take(compile(t, wireTable(e), s).Endpoint("e").Pool, 2); got != "abca" {
		t.Errorf("got %s, want abca", got)
	}
}

func BenchmarkPolicy(b *testing.B) {
	var pool []string
	for i := range 10 {
		pool = append(pool, fmt.Sprintf("http://h%d %d", i, 1+i%3))
	}
	for _, policy := range []routetablev1.Policy{roundRobin, leastRequest, random, consistentHash} {
		p := balanced(b, policy, pool...)
		b.Run(policy.String(), func(b *testing.B) {
			c := keyed("a")
			b.ReportAllocs()
			for b.Loop() {
				c.Random += 0x9e3779b97f4a7c15
				c.Hash += 0x9e3779b97f4a7c15
				p.Pick(c)
			}
		})
	}
}

func BenchmarkRefreshConsistentHash(b *testing.B) {
	for _, n := range []int{3, 100, 2000} {
		var pool []string
		for i := range n {
			pool = append(pool, fmt.Sprintf("http://h%d", i))
		}
		p := balanced(b, consistentHash, pool...)
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				p.Refresh()
			}
		})
	}
}

// Members that are full are passed over, by every policy; when all are there is none.
func TestPickPassesOverTheFull(t *testing.T) {
	for _, policy := range []routetablev1.Policy{roundRobin, leastRequest, random, consistentHash} {
		t.Run(policy.String(), func(t *testing.T) {
			e := by(withPool(endpoint("e", "/"), "http://a 1", "http://b 1", "http://c 1"), policy)
			for i, b := range e.Pool {
				b.MaxRequests = uint32(i + 1)
			}
			p := compile(t, wireTable(e), newState()).Endpoint("e").Pool
			inFlight := map[string]uint32{}
			for i := range uint64(6) {
				m := p.Pick(&table.Choice{Random: i * 0x9e3779b97f4a7c15, Hash: 1, Keyed: true})
				if m == nil || !m.TryBegin(0) {
					t.Fatalf("request %d finds nobody", i)
				}
				inFlight[m.URL]++
			}
			if diff := cmp.Diff(map[string]uint32{"http://a": 1, "http://b": 2, "http://c": 3}, inFlight); diff != "" {
				t.Errorf("in flight (-want +got):\n%s", diff)
			}
			if m := p.Pick(&table.Choice{}); m != nil || !p.Full() {
				t.Errorf("picked %v while all are full, which it says: %t", m, p.Full())
			}
			b := p.Members()[1]
			if b.TryBegin(0) {
				t.Error("a full member has taken one more")
			}
			b.End(0)
			if m := p.Pick(&table.Choice{}); m != b {
				t.Errorf("picked %v, want the one with room", m)
			}
		})
	}
}
