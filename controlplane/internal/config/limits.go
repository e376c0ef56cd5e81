package config

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"reverseproxy/proto/routetable"
)

// Queue is where requests wait.
type Queue struct {
	Size    *uint32       // most of them; 0: nobody waits; nil: as in Defaults
	Timeout time.Duration // of one; 0: as in Defaults
}

// maxRequests reads how many requests may be in flight; 0: any number.
func (r *reader) maxRequests(n node, at *path, take func(uint32)) {
	if i, ok := r.integer(n, at, 0, routetable.MaxRequests); ok {
		take(i)
	}
}

func (r *reader) queue(n node, at *path, s *schema, q *Queue) {
	r.mapping(n, at, s, "{size: 100, timeout: 1s}", func(key *schema, v node, at *path) {
		switch key.key {
		case "size":
			if i, ok := r.integer(v, at, 0, routetable.MaxQueue); ok {
				q.Size = &i
			}
		case "timeout":
			if d, ok := r.duration(v, at); ok {
				q.Timeout = d
			}
		default:
			panic("unread key " + key.path)
		}
	})
}

// RateLimit bounds how many requests come in a time, over the whole fleet.
type RateLimit struct {
	Requests uint32 // 0: any number
	Per      time.Duration
	Burst    uint32 // at once; 0: as many as Requests
	// What is counted apart: requests of each client address, or with each value of a
	// header field, whose name is in lower case; neither: nothing.
	ByClient bool
	ByHeader string
}

// rateLimit reads a mapping that replaces the one of the defaults: a half of one
// rate and a half of another is none that anybody wants.
func (r *reader) rateLimit(n node, at *path, s *schema, take func(RateLimit)) {
	l := RateLimit{Per: time.Second}
	before := r.problems.added
	good := r.mapping(n, at, s, "{requests: 100, per: 1s, key: clientIP}", func(key *schema, v node, at *path) {
		switch key.key {
		case "requests":
			if i, ok := r.integer(v, at, 0, routetable.MaxRate); ok {
				l.Requests = i
			}
		case "per":
			if d, ok := r.duration(v, at); ok {
				l.Per = d
			}
		case "burst":
			if i, ok := r.integer(v, at, 0, routetable.MaxRate); ok {
				l.Burst = i
			}
		case "key":
			_, _ = r.text(v, at, rateKeys, l.setKey)
		default:
			panic("unread key " + key.path)
		}
	})
	if !good || r.problems.added > before {
		return
	}
	if err := routetable.CheckRate(l.Requests, l.Per); err != nil {
		r.problem(n, at, "%s", err)
		return
	}
	take(l)
}

const rateKeys = `none, clientIP or "header:Name"`

func (l *RateLimit) setKey(text string) error {
	switch text {
	case "none":
		l.ByClient, l.ByHeader = false, ""
		return nil
	case "clientIP":
		l.ByClient = true
		return nil
	}
	if name, ok := strings.CutPrefix(text, "header:"); ok {
		l.ByHeader = lower(name)
		return routetable.CheckKeyHeader(l.ByHeader)
	}
	hint := ""
	switch kind, name, named := strings.Cut(text, ":"); {
	case named && strings.EqualFold(kind, "header"):
		hint = fmt.Sprintf(" (did you mean %q?)", "header:"+name)
	case distance(strings.ToLower(text), "clientip") <= 2:
		hint = ` (did you mean "clientIP"?)`
	}
	return fmt.Errorf("found the text %s, expected %s%s", quote(text), rateKeys, hint)
}

// idleQueues reports endpoints with a queue of their own in which nothing can wait. One
// in the defaults may be for some of them only.
func (r *reader) idleQueues() {
	for i := range r.config.Endpoints {
		e := &r.config.Endpoints[i]
		if e.Queue.Size == nil || *e.Queue.Size == 0 || e.Limited(&r.config.Defaults) {
			continue
		}
		r.problemAt(r.entries[i].queue, endpointPath(i).field("queue"),
			"nothing can wait here: neither the endpoint nor a backend of its pool has maxRequests")
	}
}

// Limited reports whether requests may have to wait.
func (e *Endpoint) Limited(d *Defaults) bool {
	most := d.MaxRequests
	if e.MaxRequests != nil {
		most = *e.MaxRequests
	}
	return most > 0 || slices.ContainsFunc(e.Pool, func(b Backend) bool { return b.MaxRequests > 0 })
}
