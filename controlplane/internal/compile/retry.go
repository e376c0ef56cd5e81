package compile

import (
	"cmp"
	"slices"

	"google.golang.org/protobuf/types/known/durationpb"

	"reverseproxy/controlplane/internal/config"
	"reverseproxy/proto/routetable"
	routetablev1 "reverseproxy/proto/routetable/v1"
)

// retries makes the retry settings of endpoints. Those that leave all to the
// defaults share one message: most do.
type retries struct {
	defaults config.Retry
	shared   *routetablev1.Retry
}

func newRetries(defaults config.Retry) *retries {
	return &retries{defaults: defaults, shared: retry(&defaults)}
}

func (r *retries) get(own *config.Retry) *routetablev1.Retry {
	d := &r.defaults
	resolved := config.Retry{
		Attempts: cmp.Or(own.Attempts, d.Attempts), On: own.On,
		PerTryTimeout: cmp.Or(own.PerTryTimeout, d.PerTryTimeout), BudgetPercent: cmp.Or(own.BudgetPercent, d.BudgetPercent),
	}
	switch {
	case own.Attempts == 0: // so that nothing else is there
		return r.shared
	case own.On == nil:
		resolved.On = d.On
	}
	return retry(&resolved)
}

var failures = map[string]routetablev1.RetryOn{
	"connectFailure": routetablev1.RetryOn_RETRY_ON_CONNECT_FAILURE,
	"reset":          routetablev1.RetryOn_RETRY_ON_RESET,
	"timeout":        routetablev1.RetryOn_RETRY_ON_TIMEOUT,
	"502":            routetablev1.RetryOn_RETRY_ON_502,
	"503":            routetablev1.RetryOn_RETRY_ON_503,
	"504":            routetablev1.RetryOn_RETRY_ON_504,
}

// retry returns nil when nothing is sent again.
func retry(r *config.Retry) *routetablev1.Retry {
	if r.Attempts < routetable.MinAttempts {
		return nil
	}
	out := &routetablev1.Retry{Attempts: r.Attempts, BudgetPercent: r.BudgetPercent}
	for _, failure := range r.On {
		out.On = append(out.On, failures[failure])
	}
	slices.Sort(out.On)
	if r.PerTryTimeout > 0 {
		out.PerTryTimeout = durationpb.New(r.PerTryTimeout)
	}
	return out
}
