package config

import (
	"fmt"
	"strings"
	"time"

	"reverseproxy/proto/routetable"
	routetablev1 "reverseproxy/proto/routetable/v1"
)

// LoadBalancing is how a backend of a pool is chosen.
type LoadBalancing struct {
	Policy routetablev1.Policy
	// On is what ConsistentHash hashes; nil with other policies.
	On *Key
	// SlowStart is how long the share of a backend that comes back grows; 0: it has
	// all of it at once.
	SlowStart time.Duration
}

// Key is a property of a request.
type Key struct {
	Kind routetablev1.KeyKind
	Name string // of a header, in lower case, or of a cookie
}

// The values of panic.
const (
	UseAll = "useAll"
	Refuse = "refuse"
)

var panics = []string{UseAll, Refuse}

// policies are the values of loadBalancing.policy, those of the wire without what they
// begin with.
var policies = []string{"RoundRobin", "LeastRequest", "Random", "ConsistentHash"}

var wirePolicies = map[string]routetablev1.Policy{
	"RoundRobin":     routetablev1.Policy_POLICY_UNSPECIFIED,
	"LeastRequest":   routetablev1.Policy_POLICY_LEAST_REQUEST,
	"Random":         routetablev1.Policy_POLICY_RANDOM,
	"ConsistentHash": routetablev1.Policy_POLICY_CONSISTENT_HASH,
}

func (r *reader) loadBalancing(n node, at *path, s *schema) *LoadBalancing {
	l := &LoadBalancing{}
	bad, on := false, n
	r.mapping(n, at, s, `{policy: ConsistentHash, on: clientIP}`, func(key *schema, v node, at *path) {
		switch key.key {
		case "policy":
			policy, ok := r.choice(v, at, policies)
			l.Policy, bad = wirePolicies[policy], bad || !ok
		case "on":
			var ok bool
			l.On, ok = r.hashKey(v, at)
			on, bad = v, bad || !ok
		case "slowStart":
			if d, ok := r.optionalDuration(v, at); ok {
				l.SlowStart = d
			}
		default:
			panic("unread key " + key.path)
		}
	})
	hashes := l.Policy == routetablev1.Policy_POLICY_CONSISTENT_HASH
	switch {
	case bad:
	case hashes && l.On == nil:
		r.problem(on, at, `"on" is missing; ConsistentHash needs clientIP, path, header:Name or cookie:Name there`)
	case !hashes && l.On != nil:
		r.problem(on, at.field("on"), "only the policy ConsistentHash hashes something; remove it, or write policy: ConsistentHash")
	}
	return l
}

// hashKey reads what ConsistentHash hashes; an empty text is how to write down that
// there is nothing.
func (r *reader) hashKey(n node, at *path) (*Key, bool) {
	var k *Key
	_, ok := r.text(n, at, "clientIP, path, header:Name or cookie:Name", func(text string) (err error) {
		if text != "" {
			k, err = parseHashKey(text)
		}
		return err
	})
	return k, ok
}

func parseHashKey(text string) (*Key, error) {
	kind, name, named := strings.Cut(text, ":")
	switch {
	case text == "clientIP":
		return &Key{Kind: routetablev1.KeyKind_KEY_KIND_CLIENT_IP}, nil
	case text == "path":
		return &Key{Kind: routetablev1.KeyKind_KEY_KIND_PATH}, nil
	case kind == "header" && named:
		name = lower(name)
		return &Key{routetablev1.KeyKind_KEY_KIND_HEADER, name}, routetable.CheckKeyHeader(name)
	case kind == "cookie" && named:
		return &Key{routetablev1.KeyKind_KEY_KIND_COOKIE, name}, routetable.CheckCookieName(name)
	}
	hint := ""
	for _, known := range []string{"clientIP", "path", "header", "cookie"} {
		if distance(strings.ToLower(kind), strings.ToLower(known)) <= 2 {
			if known == "header" || known == "cookie" {
				known += ":Name"
			}
			hint = fmt.Sprintf(" (did you mean %q?)", known)
			break
		}
	}
	return nil, fmt.Errorf("found the text %s, expected clientIP, path, header:Name or cookie:Name%s", quote(text), hint)
}
