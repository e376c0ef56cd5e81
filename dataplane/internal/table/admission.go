package table

import (
	"slices"
	"time"

	"reverseproxy/dataplane/internal/limit"
	routetablev1 "reverseproxy/proto/routetable/v1"
)

// Admission is what lets the requests of an endpoint in.
type Admission struct {
	// Rate bounds how many come in a time; nil: any number may. Those of each client
	// address, or of each value of a header field, may be counted apart.
	Rate     *limit.Rate
	ByClient bool
	ByHeader string // in lower case; empty: by none
	// Gate bounds how many are in flight, and keeps those in line that wait for that,
	// or for a backend; nil: any number, and nobody waits.
	Gate *limit.Gate
	// Patience is how long one waits; 0: there is no line.
	Patience time.Duration

	rule       limit.Rule // of Rate; its zero value: there is none
	most, size int        // of Gate
}

// admissionOf returns that of an endpoint, which counts nothing yet; nil: everything is
// let in, and no backend is ever full.
func admissionOf(w *routetablev1.Endpoint) *Admission {
	r := w.GetRateLimit()
	a := &Admission{
		most: int(w.GetMaxRequests()), size: int(w.GetQueue().GetSize()), Patience: w.GetQueue().GetTimeout().AsDuration(),
	}
	limited := func(b *routetablev1.Backend) bool { return b.GetMaxRequests() > 0 }
	if r == nil && a.most == 0 && !slices.ContainsFunc(w.GetPool(), limited) {
		return nil
	}
	if r != nil {
		a.rule = limit.Rule{Requests: r.GetRequests(), Burst: r.GetBurst(), Per: r.GetPer().AsDuration()}
	}
	switch k := r.GetKey(); k.GetKind() {
	case routetablev1.KeyKind_KEY_KIND_CLIENT_IP:
		a.ByClient = true
	case routetablev1.KeyKind_KEY_KIND_HEADER:
		a.ByHeader = k.GetName()
	}
	return a
}

// joinAdmission gives an endpoint what its name has been counting. before is the one of
// its name that was in use before, nil if there was none.
func (e *Endpoint) joinAdmission(s *State, before *Endpoint) {
	if before != nil {
		e.gate = before.gate
	}
	a := e.Admission
	e.Metrics.SetLimited(a != nil)
	if a == nil {
		return
	}
	switch {
	case a.rule.Requests == 0:
	case before != nil && a.sameRate(before.Admission):
		a.Rate = before.Admission.Rate
	default:
		a.Rate = limit.NewRate(a.rule, &s.Fleet)
	}
	if a.most == 0 && a.size == 0 {
		return
	}
	if e.gate == nil {
		e.gate = limit.NewGate(a.most, a.size)
	}
	a.Gate = e.gate
}

func (a *Admission) sameRate(o *Admission) bool {
	return o != nil && a.rule == o.rule && a.ByClient == o.ByClient && a.ByHeader == o.ByHeader
}

// enforce has the limits of an endpoint hold from now on, its table being in force, also
// for those that wait already.
func (e *Endpoint) enforce() {
	for _, m := range e.Pool.Members() {
		m.Health.SetMost(int64(m.MaxRequests))
	}
	switch {
	case e.gate == nil:
	case e.Admission == nil:
		e.gate.Set(0, 0)
	default:
		e.gate.Set(e.Admission.most, e.Admission.size)
	}
}
