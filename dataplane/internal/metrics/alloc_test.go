//go:build !race

package metrics_test

import (
	"testing"
	"time"

	"reverseproxy/dataplane/internal/metrics"
)

func TestCountingDoesNotAllocate(t *testing.T) {
	s := metrics.NewSet(2)
	e := s.Endpoint("e")
	b := e.Backend("http://a")
	r := &metrics.Request{Method: "GET", Code: 200, Duration: time.Second, BytesIn: 1, BytesOut: 2, ByProxy: true}
	if n := testing.AllocsPerRun(100, func() {
		s.Connections(1, metrics.Active, 1)
		e.Begin(1)
		b.Response(1, 200, time.Second)
		b.Error(1, metrics.Reset)
		e.End(1, r)
		s.None().Begin(1)
		s.None().End(1, r)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
