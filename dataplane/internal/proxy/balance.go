package proxy

import (
	"encoding/hex"

	"reverseproxy/dataplane/internal/http1"
	"reverseproxy/dataplane/internal/table"
)

// choose chooses the member that gets a request, and counts it in there; nil: nobody may.
func (e *Engine) choose(x *request) *table.Member {
	for {
		m := x.endpoint.Pool.Pick(&x.choice)
		if m == nil || m.TryBegin(e.shard) {
			return m
		} // else it has become full in this moment
	}
}

// consider looks up what a policy goes by.
func (e *Engine) consider(c *Conn, p *table.Pool) {
	x := c.x
	x.choice.Random = e.random.Uint64()
	if p.Policy != table.ConsistentHash {
		return
	}
	key, ok := e.key(c, p.Key)
	if p.Key.Kind == table.Cookie && len(key) == 0 {
		// The client gets the value with its response, and is sent where that leads
		// from now on.
		_, _ = e.random.Read(x.cookie[:]) // which never fails
		x.setCookie = true
		e.keyRoom = hex.AppendEncode(e.keyRoom[:0], x.cookie[:])
		key, ok = e.keyRoom, true
	}
	x.choice.Hash, x.choice.Keyed = table.Hash(key), ok
}

// key returns a property of the request in e.req. Of several field lines, or cookies,
// of one name the first counts.
func (e *Engine) key(c *Conn, k table.Key) (key []byte, ok bool) {
	r := &e.req
	var value http1.Span
	switch k.Kind {
	case table.ClientIP:
		return c.clientAddress(), true
	case table.Path:
		return e.query.NormalPath(), true
	case table.Header:
		value, ok = r.Value(k.Name)
	case table.Cookie:
		value, ok = r.Cookie(k.Name)
	}
	return value.Of(r.Raw), ok
}

// cookieField returns the line that gives the client of a response the cookie by which
// its backend was chosen; nil when it has one.
func (e *Engine) cookieField(x *request) []byte {
	if !x.setCookie {
		return nil
	}
	line := append(e.cookieLine[:0], "Set-Cookie: "...)
	line = append(line, x.endpoint.Pool.Key.Name...)
	line = append(line, '=')
	line = hex.AppendEncode(line, x.cookie[:])
	line = append(line, "; Path=/; HttpOnly; SameSite=Lax\r\n"...)
	e.cookieLine = line
	return line
}
