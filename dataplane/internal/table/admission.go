package table

import (
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

	rule limit.Rule // of Rate
}

// admissionOf returns that of an endpoint, which counts nothing yet; nil: everything is let
// in.
func admissionOf(w *routetablev1.Endpoint) *Admission {
	r := w.GetRateLimit()
	if r == nil {
		return nil
	}
	l := &Admission{rule: limit.Rule{Requests: r.GetRequests(), Burst: r.GetBurst(), Per: r.GetPer().AsDuration()}}
	switch k := r.GetKey(); k.GetKind() {
	case routetablev1.KeyKind_KEY_KIND_CLIENT_IP:
		l.ByClient = true
	case routetablev1.KeyKind_KEY_KIND_HEADER:
		l.ByHeader = k.GetName()
	}
	return l
}

// joinAdmission gives an endpoint what its name has been counting, as far as it stays the
// same. before is the one of its name that was in use before, nil if there was none.
func (e *Endpoint) joinAdmission(s *State, before *Endpoint) {
	l := e.Admission
	e.Metrics.SetLimited(l != nil)
	if l == nil {
		return
	}
	if before != nil && l.sameRate(before.Admission) {
		l.Rate = before.Admission.Rate
	} else {
		l.Rate = limit.NewRate(l.rule, &s.Fleet)
	}
}

func (l *Admission) sameRate(o *Admission) bool {
	return o != nil && l.rule == o.rule && l.ByClient == o.ByClient && l.ByHeader == o.ByHeader
}
