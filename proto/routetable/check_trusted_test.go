package routetable_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"reverseproxy/proto/routetable"
)

func TestTrustedProxies(t *testing.T) {
	tests := []struct {
		name     string
		prefixes []string
		want     []string
	}{
		{"good", []string{"10.0.0.0/8", "192.0.2.7/32", "2001:db8::/32", "::/0"}, nil},
		{"no prefix", []string{"10.0.0.0"}, []string{`trusted_proxies[0]: "10.0.0.0" is not an address prefix such as 10.0.0.0/8 or 2001:db8::/32`}},
		{"bits", []string{"10.0.0.1/8"}, []string{`trusted_proxies[0]: "10.0.0.1/8" is not in the canonical form; write "10.0.0.0/8"`}},
		{"other notation", []string{"2001:DB8::/32"}, []string{`trusted_proxies[0]: "2001:DB8::/32" is not in the canonical form; write "2001:db8::/32"`}},
		{"IPv4 as IPv6", []string{"::ffff:10.0.0.0/104"}, []string{`trusted_proxies[0]: "::ffff:10.0.0.0/104" is an IPv4 address in the form of an IPv6 one; write it as IPv4`}},
		{"twice", []string{"::/0", "::/0"}, []string{`trusted_proxies[1]: "::/0" is there twice`}},
		{"not sorted", []string{"::1/128", "10.0.0.0/8"}, []string{`trusted_proxies[1]: "10.0.0.0/8" comes after "::1/128"; the list must be sorted`}},
		{"too many", many(10_001), []string{"trusted_proxies: has 10001 prefixes; at most 10000 are allowed"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			table := small()
			table.TrustedProxies = test.prefixes
			var got []string
			for _, p := range routetable.Problems(routetable.Validate(table)) {
				got = append(got, p.Error())
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("problems (-want +got):\n%s", diff)
			}
		})
	}
}

// many returns n prefixes, sorted.
func many(n int) (list []string) {
	for i := range n {
		list = append(list, fmt.Sprintf("10.0.%d.%d/32", i/256, i%256))
	}
	slices.Sort(list)
	return list
}
