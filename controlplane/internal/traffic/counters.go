package traffic

import (
	"time"

	"reverseproxy/proto/routetable"
	routetablev1 "reverseproxy/proto/routetable/v1"
)

// Buckets is the number of buckets in which requests are counted by their duration.
const Buckets = len(routetable.DurationBounds) + 1

// Counters is what a data plane has done since its process started, or between two
// moments.
type Counters struct {
	// Process is another number when the data plane has been started again: its
	// counters have begun at zero then. Never 0 in what the Store returns.
	Process uint64
	// Version of the route table that it served when it told.
	Version string
	// At is when it told.
	At time.Time

	// Requests answered; ServerErrors those of them with a status of 500 or more;
	// GatewayErrors those of these that the proxy answered for want of a backend.
	Requests, ServerErrors, GatewayErrors uint64
	// Durations are requests by how long they took; not cumulative.
	Durations [Buckets]uint64
}

// countersOf reads what a heartbeat tells, without Process. Durations in other buckets
// than ours are left out.
func countersOf(h *routetablev1.Heartbeat, at time.Time) Counters {
	t := h.GetTraffic()
	c := Counters{
		Version: h.GetState().GetVersion(), At: at,
		Requests: t.GetRequests(), ServerErrors: t.GetServerErrors(), GatewayErrors: t.GetGatewayErrors(),
	}
	if len(t.GetDurations()) == Buckets {
		copy(c.Durations[:], t.GetDurations())
	}
	return c
}

// follows reports whether c can be what the process that had told before tells later.
func (c *Counters) follows(before *Counters) bool {
	if c.Requests < before.Requests || c.ServerErrors < before.ServerErrors || c.GatewayErrors < before.GatewayErrors {
		return false
	}
	for i := range c.Durations {
		if c.Durations[i] < before.Durations[i] {
			return false
		}
	}
	return true
}

// Sub returns what happened since before, which is an earlier result of
// Store.Counters for the same data plane, or zero. When its process has started again
// since, that is all that it has done.
func (c Counters) Sub(before Counters) Counters {
	if c.Process != before.Process {
		return c
	}
	c.Requests -= before.Requests
	c.ServerErrors -= before.ServerErrors
	c.GatewayErrors -= before.GatewayErrors
	for i := range c.Durations {
		c.Durations[i] -= before.Durations[i]
	}
	return c
}

// Add returns the sum of what two data planes did. The rest is that of c.
func (c Counters) Add(d Counters) Counters {
	c.Requests += d.Requests
	c.ServerErrors += d.ServerErrors
	c.GatewayErrors += d.GatewayErrors
	for i := range c.Durations {
		c.Durations[i] += d.Durations[i]
	}
	return c
}

// P99 returns the time within which 99 of 100 requests were answered, 0 when there
// were none. It is exact to a bucket; those that took longer than the last bound count
// as that.
func (c Counters) P99() time.Duration {
	var all, below float64
	for _, n := range c.Durations {
		all += float64(n)
	}
	if all == 0 {
		return 0
	}
	rank := 0.99 * all
	var from time.Duration
	for i, to := range routetable.DurationBounds {
		n := float64(c.Durations[i])
		if n > 0 && below+n >= rank {
			return from + time.Duration((rank-below)/n*float64(to-from))
		}
		below += n
		from = to
	}
	return from
}
