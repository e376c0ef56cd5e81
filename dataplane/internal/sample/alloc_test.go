//go:build !race

package sample_test

import (
	"testing"

	"reverseproxy/dataplane/internal/sample"
)

func TestKeepingDoesNotAllocate(t *testing.T) {
	s := sample.New(1).Shard(0)
	method, host, path := []byte("GET"), []byte("Shop.Example.com:80"), []byte("/index.html")
	if n := testing.AllocsPerRun(1000, func() {
		s.Due()
		s.Add(method, host, path, "e")
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// BenchmarkOffer is what sampling costs a request: with 100,000 of them between two
// times that the samples are taken, and when each is kept.
func BenchmarkOffer(b *testing.B) {
	method, host, path := []byte("GET"), []byte("shop.example.com"), []byte("/index.html")
	for name, round := range map[string]uint64{"busy": 100_000, "quiet": sample.Most} {
		b.Run(name, func(b *testing.B) {
			set := sample.New(1)
			s := set.Shard(0)
			b.ReportAllocs()
			for n := uint64(1); b.Loop(); n++ {
				if s.Due() {
					s.Add(method, host, path, "e")
				}
				if n%round == 0 {
					b.StopTimer()
					set.Take([]uint64{n})
					b.StartTimer()
				}
			}
		})
	}
}
