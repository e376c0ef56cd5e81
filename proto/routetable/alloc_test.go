//go:build !race

package routetable_test

import (
	"testing"

	"reverseproxy/proto/routetable"
	routetablev1 "reverseproxy/proto/routetable/v1"
)

// What a control plane sends is decoded without garbage, however much it is.
func TestScanDoesNotAllocatePerEndpoint(t *testing.T) {
	allocations := func(n int) float64 {
		table := large(n)
		full := small().Endpoints[1]
		for _, e := range table.Endpoints {
			e.Hosts, e.Methods, e.Headers, e.ReplaceHost = full.Hosts, full.Methods, full.Headers, true
		}
		data := marshal(t, table)
		return testing.AllocsPerRun(5, func() {
			if _, _, err := routetable.Scan(data, func(*routetablev1.Endpoint, int, int) {}); err != nil {
				t.Fatal(err)
			}
		})
	}
	if few, many := allocations(10), allocations(1000); many != few {
		t.Errorf("%v allocations for 10 endpoints, %v for 1000", few, many)
	}
}
