package proxy

import (
	"reverseproxy/dataplane/internal/http1"
	"reverseproxy/dataplane/internal/table"
	"reverseproxy/proto/routetable"
)

// values returns what the variables of the endpoint's templates stand for in the
// request in e.req. All of it has been checked when the request was parsed: no
// byte in it ends a line.
func (e *Engine) values(c *Conn) *routetable.Values {
	r, x, q := &e.req, c.x, &e.query
	v := &e.variables
	*v = routetable.Values{
		Client: c.clientAddress(), Endpoint: x.endpoint.Name, Host: r.Authority.Of(r.Raw), Method: r.MethodText.Of(r.Raw),
		Path: q.Path, Query: q.Query, HasQuery: q.HasQuery, RequestID: x.note.requestID(), Scheme: "http",
	}
	if x.trusted {
		if proto, ok := r.Only(http1.XForwardedProto); ok && r.Has(proto, "https") {
			v.Scheme = "https"
		}
	}
	return v
}

// prepare makes the field lines that the endpoint adds to the response of the
// request in e.req, while it is known what their variables stand for.
func (e *Engine) prepare(c *Conn) {
	x := c.x
	edits := x.endpoint.ResponseHeaders
	if edits == nil || len(edits.Lines) == 0 {
		return
	}
	if x.lines == nil {
		x.lines = e.buffer()
	}
	x.lines = edits.Lines.Append(x.lines, e.values(c))
}

// dropFields makes the fields of a backend's response end here that the endpoint
// removes or replaces.
func (e *Engine) dropFields(edits *table.Edits) {
	if edits != nil {
		e.resp.Drop(edits.Drop)
	}
}

// answerItself answers with what the endpoint has instead of a pool.
func (e *Engine) answerItself(c *Conn, a *table.Answer) {
	if a.Location.UsesHost() && e.req.Authority.Len() == 0 {
		e.answer(c, 400) // HTTP/1.0 without a Host: there is no place to send it to
		return
	}
	v := e.values(c)
	lines := e.buffer()
	if a.Location != nil {
		lines = append(lines, "Location: "...)
		lines = a.Location.AppendLocation(lines, v)
		lines = append(lines, "\r\n"...)
	} else {
		lines = a.Lines.Append(lines, v)
	}
	e.respond(c, &ownAnswer{status: a.Status, reason: reasons[a.Status], lines: lines, bytes: a.Body})
	e.putBuffer(lines)
}

// itself reports whether the request is of an endpoint that answers by itself: what
// it answers is meant so, and no failure.
func (x *request) itself() bool { return x.endpoint != nil && x.endpoint.Answer != nil }
