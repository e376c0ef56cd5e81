package table

import (
	"sync"
	"time"

	"reverseproxy/dataplane/internal/metrics"
	routetablev1 "reverseproxy/proto/routetable/v1"
)

const (
	// budgetSeconds is the time over which retries are a part of the requests.
	budgetSeconds = 10
	// freeRetries is how many retries in a second are allowed whatever their part:
	// of few requests a part is nothing.
	freeRetries = 3
)

// Retry says when requests of an endpoint that failed are sent again. Any
// goroutine may use it.
type Retry struct {
	Attempts int           // in all; at least 2
	PerTry   time.Duration // for one attempt, until the head of its response; 0: none

	on      uint8 // a bit for each metrics.RetryReason
	percent uint64
	budget  *budget
}

// reasons are the wire's failures.
var reasons = map[routetablev1.RetryOn]metrics.RetryReason{
	routetablev1.RetryOn_RETRY_ON_CONNECT_FAILURE: metrics.RetryConnectFailure,
	routetablev1.RetryOn_RETRY_ON_RESET:           metrics.RetryReset,
	routetablev1.RetryOn_RETRY_ON_TIMEOUT:         metrics.RetryTimeout,
	routetablev1.RetryOn_RETRY_ON_502:             metrics.Retry502,
	routetablev1.RetryOn_RETRY_ON_503:             metrics.Retry503,
	routetablev1.RetryOn_RETRY_ON_504:             metrics.Retry504,
}

// newRetry returns nil when nothing is sent again.
func newRetry(w *routetablev1.Retry) *Retry {
	if w == nil {
		return nil
	}
	r := &Retry{
		Attempts: int(w.GetAttempts()), PerTry: w.GetPerTryTimeout().AsDuration(),
		percent: uint64(w.GetBudgetPercent()), budget: &budget{},
	}
	for _, on := range w.GetOn() {
		r.on |= 1 << reasons[on]
	}
	return r
}

// share makes r go on with the budget of the endpoint's last table.
func (r *Retry) share(before *Retry) {
	if r != nil && before != nil {
		r.budget = before.budget
	}
}

// On reports whether requests are sent again after such a failure.
func (r *Retry) On(kind metrics.RetryReason) bool { return r.on>>kind&1 != 0 }

// Take takes one retry out of the budget, if there is one left. now is a time in
// nanoseconds that all callers share, requests the number of the endpoint's so far.
func (r *Retry) Take(now int64, requests uint64) bool { return r.budget.take(now, requests, r.percent) }

// budget knows how many requests and retries there were in the last seconds. It is
// looked at only when a retry is wanted: what requests there were before the first
// look in that time is not known and not counted. It outlives tables.
type budget struct {
	mu    sync.Mutex
	slots [budgetSeconds]second
}

// second is one second in which somebody looked.
type second struct {
	number   int64  // plus 1; 0: none
	requests uint64 // before the first look
	retries  uint64
}

func (b *budget) take(now int64, requests, percent uint64) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	number := now/int64(time.Second) + 1
	current := &b.slots[number%budgetSeconds]
	if current.number != number {
		*current = second{number: number, requests: requests}
	}
	before, retries := requests, uint64(0)
	for i := range b.slots {
		if s := &b.slots[i]; s.number > number-budgetSeconds && s.number > 0 {
			before = min(before, s.requests)
			retries += s.retries
		}
	}
	if retries >= freeRetries*budgetSeconds+(requests-before)*percent/100 {
		return false
	}
	current.retries++
	return true
}
