package routetable

import (
	"fmt"
	"time"

	routetablev1 "reverseproxy/proto/routetable/v1"
)

// CheckRate says what is wrong with a rate: the time of one request is counted in
// nanoseconds, and must not be too few of them to be exact.
func CheckRate(requests uint32, per time.Duration) error {
	const fastest = time.Microsecond
	if requests > 0 && per/time.Duration(requests) < fastest {
		return fmt.Errorf("%d requests per %s are more than one in %s, the most that is counted", requests, per, fastest)
	}
	return nil
}

// admission checks how much an endpoint and its backends may take.
func (v *validation) admission(w *where, e *routetablev1.Endpoint) {
	v.check("max_requests", w, CheckRange(uint64(e.GetMaxRequests()), 0, MaxRequests))
	limited := e.GetMaxRequests() > 0
	if limited && e.GetAnswer() != nil {
		v.report("max_requests", w, "is set, but nothing is in flight: the endpoint answers by itself")
	}
	for i, b := range e.GetPool() {
		if b.GetMaxRequests() > 0 {
			limited = true
			v.check("max_requests", &where{w, "pool", i}, CheckRange(uint64(b.GetMaxRequests()), 0, MaxRequests))
		}
	}
	if q := e.GetQueue(); q != nil {
		v.known("queue", w, q)
		v.check("queue.size", w, CheckRange(uint64(q.GetSize()), 1, MaxQueue))
		v.duration("queue.timeout", w, q.GetTimeout())
		if !limited {
			v.report("queue", w, "has nothing to wait for: neither the endpoint nor a backend has max_requests")
		}
	}
	if l := e.GetRateLimit(); l != nil {
		v.rateLimit(w, l)
	}
}

func (v *validation) rateLimit(w *where, l *routetablev1.RateLimit) {
	v.known("rate_limit", w, l)
	v.check("rate_limit.requests", w, CheckRange(uint64(l.GetRequests()), 1, MaxRate))
	before := len(v.problems)
	v.duration("rate_limit.per", w, l.GetPer())
	if len(v.problems) == before {
		v.check("rate_limit", w, CheckRate(l.GetRequests(), l.GetPer().AsDuration()))
	}
	v.check("rate_limit.burst", w, CheckRange(uint64(l.GetBurst()), 1, MaxRate))
	k := l.GetKey()
	if k == nil {
		return
	}
	v.known("rate_limit.key", w, k)
	switch k.GetKind() {
	case routetablev1.KeyKind_KEY_KIND_CLIENT_IP:
		if k.GetName() != "" {
			v.report("rate_limit.key.name", w, "is set; only a header has a name")
		}
	case routetablev1.KeyKind_KEY_KIND_HEADER:
		v.check("rate_limit.key.name", w, CheckKeyHeader(k.GetName()))
	default:
		v.report("rate_limit.key.kind", w, "%d is not a property of a request that rates can be counted by", k.GetKind())
	}
}
