package config

import (
	"cmp"
	"fmt"
	"net/netip"
	"regexp"
	"slices"

	"reverseproxy/proto/routetable"
)

// The walk over what is done with header fields and paths, endpoints that answer by
// themselves, and the proxies in front.

func (r *reader) trustedProxies(n node, at *path) {
	c := &r.config
	r.list(n, at, "address prefixes", inList(n, "write [10.0.0.0/8]"), func(item node, at *path) {
		var prefix netip.Prefix
		if _, ok := r.text(item, at, "an address prefix, such as 10.0.0.0/8", func(text string) (err error) {
			prefix, err = parsePrefix(text)
			return err
		}); ok {
			c.TrustedProxies = append(c.TrustedProxies, prefix.String())
		}
	})
	c.TrustedProxies = canonical(c.TrustedProxies)
	if len(c.TrustedProxies) > routetable.MaxTrustedProxies {
		r.problem(n, at, "there are %d prefixes; at most %d are allowed", len(c.TrustedProxies), routetable.MaxTrustedProxies)
	}
}

// parsePrefix reads an address prefix, or an address, which is the prefix of itself.
func parsePrefix(text string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(text); err == nil && a.Zone() == "" {
		a = a.Unmap()
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	prefix, err := netip.ParsePrefix(text)
	if err == nil && prefix.Masked() != prefix {
		return prefix, fmt.Errorf("%s has bits behind its first %d (did you mean %s?)", quote(text), prefix.Bits(), prefix.Masked())
	}
	if err == nil {
		text = prefix.String() // one way to write it
	}
	return prefix, routetable.CheckPrefix(text)
}

// use is a place in the file where something is used that another key must allow.
type use struct {
	Position
	at *path
}

// headerEdits reads requestHeaders or responseHeaders; nil when nothing is in it.
func (r *reader) headerEdits(n node, at *path, s *schema) *HeaderEdits {
	var e HeaderEdits
	names := map[string]Position{} // of set, in lower case
	r.mapping(n, at, s, `{set: {X-Frame-Options: DENY}}`, func(key *schema, v node, at *path) {
		switch key.key {
		case "set":
			e.Set = r.fields(v, at, names)
		case "add":
			e.Add = r.fields(v, at, map[string]Position{})
		case "remove":
			r.list(v, at, "header names", inList(v, "write [X-Powered-By]"), func(item node, at *path) {
				if name, ok := r.text(item, at, "the name of a header", routetable.CheckEditName); ok {
					name = lower(name)
					if set, both := names[name]; both {
						r.problem(item, at, "%s is set in line %d already, which takes the place of whatever came; remove one of them", quote(name), set.Line)
					}
					e.Remove = append(e.Remove, name)
				}
			})
		default:
			panic("unread key " + key.path)
		}
	})
	e.Remove = canonical(e.Remove)
	switch count := len(e.Set) + len(e.Add) + len(e.Remove); {
	case count == 0:
		return nil
	case count > maxEdits:
		r.problem(n, at, "there are %d headers; at most %d are allowed", count, maxEdits)
	}
	return &e
}

// maxEdits is how many headers one mapping may name. The defaults' and an endpoint's
// together are as many as a route table may have.
const maxEdits = routetable.MaxEdits / 2

// fields reads header fields with variables in their values, sorted by name without
// regard to letter case. It fills in names, which are in lower case.
func (r *reader) fields(n node, at *path, names map[string]Position) (fields []Header) {
	if r.tagged(n, at) {
		return nil
	}
	if n.kind() != mapping {
		r.problem(n, at, `%s, expected a mapping of header names to values, such as {X-Client: "${client}"}`, n.found())
		return nil
	}
	r.pairs(n, at, map[string]Position{}, func(key, v node, at *path) {
		value, ok := r.text(v, at, "the value of the header as a text", func(value string) error {
			t, err := routetable.CheckEditValue(value)
			r.usesRequestID(t, v, at)
			return err
		})
		if err := routetable.CheckEditName(key.text()); err != nil {
			r.problem(key, at, "%s", err)
			return
		}
		name := lower(key.text())
		if first, duplicate := names[name]; duplicate {
			r.problem(key, at, "duplicate header; it is already given in line %d, and header names have no case: remove one of them", first.Line)
			return
		}
		names[name] = key.position()
		if ok {
			fields = append(fields, Header{Name: key.text(), Value: value})
		}
	})
	slices.SortFunc(fields, func(a, b Header) int { return cmp.Compare(lower(a.Name), lower(b.Name)) })
	return fields
}

// usesRequestID keeps in mind that a template needs request ids.
func (r *reader) usesRequestID(t routetable.Template, n node, at *path) {
	if t.UsesRequestID() {
		r.requestIDs = append(r.requestIDs, use{n.position(), at})
	}
}

// requestIDsExist reports what uses request ids in a file without them.
func (r *reader) requestIDsExist() {
	if r.config.RequestID {
		return
	}
	for _, u := range r.requestIDs {
		r.problemAt(u.Position, u.at, "uses ${requestId}, but requests have no ids; add requestId: true at the top level of the file")
	}
}

func (r *reader) rewrite(n node, at *path, e *Endpoint) {
	w := &Rewrite{}
	given := 0
	one := func(v node, at *path, into *string) {
		*into, _ = r.text(v, at, "a path, such as /new", func(path string) error { return routetable.CheckPath(path, false) })
	}
	if !r.mapping(n, at, rewriteSchema, "{prefix: /new}", func(key *schema, v node, at *path) {
		given++
		switch key.key {
		case "path":
			one(v, at, &w.Path)
		case "prefix":
			one(v, at, &w.Prefix)
		case "regex":
			r.regex(v, at, w)
		default:
			panic("unread key " + key.path)
		}
	}) {
		return
	}
	if given != 1 {
		r.problem(n, at, "one of path, prefix and regex is expected, but there are %d", given)
	}
	e.Rewrite = w
}

func (r *reader) regex(n node, at *path, w *Rewrite) {
	var match *regexp.Regexp
	var replace node
	var where *path
	r.mapping(n, at, regexSchema, `{match: "^/old/(.*)$", replace: "/new/$1"}`, func(key *schema, v node, at *path) {
		switch key.key {
		case "match":
			w.Match, _ = r.text(v, at, "a regular expression, such as ^/old/(.*)$", func(text string) (err error) {
				match, err = routetable.CompileRegex(text)
				return err
			})
		case "replace":
			w.Replace, _ = r.text(v, at, "a text, such as /new/$1", func(string) error { return nil })
			replace, where = v, at
		default:
			panic("unread key " + key.path)
		}
	})
	if match == nil || where == nil {
		return
	}
	if err := routetable.CheckReplacement(match, w.Replace); err != nil {
		r.problem(replace, where, "%s", err)
	}
}

func (r *reader) redirect(n node, at *path, e *Endpoint) {
	e.Redirect = &Redirect{Status: http302}
	r.mapping(n, at, redirectSchema, `{to: "https://${host}${path}"}`, func(key *schema, v node, at *path) {
		switch key.key {
		case "to":
			e.Redirect.To, _ = r.text(v, at, "a location, such as https://shop.example.com/", func(to string) error {
				t, err := routetable.ParseLocation(to)
				r.usesRequestID(t, v, at)
				return err
			})
		case "status":
			status, ok := r.integer(v, at, 301, 308)
			if err := routetable.CheckRedirectStatus(status); ok && err != nil {
				r.problem(v, at, "%s", err)
			}
			e.Redirect.Status = status
		default:
			panic("unread key " + key.path)
		}
	})
}

// http302 is the status of a redirect that gives none.
const http302 = 302

func (r *reader) respond(n node, at *path, e *Endpoint) {
	a := &Respond{Status: 200}
	e.Respond = a
	var body node
	var where *path
	r.mapping(n, at, respondSchema, "{status: 404, body: gone}", func(key *schema, v node, at *path) {
		switch key.key {
		case "status":
			if status, ok := r.integer(v, at, routetable.MinAnswerStatus, routetable.MaxAnswerStatus); ok {
				a.Status = status
			}
		case "body":
			a.Body, _ = r.text(v, at, "a text", func(string) error { return nil })
			body, where = v, at
		case "headers":
			if a.Headers = r.fields(v, at, map[string]Position{}); len(a.Headers) > maxEdits {
				r.problem(v, at, "there are %d headers; at most %d are allowed", len(a.Headers), maxEdits)
			}
		default:
			panic("unread key " + key.path)
		}
	})
	if err := routetable.CheckBody(a.Status, a.Body); err != nil && where != nil {
		r.problem(body, where, "%s", err)
	}
}

// ofPools are keys of an endpoint that say nothing where there is no pool.
var ofPools = []string{
	"preserveHost", "requestHeaders", "rewrite", "healthCheck", "panic", "retry", "loadBalancing", "maxRequests", "queue",
}

// answers checks what an endpoint has of its keys, which are given where keys says:
// one of those that answer, and nothing that has no effect then.
func (r *reader) answers(e *Endpoint, keys map[string]use) {
	first := ""
	for _, key := range []string{"pool", "redirect", "respond"} {
		u, given := keys[key]
		switch {
		case !given:
		case first != "":
			r.problemAt(u.Position, u.at, "an endpoint has one of pool, redirect and respond; %s is given in line %d already", first, keys[first].Line)
		default:
			first = key
		}
	}
	if first == "redirect" || first == "respond" {
		for _, key := range ofPools {
			if u, given := keys[key]; given {
				r.problemAt(u.Position, u.at, "has no effect: the endpoint forwards nothing, it has %s", first)
			}
		}
	}
	if u, given := keys["rewrite"]; given && e.Rewrite != nil && e.Rewrite.Prefix != "" && e.Path != "" && !e.Prefix {
		r.problemAt(u.Position, u.at.field("prefix"), "there is no prefix to replace: from is exact; use path, or a from that ends in /*")
	}
}
