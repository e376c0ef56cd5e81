package http1

import "bytes"

// Cookie returns the value of a cookie, whose name is case-sensitive. Of several of
// that name the first counts: it has the longest path (RFC 6265 section 5.4). What is
// not a name, "=" and a value is passed over; the value is as it came, its quotes
// included.
func (r *Request) Cookie(name string) (Span, bool) {
	if !r.seen.has(Cookie) {
		return Span{}, false
	}
	for i := range r.Fields {
		if f := &r.Fields[i]; f.ID == Cookie {
			if v, ok := findCookie(r.Raw, f.Value, name); ok {
				return v, true
			}
		}
	}
	return Span{}, false
}

// findCookie finds a cookie in one field value: pairs with ";" between them (RFC 6265
// section 4.2.1).
func findCookie(raw []byte, value Span, name string) (Span, bool) {
	for at := int(value.Start); at < int(value.End); {
		end := int(value.End)
		if i := bytes.IndexByte(raw[at:end], ';'); i >= 0 {
			end = at + i
		}
		if i := bytes.IndexByte(raw[at:end], '='); i >= 0 && string(trim(raw, at, at+i).Of(raw)) == name {
			return trim(raw, at+i+1, end), true
		}
		at = end + 1
	}
	return Span{}, false
}
