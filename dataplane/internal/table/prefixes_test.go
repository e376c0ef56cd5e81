package table_test

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"reverseproxy/dataplane/internal/table"
)

// trusting compiles a table that trusts these prefixes.
func trusting(t testing.TB, prefixes ...string) *table.Table {
	rt := wireTable()
	slices.Sort(prefixes)
	rt.TrustedProxies = slices.Compact(prefixes)
	return compile(t, rt, newState())
}

func TestTrustedProxies(t *testing.T) {
	if got := compile(t, wireTable(), newState()).TrustedProxies; got != nil {
		t.Errorf("a table without trusted proxies has %v", got)
	}
	trusted := trusting(t, "10.0.0.0/8", "192.0.2.7/32", "2001:db8::/32", "::1/128").TrustedProxies
	for address, want := range map[string]bool{
		"10.0.0.0": true, "10.255.255.255": true, "11.0.0.0": false, "9.255.255.255": false,
		"192.0.2.7": true, "192.0.2.6": false, "192.0.2.8": false,
		"2001:db8::": true, "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff": true, "2001:db9::": false, "::1": true, "::2": false, "::": false,
		"0.0.0.0": false, "255.255.255.255": false, "a00::": false,
	} {
		if got := trusted.Contains(netip.MustParseAddr(address)); got != want {
			t.Errorf("%s: %t", address, got)
		}
	}
	if trusted.Contains(netip.Addr{}) {
		t.Error("no address is trusted")
	}
	all := trusting(t, "0.0.0.0/0", "::/0").TrustedProxies
	for _, address := range []string{"0.0.0.0", "255.255.255.255", "::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"} {
		if !all.Contains(netip.MustParseAddr(address)) {
			t.Errorf("%s is not in all", address)
		}
	}
}

// The set against all its prefixes, one after the other.
func TestPrefixesAgreeWithAScan(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	inside := 0
	for range 300 {
		var prefixes []netip.Prefix
		var list []string
		for range 1 + random.IntN(40) {
			p := randomPrefix(random)
			prefixes, list = append(prefixes, p), append(list, p.String())
		}
		set := trusting(t, list...).TrustedProxies
		for range 200 {
			a := randomPrefix(random).Addr()
			if random.IntN(2) == 0 {
				a = prefixes[random.IntN(len(prefixes))].Addr()
			}
			switch random.IntN(3) {
			case 0:
				a = a.Next()
			case 1:
				a = a.Prev()
			}
			want := slices.ContainsFunc(prefixes, func(p netip.Prefix) bool { return p.Contains(a) })
			if set.Contains(a) != want {
				t.Fatalf("%v in %v: want %t", a, list, want)
			}
			if want {
				inside++
			}
		}
	}
	if inside < 10_000 {
		t.Errorf("only %d addresses are in a prefix", inside)
	}
}

// randomPrefix returns one of few, so that prefixes meet.
func randomPrefix(random *rand.Rand) netip.Prefix {
	if random.IntN(2) == 0 {
		return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, byte(random.IntN(3)), byte(random.IntN(256))}), 16+random.IntN(17)).Masked()
	}
	return netip.PrefixFrom(netip.AddrFrom16([16]byte{0: 0x20, 14: byte(random.IntN(3)), 15: byte(random.IntN(256))}), 104+random.IntN(25)).Masked()
}

func BenchmarkPrefixes(b *testing.B) {
	random := rand.New(rand.NewPCG(1, 2))
	var list []string
	for range 300 {
		list = append(list, netip.PrefixFrom(netip.AddrFrom4([4]byte{byte(random.IntN(256)), byte(random.IntN(256))}), 20).Masked().String())
	}
	set := trusting(b, list...).TrustedProxies
	a := netip.MustParseAddr("192.0.2.1")
	for b.Loop() {
		set.Contains(a)
	}
}
