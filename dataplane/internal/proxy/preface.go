package proxy

import (
	"reverseproxy/dataplane/internal/metrics"
	"reverseproxy/dataplane/internal/proxyprotocol"
)

// expectHeader makes a new client connection wait for the header of the PROXY
// protocol, which must come first and in the time that a request's head has.
func (e *Engine) expectHeader(c *Conn) {
	c.state = preface
	c.rested = e.now
	e.d.After(c, e.now+int64(e.live.Load().Limits.HeaderTimeout))
}

// header reads the header of the PROXY protocol from the start of what a client has
// sent. From then on its source is the peer of the connection. Where there are
// trusted proxies, only they may say so: anybody else could make up an address.
func (e *Engine) header(c *Conn, p []byte) {
	if t := e.live.Load(); t.TrustedProxies != nil && !c.isTrusted(t.TrustedProxies) {
		e.headerFailed(c, metrics.UntrustedProxyHeader)
		return
	}
	p, own := e.unused(c, p)
	source, n, err := proxyprotocol.Parse(p)
	switch {
	case err != nil:
		e.headerFailed(c, metrics.NoProxyHeader)
		return
	case n == 0:
		e.keep(c, p, own)
		return
	}
	if source.IsValid() {
		c.remote = source.String()
		c.trustedBy = 0 // which was about the address before
	}
	e.become(c, idle)
	e.rest(c)
	if !own {
		e.requests(c, p[n:])
		return
	}
	e.keep(c, p[n:], own)
	e.requests(c, nil)
}

// headerFailed closes a connection that has not begun as it must. It gets no answer:
// who it is from is not known.
func (e *Engine) headerFailed(c *Conn, why metrics.ClientReason) {
	e.metrics.ClientError(e.shard, why)
	e.close(c)
}

// headerEOF handles the end of a connection before the end of its header. Without a
// byte it is one of those by which load balancers see whether anybody listens.
func (e *Engine) headerEOF(c *Conn) {
	if c.hasUnused() {
		e.headerFailed(c, metrics.NoProxyHeader)
		return
	}
	e.close(c)
}
