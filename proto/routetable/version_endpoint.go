package routetable

import (
	"encoding/binary"

	routetablev1 "reverseproxy/proto/routetable/v1"
)

// behaviour writes the fields of an endpoint from active_check on: what is done
// with a request beyond taking it to the next backend. Most endpoints have few.
func (c *canonical) behaviour(e *routetablev1.Endpoint) {
	c.activeCheck(10, e.GetActiveCheck())
	c.passiveCheck(11, e.GetPassiveCheck())
	c.bool(12, e.GetRefuseWhenUnhealthy())
	c.retry(13, e.GetRetry())
	c.loadBalancing(14, e.GetLoadBalancing())
	c.uint(15, uint64(e.GetMaxRequests()))
	if q := e.GetQueue(); q != nil {
		start := c.begin(16)
		c.uint(1, uint64(q.GetSize()))
		c.duration(2, q.GetTimeout())
		c.end(start)
	}
	c.rateLimit(17, e.GetRateLimit())
	c.headerEdits(18, e.GetRequestHeaders())
	c.headerEdits(19, e.GetResponseHeaders())
	c.rewrite(20, e.GetRewrite())
	switch a := e.GetAnswer().(type) {
	case *routetablev1.Endpoint_Redirect:
		start := c.begin(21)
		c.string(1, a.Redirect.GetTo())
		c.uint(2, uint64(a.Redirect.GetStatus()))
		c.end(start)
	case *routetablev1.Endpoint_Respond:
		start := c.begin(22)
		c.uint(1, uint64(a.Respond.GetStatus()))
		c.string(2, string(a.Respond.GetBody()))
		c.headers(3, a.Respond.GetHeaders())
		c.end(start)
	}
}

func (c *canonical) activeCheck(number int, a *routetablev1.ActiveCheck) {
	if a == nil {
		return
	}
	start := c.begin(number)
	c.bool(1, a.GetTcp())
	c.string(2, a.GetMethod())
	c.string(3, a.GetPath())
	c.string(4, a.GetHost())
	c.headers(5, a.GetHeaders())
	for _, r := range a.GetExpectStatus() {
		start := c.begin(6)
		c.uint(1, uint64(r.GetFirst()))
		c.uint(2, uint64(r.GetLast()))
		c.end(start)
	}
	c.string(7, a.GetExpectBody())
	c.uint(8, uint64(a.GetPort()))
	c.duration(9, a.GetInterval())
	c.duration(10, a.GetTimeout())
	c.uint(11, uint64(a.GetJitterPercent()))
	c.uint(12, uint64(a.GetHealthyAfter()))
	c.uint(13, uint64(a.GetUnhealthyAfter()))
	c.end(start)
}

func (c *canonical) passiveCheck(number int, p *routetablev1.PassiveCheck) {
	if p == nil {
		return
	}
	start := c.begin(number)
	c.uint(1, uint64(p.GetConsecutiveFailures()))
	c.duration(2, p.GetEjectFor())
	c.uint(3, uint64(p.GetMaxEjectedPercent()))
	c.bool(4, p.GetOn_5Xx())
	c.end(start)
}

func (c *canonical) retry(number int, r *routetablev1.Retry) {
	if r == nil {
		return
	}
	start := c.begin(number)
	c.uint(1, uint64(r.GetAttempts()))
	for _, on := range r.GetOn() {
		start := c.begin(2) // an element is there even if it is 0
		c.buf = binary.AppendUvarint(c.buf, uint64(on))
		c.end(start)
	}
	c.duration(3, r.GetPerTryTimeout())
	c.uint(4, uint64(r.GetBudgetPercent()))
	c.end(start)
}

func (c *canonical) loadBalancing(number int, l *routetablev1.LoadBalancing) {
	if l == nil {
		return
	}
	start := c.begin(number)
	c.uint(1, uint64(l.GetPolicy()))
	c.key(2, l.GetKey())
	c.duration(3, l.GetSlowStart())
	c.end(start)
}

func (c *canonical) rateLimit(number int, l *routetablev1.RateLimit) {
	if l == nil {
		return
	}
	start := c.begin(number)
	c.uint(1, uint64(l.GetRequests()))
	c.duration(2, l.GetPer())
	c.uint(3, uint64(l.GetBurst()))
	c.key(4, l.GetKey())
	c.end(start)
}

func (c *canonical) key(number int, k *routetablev1.Key) {
	if k == nil {
		return
	}
	start := c.begin(number)
	c.uint(1, uint64(k.GetKind()))
	c.string(2, k.GetName())
	c.end(start)
}

func (c *canonical) headerEdits(number int, h *routetablev1.HeaderEdits) {
	if h == nil {
		return
	}
	start := c.begin(number)
	c.headers(1, h.GetSet())
	c.headers(2, h.GetAdd())
	for _, name := range h.GetRemove() {
		c.element(3, name)
	}
	c.end(start)
}

func (c *canonical) headers(number int, list []*routetablev1.Header) {
	for _, h := range list {
		start := c.begin(number)
		c.string(1, h.GetName())
		c.string(2, h.GetValue())
		c.end(start)
	}
}

func (c *canonical) rewrite(number int, r *routetablev1.Rewrite) {
	if r == nil {
		return
	}
	start := c.begin(number)
	switch to := r.GetTo().(type) {
	case *routetablev1.Rewrite_Path:
		c.element(1, to.Path)
	case *routetablev1.Rewrite_Prefix:
		c.element(2, to.Prefix)
	case *routetablev1.Rewrite_Regex:
		start := c.begin(3)
		c.string(1, to.Regex.GetMatch())
		c.string(2, to.Regex.GetReplace())
		c.end(start)
	}
	c.end(start)
}
