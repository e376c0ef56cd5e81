package sample_test

import (
	"fmt"
	"math"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"reverseproxy/dataplane/internal/sample"
	"reverseproxy/proto/routetable"
)

// offer gives a shard requests as a loop does.
func offer(s *sample.Shard, method, host, path, endpoint string) {
	if s.Due() {
		s.Add([]byte(method), []byte(host), []byte(path), endpoint)
	}
}

func TestFewRequestsAreAllKept(t *testing.T) {
	s := sample.New(2)
	if got := s.Take([]uint64{0, 0}); got != nil {
		t.Errorf("samples of nothing: %v", got)
	}
	offer(s.Shard(0), "GET", "Shop.Example.com:8080", "/a%2Fb", "home")
	if got := s.Take([]uint64{0, 0}); got != nil {
		t.Errorf("samples of what is not answered yet: %v", got)
	}
	want := []sample.Sample{{Method: "GET", Host: "shop.example.com", Path: "/a%2Fb", Endpoint: "home", Weight: 1}}
	if diff := cmp.Diff(want, s.Take([]uint64{1, 0})); diff != "" {
		t.Errorf("samples (-want +got):\n%s", diff)
	}
	// One that was answered and not kept counts with the next that is.
	if got := s.Take([]uint64{1, 1}); got != nil {
		t.Errorf("samples of a request that was not kept: %v", got)
	}
	offer(s.Shard(1), "POST", "", "/", "")
	want = []sample.Sample{{Method: "POST", Path: "/", Weight: 2}}
	if diff := cmp.Diff(want, s.Take([]uint64{1, 2})); diff != "" {
		t.Errorf("samples (-want +got):\n%s", diff)
	}
}

func TestLongRequestsAreNotKept(t *testing.T) {
	s := sample.New(1)
	long := "/" + strings.Repeat("x", routetable.MaxSamplePath)
	offer(s.Shard(0), "GET", "h", long, "")
	offer(s.Shard(0), strings.Repeat("M", 300), "h", "/", "")
	offer(s.Shard(0), "GET", strings.Repeat("h", 200), long[:routetable.MaxSamplePath], "")
	offer(s.Shard(0), "GET", "h", long[:routetable.MaxSamplePath], "")
	if got := s.Take([]uint64{4}); len(got) != 1 || got[0].Weight != 4 || got[0].Path != long[:routetable.MaxSamplePath] {
		t.Errorf("samples: %v", got)
	}
}

// Each request has the same chance, whenever it comes in a round and whichever loop it
// meets. Of 20 parts, each has 5 % of the samples in the end: 2,000 of 40,000, give or
// take 43 (one standard deviation), so that ten times as much is not chance.
func TestEachRequestHasTheSameChance(t *testing.T) {
	const rounds, parts, requests = 400, 20, 1000
	s := sample.New(2)
	answered := []uint64{0, 0}
	counts := map[string]int{}
	for range rounds {
		for part := range parts {
			path := fmt.Sprint("/", part)
			for range requests {
				shard := 0
				if part%4 == 3 { // a quarter of the requests
					shard = 1
				}
				offer(s.Shard(shard), "GET", "h", path, "")
				answered[shard]++
			}
		}
		sum := 0.0
		got := s.Take(answered)
		for _, x := range got {
			counts[x.Path]++
			sum += x.Weight
		}
		if len(got) != sample.Most || math.Abs(sum-parts*requests) > 0.01 {
			t.Fatalf("%d samples with a weight of %v in all", len(got), sum)
		}
	}
	const fair = rounds * sample.Most / parts
	for path, n := range counts {
		if math.Abs(float64(n-fair)) > 430 {
			t.Errorf("%s was chosen %d times, want about %d", path, n, fair)
		}
	}
}

// A quiet time after a busy one is sampled from its first request on.
func TestQuietAfterBusy(t *testing.T) {
	s := sample.New(1)
	for range 1_000_000 {
		offer(s.Shard(0), "GET", "h", "/busy", "")
	}
	s.Take([]uint64{1_000_000})
	offer(s.Shard(0), "GET", "h", "/quiet", "")
	if got := s.Take([]uint64{1_000_001}); len(got) != 1 || got[0].Path != "/quiet" {
		t.Errorf("samples: %v", got)
	}
}

// Loops go on while samples are taken, and the weights lose nothing.
func TestTakeDuringRequests(t *testing.T) {
	const shards, requests = 2, 200_000
	s := sample.New(shards)
	var loops sync.WaitGroup
	for i := range shards {
		loops.Go(func() {
			for range requests {
				offer(s.Shard(i), "GET", "h", "/x", "e")
			}
		})
	}
	done := make(chan struct{})
	go func() { loops.Wait(); close(done) }()
	answered := []uint64{0, 0}
	sum := 0.0
	take := func() {
		answered[0] += 10
		answered[1]++
		for _, x := range s.Take(answered) {
			if x != (sample.Sample{Method: "GET", Host: "h", Path: "/x", Endpoint: "e", Weight: x.Weight}) {
				t.Fatalf("a sample that was never given: %+v", x)
			}
			sum += x.Weight
		}
	}
	for {
		select {
		case <-done:
		default:
			take()
			continue
		}
		break
	}
	offer(s.Shard(0), "GET", "h", "/x", "e")
	take()
	if want := float64(answered[0] + answered[1]); math.Abs(sum-want) > 1e-6*want {
		t.Errorf("the weights are %v in all, want %v", sum, want)
	}
}
