package table_test

import (
	"math/rand/v2"
	"testing"
	"time"

	routetablev1 "reverseproxy/proto/routetable/v1"
)

// withRetry has requests of an endpoint sent again.
func withRetry(e *routetablev1.Endpoint, percent uint32) *routetablev1.Endpoint {
	e.Retry = &routetablev1.Retry{
		Attempts: 2, BudgetPercent: percent, On: []routetablev1.RetryOn{routetablev1.RetryOn_RETRY_ON_RESET, routetablev1.RetryOn_RETRY_ON_503},
	}
	return e
}

// TestRetryBudget compares it with lists of all that has happened.
func TestRetryBudget(t *testing.T) {
	const percent, free, window = 20, 30, 10
	for seed := range uint64(20) {
		random := rand.New(rand.NewPCG(seed, 3))
		s := newState()
		r := inForce(t, wireTable(withRetry(endpoint("a", "/a"), percent)), nil, s).Endpoint("a").Retry
		now, requests := int64(1), uint64(0)
		type look struct {
			second   int64
			requests uint64
			taken    bool
		}
		var looks []look
		for range 3000 {
			now += random.Int64N(1 + random.Int64N(int64(40*time.Millisecond)))
			if random.IntN(500) == 0 {
				now += random.Int64N(int64(15 * time.Second))
			}
			requests += random.Uint64N(4)
			second := now / int64(time.Second)
			looks = append(looks, look{second: second, requests: requests})
			first, retries := requests, uint64(0)
			for _, l := range looks {
				if l.second > second-window {
					first = min(first, l.requests)
					if l.taken {
						retries++
					}
				}
			}
			want := retries < free+(requests-first)*percent/100
			if got := r.Take(now, requests); got != want {
				t.Fatalf("seed %d: at %d s with %d retries of %d requests: %t", seed, second, retries, requests-first, got)
			}
			looks[len(looks)-1].taken = want
		}
	}
}

// TestRetryBudgetOutlivesTables, and so do those of other endpoints not mix with it.
func TestRetryBudgetOutlivesTables(t *testing.T) {
	s := newState()
	first := inForce(t, wireTable(withRetry(endpoint("a", "/a"), 1), withRetry(endpoint("b", "/b"), 1)), nil, s)
	for first.Endpoint("a").Retry.Take(1, 0) {
	}
	second := inForce(t, wireTable(withRetry(endpoint("a", "/c"), 2), endpoint("b", "/b")), first, s)
	if second.Endpoint("a").Retry.Take(1, 0) {
		t.Error("a new table has brought a new budget")
	}
	if second.Endpoint("b").Retry != nil {
		t.Error("retries without being asked for")
	}
	if !first.Endpoint("b").Retry.Take(1, 0) {
		t.Error("one endpoint has used up the budget of another")
	}
}
