package proxy

import "reverseproxy/dataplane/internal/metrics"

// switchProtocols turns the exchange of b into a tunnel: the backend has granted
// the upgrade (RFC 9110 section 7.8). p is what came after the head, in the new
// protocol already.
func (e *Engine) switchProtocols(b *Conn, p []byte) {
	c := b.peer
	x := c.x
	if !x.upgrade || !x.done || !e.resp.Upgrade {
		// A backend that switches unasked, or in the middle of the request, has
		// lost the thread.
		e.nonsense(c)
		return
	}
	e.dropFields(x.endpoint.ResponseHeaders)
	out := appendSwitchHead(e.scratch, &e.resp, x.note.requestID(), e.cookieField(x), x.lines)
	x.note.answered(e.now, len(out))
	out = append(out, p...)
	// However long a tunnel lasts, it has been answered now.
	x.responded, x.code, x.switched, x.until = true, 101, e.now, 0
	x.out += uint64(len(out))
	e.letGo(x)
	e.answered(x, 101)
	e.become(c, tunnel)
	b.state = tunnel
	e.d.Send(c, out)
	e.put(out)
	e.throttle(b, c)

	// The client may have gone ahead.
	early, own := e.unused(c, nil)
	if len(early) > 0 {
		x.in += uint64(len(early))
		e.d.Send(b, early)
	}
	e.keep(c, nil, own)
	if e.d.Queued(b) <= highWater {
		e.resume(c)
	}
	if c.eof {
		e.d.CloseWrite(b)
	}
	e.armTunnel(c)
}

// tunnelData passes bytes on.
func (e *Engine) tunnelData(c *Conn, p []byte) {
	to := c.peer
	if c.client {
		c.x.in += uint64(len(p))
	} else {
		to.x.out += uint64(len(p))
	}
	e.d.Send(to, p)
	e.throttle(c, to)
	e.armTunnel(c)
}

// tunnelEOF passes the end of one direction on. The tunnel ends with the second.
func (e *Engine) tunnelEOF(c *Conn, err error) {
	to := c.peer
	if err != nil {
		if !c.client {
			e.failed(to, metrics.Reset)
		}
		e.endTunnel(c, true)
		return
	}
	if to.eof {
		e.endTunnel(c, false)
		return
	}
	e.d.CloseWrite(to)
	e.armTunnel(c)
}

// tunnelTimeout ends a tunnel in which nothing has moved for too long.
func (e *Engine) tunnelTimeout(c *Conn) {
	if e.waitsFor(c) < c.mark {
		e.arm(c)
		return
	}
	e.endTunnel(c, false)
}

// endTunnel closes both sides; cut short, neither takes it for a clean end.
func (e *Engine) endTunnel(c *Conn, cut bool) {
	b := c.peer
	if !c.client {
		c, b = b, c
	}
	c.peer, b.peer = nil, nil
	e.end(c, c.x.code)
	for _, side := range [...]*Conn{c, b} {
		side.abort = cut
		if cut {
			e.closeNow(side)
		} else {
			e.closeWhenSent(side)
		}
	}
}

// armTunnel sets the deadline of the tunnel that c, either side, belongs to.
func (e *Engine) armTunnel(c *Conn) {
	if !c.client {
		c = c.peer
	}
	e.arm(c)
}
