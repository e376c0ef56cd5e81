//go:build !race

package proxyprotocol_test

import (
	"testing"

	"reverseproxy/dataplane/internal/proxyprotocol"
)

func TestDoesNotAllocate(t *testing.T) {
	for _, tt := range good {
		p := []byte(tt.header)
		if n := testing.AllocsPerRun(100, func() { _, _, _ = proxyprotocol.Parse(p) }); n != 0 {
			t.Errorf("%s: %v allocations", tt.name, n)
		}
	}
}
