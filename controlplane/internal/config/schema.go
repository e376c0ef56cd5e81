package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// schema is one key of the file and the keys below it. It is data only, so that
// the walk, the suggestions for unknown keys and the test of configs/full.yaml
// all go by the same list.
type schema struct {
	key string
	// def is the default as a user would write it, empty if there is none.
	def string
	// must says that the key is required.
	must bool
	// unless are keys of the same mapping of which one takes the place of the key.
	unless []string
	// each says that the keys below belong to each item of a list.
	each bool
	// keys of the mapping that is the value (or each item of it).
	keys []*schema
	// path of the key without indexes, such as endpoints[].pool; set by link.
	path string
	// parent is nil for the root; set by link.
	parent *schema
}

var timeoutKeys = []schema{
	{key: "connect", def: "1s"},
	{key: "response", def: "30s"},
	{key: "idle", def: "90s"},
	{key: "request", def: "0s"},
}

var queueKeys = []schema{
	{key: "size", def: "0"},
	{key: "timeout", def: "1s"},
}

var rateLimitKeys = []schema{
	{key: "requests", def: "0", must: true},
	{key: "per", def: "1s"},
	{key: "burst", def: "0"},
	{key: "key", def: "none"},
}

var loadBalancingKeys = []schema{
	{key: "policy", def: "RoundRobin"},
	{key: "on", def: `""`},
	{key: "slowStart", def: "0s"},
}

var retryKeys = []schema{
	{key: "attempts", def: "1", must: true},
	{key: "on"},
	{key: "perTryTimeout", def: "0s"},
	{key: "budget", def: "20%"},
}

// headerEditKeys are the keys of requestHeaders and responseHeaders.
var headerEditKeys = []schema{
	{key: "set"},
	{key: "add"},
	{key: "remove"},
}

var (
	requestHeadersOfDefaults   = &schema{key: "requestHeaders", keys: pointers(headerEditKeys)}
	requestHeadersOfEndpoints  = &schema{key: "requestHeaders", keys: pointers(headerEditKeys)}
	responseHeadersOfDefaults  = &schema{key: "responseHeaders", keys: pointers(headerEditKeys)}
	responseHeadersOfEndpoints = &schema{key: "responseHeaders", keys: pointers(headerEditKeys)}

	regexSchema = &schema{key: "regex", keys: []*schema{
		{key: "match", must: true},
		{key: "replace", must: true},
	}}
	rewriteSchema = &schema{key: "rewrite", keys: []*schema{
		{key: "path"},
		{key: "prefix"},
		regexSchema,
	}}
	redirectSchema = &schema{key: "redirect", keys: []*schema{
		{key: "to", must: true},
		{key: "status", def: "302"},
	}}
	respondSchema = &schema{key: "respond", keys: []*schema{
		{key: "status", def: "200"},
		{key: "body", def: `""`},
		{key: "headers"},
	}}
)

var (
	loadBalancingOfDefaults  = &schema{key: "loadBalancing", keys: pointers(loadBalancingKeys)}
	loadBalancingOfEndpoints = &schema{key: "loadBalancing", keys: pointers(loadBalancingKeys)}

	timeoutsOfDefaults  = &schema{key: "timeouts", keys: pointers(timeoutKeys)}
	timeoutsOfEndpoints = &schema{key: "timeouts", keys: pointers(timeoutKeys)}
	retryOfDefaults     = &schema{key: "retry", keys: pointers(retryKeys)}
	retryOfEndpoints    = &schema{key: "retry", keys: pointers(retryKeys)}

	queueOfDefaults  = &schema{key: "queue", keys: pointers(queueKeys)}
	queueOfEndpoints = &schema{key: "queue", keys: pointers(queueKeys)}

	rateLimitOfDefaults  = &schema{key: "rateLimit", keys: pointers(rateLimitKeys)}
	rateLimitOfEndpoints = &schema{key: "rateLimit", keys: pointers(rateLimitKeys)}

	defaultsSchema = &schema{key: "defaults", keys: []*schema{
		timeoutsOfDefaults,
		{key: "preserveHost", def: "true"},
		{key: "maxRequests", def: "0"},
		queueOfDefaults,
		rateLimitOfDefaults,
		{key: "panic", def: "useAll"},
		loadBalancingOfDefaults,
		retryOfDefaults,
		requestHeadersOfDefaults,
		responseHeadersOfDefaults,
		{key: "healthCheck"}, // with the keys of an endpoint's
	}}
	poolSchema = &schema{key: "pool", must: true, unless: []string{"redirect", "respond"}, each: true, keys: []*schema{
		{key: "url", must: true},
		{key: "weight", def: "1"},
		{key: "backup", def: "false"},
		{key: "maxRequests", def: "0"},
	}}
	endpointsSchema = &schema{key: "endpoints", must: true, each: true, keys: []*schema{
		{key: "name"},
		{key: "from", must: true},
		{key: "host"},
		{key: "methods"},
		{key: "headers"},
		poolSchema,
		redirectSchema,
		respondSchema,
		timeoutsOfEndpoints,
		{key: "preserveHost", def: "true"},
		{key: "maxRequests", def: "0"},
		queueOfEndpoints,
		rateLimitOfEndpoints,
		{key: "panic", def: "useAll"},
		loadBalancingOfEndpoints,
		retryOfEndpoints,
		requestHeadersOfEndpoints,
		responseHeadersOfEndpoints,
		rewriteSchema,
		healthCheckSchema,
	}}
	metricsSchema = &schema{key: "metrics", keys: []*schema{
		{key: "onProxyPort", def: "true"},
	}}
	limitsSchema = &schema{key: "limits", keys: []*schema{
		{key: "maxHeadBytes", def: "64Ki"},
		{key: "maxHeaders", def: "100"},
		{key: "maxURIBytes", def: "8Ki"},
		{key: "headerTimeout", def: "10s"},
		{key: "idleTimeout", def: "60s"},
		{key: "maxConnections", def: "10000"},
	}}
	accessLogSchema = &schema{key: "accessLog", keys: []*schema{
		{key: "path", def: `""`, must: true},
		{key: "format", def: "json"},
		{key: "sample", def: "1"},
	}}
	fileSchema = link(&schema{keys: []*schema{
		{key: "port", must: true},
		defaultsSchema,
		endpointsSchema,
		metricsSchema,
		limitsSchema,
		accessLogSchema,
		{key: "requestId", def: "false"},
		{key: "trustedProxies"},
		{key: "proxyProtocol", def: "false"},
		dnsSchema,
		testsSchema,
		rolloutSchema,
		{key: "acknowledgeDrop", def: `""`},
	}}, nil)
)

// synonyms are words that other proxies use, and what they are called here.
var synonyms = map[string]string{
	"backend": "pool", "backends": "pool", "cluster": "pool", "destination": "pool", "forwardTo": "pool", "proxyPass": "pool",
	"server": "pool", "servers": "pool", "target": "pool", "targets": "pool", "to": "pool", "upstream": "pool", "upstreams": "pool",
	"location": "from", "match": "from", "path": "from", "paths": "from", "prefix": "from", "route": "from", "uri": "from",
	"domain": "host", "domains": "host", "hostname": "host", "hostnames": "host", "hosts": "host",
	"frontends": "endpoints", "locations": "endpoints", "routes": "endpoints", "rules": "endpoints",
	"listen": "port", "address": "url", "href": "url", "verb": "methods", "verbs": "methods", "id": "name",
	"algorithm": "policy", "balance": "loadBalancing", "balancing": "loadBalancing", "lb": "loadBalancing", "lb_policy": "policy",
	"hash": "on", "hashOn": "on", "sticky": "loadBalancing", "slow_start": "slowStart",
	"tries": "attempts", "maxAttempts": "attempts", "retryOn": "on",
	"file": "path", "log": "accessLog", "logging": "accessLog", "rate": "sample", "sampling": "sample",
	"check": "healthCheck", "checks": "healthCheck", "health": "healthCheck", "outlierDetection": "passive", "probe": "active", "resolver": "dns",
	"assertions": "tests", "asserts": "tests", "expectation": "expect", "expectations": "expect", "then": "expect", "when": "request",
	"stages": "steps", "strategy": "rollout", "canaries": "canary", "abort": "abortOn",
}

// pointers gives each user of a list of keys its own copies.
func pointers(keys []schema) []*schema {
	var out []*schema
	for _, k := range keys {
		out = append(out, &k)
	}
	return out
}

func link(s, parent *schema) *schema {
	s.parent = parent
	if parent != nil {
		s.path = parent.inside(s.key)
	}
	for _, k := range s.keys {
		link(k, s)
	}
	return s
}

// inside is the path of a key of this mapping.
func (s *schema) inside(key string) string {
	switch {
	case s.path == "":
		return key
	case s.each:
		return s.path + "[]." + key
	default:
		return s.path + "." + key
	}
}

func (s *schema) find(key string) *schema {
	for _, k := range s.keys {
		if k.key == key {
			return k
		}
	}
	return nil
}

// allowed lists the keys of this mapping.
func (s *schema) allowed() string {
	names := make([]string, 0, len(s.keys))
	for _, k := range s.keys {
		names = append(names, k.key)
	}
	return strings.Join(names, ", ")
}

// required lists the keys that must be there.
func (s *schema) required() string {
	var names []string
	for _, k := range s.keys {
		if !k.must {
			continue
		}
		name := k.key
		if len(k.unless) > 0 {
			name += " (or " + strings.Join(k.unless, " or ") + ")"
		}
		names = append(names, name)
	}
	return strings.Join(names, ", ")
}

// suggest returns the key of this mapping that was most probably meant, or nil.
func (s *schema) suggest(key string) *schema {
	for _, k := range s.keys {
		if strings.EqualFold(k.key, key) {
			return k
		}
	}
	var best *schema
	bestDistance := 1 + max(1, len(key)/3)
	for _, k := range s.keys {
		if d := distance(strings.ToLower(key), strings.ToLower(k.key)); d < bestDistance {
			best, bestDistance = k, d
		}
	}
	return best
}

// elsewhere says where in the file a key of this name is known: a mistake of
// nesting rather than of spelling. Empty if nowhere.
func elsewhere(key string) string {
	var found []*schema
	var walk func(s *schema)
	walk = func(s *schema) {
		if s.parent != nil && s.key == key {
			found = append(found, s)
		}
		for _, k := range s.keys {
			walk(k)
		}
	}
	walk(fileSchema)
	// The nearest to the top first.
	slices.SortStableFunc(found, func(a, b *schema) int {
		return cmp.Compare(strings.Count(a.path, "."), strings.Count(b.path, "."))
	})
	var places []string
	for _, s := range found {
		if s.parent.path == "" {
			places = append(places, "at the top level of the file")
			continue
		}
		place := s.parent.path
		if s.parent.each {
			place += "[]"
		}
		places = append(places, "under "+place)
	}
	return strings.Join(places, " or ")
}

// unknownKey says what is wrong with a key that this mapping does not have.
func (s *schema) unknownKey(key string) (message string, meant *schema) {
	message = fmt.Sprintf("unknown key %s; allowed here: %s", quote(key), s.allowed())
	if meant = s.find(synonyms[key]); meant != nil {
		return fmt.Sprintf("%s (did you mean %q?)", message, meant.key), meant
	}
	if meant = s.suggest(key); meant != nil && distance(strings.ToLower(key), strings.ToLower(meant.key)) <= 1 {
		return fmt.Sprintf("%s (did you mean %q?)", message, meant.key), meant
	}
	if place := elsewhere(key); place != "" {
		return fmt.Sprintf("%s (%q belongs %s; check the indentation)", message, key, place), nil
	}
	if meant = s.suggest(key); meant != nil {
		return fmt.Sprintf("%s (did you mean %q?)", message, meant.key), meant
	}
	if place := elsewhere(synonyms[key]); place != "" {
		return fmt.Sprintf("%s (did you mean %q, %s?)", message, synonyms[key], place), nil
	}
	return message, nil
}

// distance is the number of insertions, deletions, replacements and swaps of
// neighbours that turn a into b (optimal string alignment). Long words, which are
// no typos of a key, are not compared.
func distance(a, b string) int {
	const longest = 40
	if len(a) > longest || len(b) > longest {
		return longest
	}
	var rows [3][longest + 1]int
	before, previous, current := &rows[0], &rows[1], &rows[2]
	for j := range len(b) + 1 {
		previous[j] = j
	}
	for i := 1; i <= len(a); i++ {
		current[0] = i
		for j := 1; j <= len(b); j++ {
			replace := previous[j-1]
			if a[i-1] != b[j-1] {
				replace++
			}
			current[j] = min(previous[j]+1, current[j-1]+1, replace)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				current[j] = min(current[j], before[j-2]+1)
			}
		}
		before, previous, current = previous, current, before
	}
	return previous[len(b)]
}
