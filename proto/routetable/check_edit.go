package routetable

import (
	"fmt"

	routetablev1 "reverseproxy/proto/routetable/v1"
)

// The rules of what is done with header fields and paths, and of endpoints that
// answer by themselves.

// MaxBodyBytes is the longest body of a fixed answer.
const MaxBodyBytes = 64 << 10

// headerEdits checks one kind of edits of an endpoint; not set, they are fine.
func (v *validation) headerEdits(field string, w *where, h *routetablev1.HeaderEdits) {
	if h == nil {
		return
	}
	v.known(field, w, h)
	switch n := len(h.GetSet()) + len(h.GetAdd()) + len(h.GetRemove()); {
	case n == 0:
		v.report(field, w, "is empty")
	case n > MaxEdits:
		v.report(field, w, "has %d fields; at most %d are allowed", n, MaxEdits)
	}
	set := v.fields(field+".set", w, h.GetSet())
	v.fields(field+".add", w, h.GetAdd())
	v.sorted(field+".remove", w, h.GetRemove(), func(name string) error {
		switch err := CheckEditName(name); {
		case err != nil:
			return err
		case !IsLower(name):
			return fmt.Errorf("%s has upper-case letters; write %s", quote(name), quote(AppendLower(nil, name)))
		case set[name]:
			return fmt.Errorf("%s is both set and removed", quote(name))
		}
		return nil
	})
}

// fields checks header fields with variables in their values, and returns their
// names in lower case.
func (v *validation) fields(list string, w *where, fields []*routetablev1.Header) map[string]bool {
	names := make(map[string]bool, len(fields))
	before := ""
	for i, h := range fields {
		at := where{w, list, i}
		if h == nil {
			v.report("", &at, "is not set")
			continue
		}
		v.known("", &at, h)
		v.check("name", &at, CheckEditName(h.GetName()))
		t, err := CheckEditValue(h.GetValue())
		v.check("value", &at, err)
		v.requestIDs("value", &at, t)
		name := string(AppendLower(nil, h.GetName()))
		if i > 0 {
			v.ascending(list, w, i, before, name)
		}
		before, names[name] = name, true
	}
	return names
}

// requestIDs reports a ${requestId} where requests have none.
func (v *validation) requestIDs(field string, w *where, t Template) {
	if t.UsesRequestID() && !v.requestID {
		v.report(field, w, "uses ${requestId}, but requests have no ids; request_id must be set")
	}
}

func (v *validation) rewrite(w *where, e *routetablev1.Endpoint) {
	r := e.GetRewrite()
	if r == nil {
		return
	}
	v.known("rewrite", w, r)
	if regex := r.GetRegex(); regex != nil {
		v.known("rewrite.regex", w, regex)
	}
	_, prefix := pathOf(e)
	_, err := NewRewrite(r, prefix)
	v.check("rewrite", w, err)
}

// answer checks an endpoint that answers by itself; others are fine.
func (v *validation) answer(w *where, e *routetablev1.Endpoint) {
	switch a := e.GetAnswer().(type) {
	case nil:
		return
	case *routetablev1.Endpoint_Redirect:
		v.known("redirect", w, a.Redirect)
		v.check("redirect.status", w, CheckRedirectStatus(a.Redirect.GetStatus()))
		t, err := ParseLocation(a.Redirect.GetTo())
		v.check("redirect.to", w, err)
		v.requestIDs("redirect.to", w, t)
	case *routetablev1.Endpoint_Respond:
		r := a.Respond
		v.known("respond", w, r)
		v.check("respond.status", w, CheckRange(uint64(r.GetStatus()), MinAnswerStatus, MaxAnswerStatus))
		v.check("respond.body", w, CheckBody(r.GetStatus(), r.GetBody()))
		if n := len(r.GetHeaders()); n > MaxEdits {
			v.report("respond.headers", w, "has %d fields; at most %d are allowed", n, MaxEdits)
		}
		v.fields("respond.headers", w, r.GetHeaders())
	}
	if e.GetRewrite() != nil || e.GetRequestHeaders() != nil {
		v.report("", w, "changes requests, but forwards none: it answers by itself")
	}
}

// MinAnswerStatus and MaxAnswerStatus bound the statuses of fixed answers.
const (
	MinAnswerStatus = 200
	MaxAnswerStatus = 599
)

// CheckRedirectStatus says what is wrong with the status of a redirect.
func CheckRedirectStatus(status uint32) error {
	switch status {
	case 301, 302, 303, 307, 308:
		return nil
	}
	return fmt.Errorf("%d does not redirect; it must be 301, 302, 303, 307 or 308", status)
}

// CheckBody says what is wrong with the body of a fixed answer.
func CheckBody[T text](status uint32, body T) error {
	switch {
	case len(body) > MaxBodyBytes:
		return fmt.Errorf("has %d bytes; at most %d are allowed", len(body), MaxBodyBytes)
	case len(body) > 0 && !HasBody(status):
		return fmt.Errorf("is not empty, but a response with status %d has no body", status)
	}
	return nil
}

// HasBody reports whether responses with a status have a body (RFC 9110 section
// 6.4.1 and 15.3.6).
func HasBody(status uint32) bool { return status != 204 && status != 205 && status != 304 }

// HasLength reports whether responses with a status have a Content-Length (RFC 9110
// section 8.6; in a 304 it would be that of another response).
func HasLength(status int) bool { return status != 204 && status != 304 }
