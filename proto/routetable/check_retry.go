package routetable

import (
	routetablev1 "reverseproxy/proto/routetable/v1"
)

// The attempts of a request that may be sent again, in all.
const (
	MinAttempts = 2
	MaxAttempts = 10
)

func (v *validation) retry(w *where, r *routetablev1.Retry) {
	if r == nil {
		return
	}
	v.known("retry", w, r)
	v.check("retry.attempts", w, CheckRange(uint64(r.GetAttempts()), MinAttempts, MaxAttempts))
	if len(r.GetOn()) == 0 {
		v.report("retry.on", w, "is empty; it needs at least one failure")
	}
	for i, on := range r.GetOn() {
		at := &where{w, "retry.on", i}
		if _, known := routetablev1.RetryOn_name[int32(on)]; !known || on == routetablev1.RetryOn_RETRY_ON_UNSPECIFIED {
			v.report("", at, "%d is not known to this release; upgrade the data plane first", on)
		}
		if i > 0 && on <= r.GetOn()[i-1] {
			v.report("", at, "%d does not come after %d; the list must ascend", on, r.GetOn()[i-1])
		}
	}
	if r.GetPerTryTimeout() != nil {
		v.duration("retry.per_try_timeout", w, r.GetPerTryTimeout())
	}
	v.check("retry.budget_percent", w, CheckRange(uint64(r.GetBudgetPercent()), 1, 100))
}
