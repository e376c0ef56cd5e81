//go:build !race

package limit_test

import (
	"testing"
	"time"

	"reverseproxy/dataplane/internal/limit"
)

func TestPassingDoesNotAllocate(t *testing.T) {
	g := limit.NewGate(10, 10)
	r := rate(1000, time.Second, 10)
	r.TakeOf(1, 1)
	now := int64(1)
	if n := testing.AllocsPerRun(1000, func() {
		g.Enter()
		g.Leave()
		now += int64(time.Millisecond) / 3
		r.Take(now)
		r.TakeOf(r.HashString("192.0.2.1"), now)
		r.TakeOf(r.Hash([]byte("key")), now)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
