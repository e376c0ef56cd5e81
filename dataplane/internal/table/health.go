package table

import (
	"time"

	"google.golang.org/protobuf/proto"

	routetablev1 "reverseproxy/proto/routetable/v1"
)

// ActiveCheck is how the health of a backend is probed; see the message of this
// name in routetable.proto.
type ActiveCheck struct {
	TCP                        bool
	Method, Path, Host         string
	Headers                    []HeaderField
	Expect                     []StatusRange
	Body                       string
	Port                       uint16 // 0: the backend's
	Interval, Timeout          time.Duration
	JitterPercent              int
	HealthyAfter, FailingAfter int

	// Identity is equal for equal checks, and for no others.
	Identity string
}

// HeaderField is a field of a probe.
type HeaderField struct{ Name, Value string }

// StatusRange is a range of status codes, both included.
type StatusRange struct{ First, Last int }

// PassiveCheck is when a backend that fails requests is ejected.
type PassiveCheck struct {
	Failures   uint32 // in a row
	EjectFor   time.Duration
	MaxPercent int // of the pool's members
	On5xx      bool
}

// activeCheck returns nil when there is none.
func activeCheck(w *routetablev1.ActiveCheck) *ActiveCheck {
	if w == nil {
		return nil
	}
	identity, err := proto.MarshalOptions{Deterministic: true}.Marshal(w)
	if err != nil {
		panic("an active check cannot be encoded: " + err.Error())
	}
	c := &ActiveCheck{
		TCP:    w.GetTcp(),
		Method: w.GetMethod(), Path: w.GetPath(), Host: w.GetHost(),
		Body:     w.GetExpectBody(),
		Port:     uint16(w.GetPort()),
		Interval: w.GetInterval().AsDuration(), Timeout: w.GetTimeout().AsDuration(),
		JitterPercent: int(w.GetJitterPercent()),
		HealthyAfter:  int(w.GetHealthyAfter()), FailingAfter: int(w.GetUnhealthyAfter()),
		Identity: string(identity),
	}
	for _, h := range w.GetHeaders() {
		c.Headers = append(c.Headers, HeaderField{h.GetName(), h.GetValue()})
	}
	for _, r := range w.GetExpectStatus() {
		c.Expect = append(c.Expect, StatusRange{int(r.GetFirst()), int(r.GetLast())})
	}
	return c
}

// passiveCheck returns nil when there is none.
func passiveCheck(w *routetablev1.PassiveCheck) *PassiveCheck {
	if w == nil {
		return nil
	}
	return &PassiveCheck{
		Failures: w.GetConsecutiveFailures(), EjectFor: w.GetEjectFor().AsDuration(),
		MaxPercent: int(w.GetMaxEjectedPercent()), On5xx: w.GetOn_5Xx(),
	}
}
