package config

import (
	"fmt"
	"strings"
	"time"

	"reverseproxy/proto/routetable"
)

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
		return routetable.CheckHeaderName(l.ByHeader)
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
