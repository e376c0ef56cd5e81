package config

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"reverseproxy/proto/routetable"
)

// The walk over the file, one function per mapping of the schema. Each value is
// stored only when it is good.

func (r *reader) file(n node) {
	if n.kind() == scalar && n.scalarType() == nullType && !n.quoted() {
		r.problem(n, nil, `the file has no content; at least "port" and "endpoints" are needed`)
		return
	}
	c := &r.config
	r.mapping(n, nil, fileSchema, `"port: 8000"`, func(key *schema, v node, at *path) {
		switch key.key {
		case "port":
			if port, ok := r.integer(v, at, 1, math.MaxUint16); ok {
				c.Port = uint16(port)
			}
		case "defaults":
			r.defaults(v, at)
		case "endpoints":
			r.endpoints(v, at)
		case "metrics":
			r.metrics(v, at)
		case "limits":
			r.limits(v, at)
		case "accessLog":
			r.accessLog(v, at)
		case "requestId":
			if b, ok := r.boolean(v, at); ok {
				c.RequestID = b
			}
		case "trustedProxies":
			r.trustedProxies(v, at)
		case "proxyProtocol":
			if b, ok := r.boolean(v, at); ok {
				c.ProxyProtocol = b
			}
		case "dns":
			r.dns(v, at)
		case "tests":
			r.tests(v, at)
		case "rollout":
			r.rollout(v, at)
		case "acknowledgeDrop":
			r.acknowledgeDrop(v, at)
		default:
			panic("unread key " + key.path)
		}
	})
	r.relations()
}

func (r *reader) defaults(n node, at *path) {
	d := &r.config.Defaults
	r.mapping(n, at, defaultsSchema, "{preserveHost: true}", func(key *schema, v node, at *path) {
		switch key.key {
		case "timeouts":
			r.timeouts(v, at, timeoutsOfDefaults, &d.Timeouts)
		case "preserveHost":
			if b, ok := r.boolean(v, at); ok {
				d.PreserveHost = b
			}
		case "maxRequests":
			r.maxRequests(v, at, func(n uint32) { d.MaxRequests = n })
		case "queue":
			r.queue(v, at, queueOfDefaults, &d.Queue)
		case "rateLimit":
			r.rateLimit(v, at, rateLimitOfDefaults, func(l RateLimit) { d.RateLimit = l })
		case "panic":
			if p, ok := r.choice(v, at, panics); ok {
				d.Panic = p
			}
		case "loadBalancing":
			d.LoadBalancing = *r.loadBalancing(v, at, loadBalancingOfDefaults)
		case "retry":
			r.retry(v, at, retryOfDefaults, &d.Retry)
		case "requestHeaders":
			d.RequestHeaders = r.headerEdits(v, at, requestHeadersOfDefaults)
		case "responseHeaders":
			d.ResponseHeaders = r.headerEdits(v, at, responseHeadersOfDefaults)
		case "healthCheck":
			d.HealthCheck = *r.healthCheck(v, at)
		default:
			panic("unread key " + key.path)
		}
	})
}

func (r *reader) timeouts(n node, at *path, s *schema, t *Timeouts) {
	r.mapping(n, at, s, "{connect: 1s, response: 30s, idle: 90s}", func(key *schema, v node, at *path) {
		var into *time.Duration
		switch key.key {
		case "connect":
			into = &t.Connect
		case "response":
			into = &t.Response
		case "idle":
			into = &t.Idle
		case "request":
			if d, ok := r.optionalDuration(v, at); ok {
				t.Request = orUnlimited(d)
			}
			return
		default:
			panic("unread key " + key.path)
		}
		if d, ok := r.duration(v, at); ok {
			*into = d
		}
	})
}

// orUnlimited is a time for which 0s was written when there is none.
func orUnlimited(d time.Duration) time.Duration {
	if d == 0 {
		return Unlimited
	}
	return d
}

func (r *reader) metrics(n node, at *path) {
	r.mapping(n, at, metricsSchema, "{onProxyPort: true}", func(key *schema, v node, at *path) {
		switch key.key {
		case "onProxyPort":
			if b, ok := r.boolean(v, at); ok {
				r.config.MetricsOnProxyPort = b
			}
		default:
			panic("unread key " + key.path)
		}
	})
}

func (r *reader) limits(n node, at *path) {
	l := &r.config.Limits
	size := func(v node, at *path, into *uint32, lowest, highest uint32) {
		if b, ok := r.size(v, at, lowest, highest); ok {
			*into = b
		}
	}
	count := func(v node, at *path, into *uint32, highest uint32) {
		if i, ok := r.integer(v, at, 1, highest); ok {
			*into = i
		}
	}
	duration := func(v node, at *path, into *time.Duration) {
		if d, ok := r.duration(v, at); ok {
			*into = d
		}
	}
	r.mapping(n, at, limitsSchema, "{maxHeadBytes: 64Ki}", func(key *schema, v node, at *path) {
		switch key.key {
		case "maxHeadBytes":
			size(v, at, &l.MaxHeadBytes, routetable.MinHeadBytes, routetable.MaxHeadBytes)
		case "maxHeaders":
			count(v, at, &l.MaxHeaders, routetable.MaxHeaderCount)
		case "maxURIBytes":
			size(v, at, &l.MaxURIBytes, routetable.MinURIBytes, routetable.MaxURIBytes)
		case "headerTimeout":
			duration(v, at, &l.HeaderTimeout)
		case "idleTimeout":
			duration(v, at, &l.IdleTimeout)
		case "maxConnections":
			count(v, at, &l.MaxConnections, routetable.MaxConnections)
		default:
			panic("unread key " + key.path)
		}
	})
}

// logFormats are the values of accessLog.format.
var logFormats = []string{"json", "common", "combined"}

func (r *reader) accessLog(n node, at *path) {
	l := &r.config.AccessLog
	r.mapping(n, at, accessLogSchema, "{path: stdout}", func(key *schema, v node, at *path) {
		switch key.key {
		case "path":
			// An empty path is the way to write down that there is no log.
			if path, ok := r.text(v, at, "stdout or the absolute path of a file", func(path string) error {
				if path == "" {
					return nil
				}
				return routetable.CheckLogPath(path)
			}); ok {
				l.Path = path
			}
		case "format":
			if format, ok := r.choice(v, at, logFormats); ok {
				l.Format = format
			}
		case "sample":
			if n, ok := r.share(v, at); ok {
				l.SamplePerMillion = n
			}
		default:
			panic("unread key " + key.path)
		}
	})
}

// acknowledgeDrop reads the digits as written: to YAML, some versions look like
// numbers (00001234, 1234e567).
func (r *reader) acknowledgeDrop(n node, at *path) {
	if r.tagged(n, at) {
		return
	}
	const expected = "the version of the route table that may be replaced, at least its first 8 hexadecimal digits, as the refused update showed it"
	if n.kind() != scalar || n.scalarType() == nullType {
		r.problem(n, at, "%s, expected %s", n.found(), expected)
		return
	}
	v := strings.ToLower(n.text())
	if v != "" && (len(v) < 8 || len(v) > 64 || strings.Trim(v, "0123456789abcdef") != "") {
		r.problem(n, at, "%s is not a version; expected %s", quote(n.text()), expected)
		return
	}
	r.config.AcknowledgeDrop = v
}

func (r *reader) endpoints(n node, at *path) {
	if n.kind() == scalar && n.scalarType() == nullType && n.explicitTag() == "" {
		r.problem(n, at, `found nothing, expected a list of endpoints; a file without endpoints says so: "endpoints: []"`)
		return
	}
	if n.kind() == list {
		r.config.Endpoints = make([]Endpoint, 0, n.length())
	}
	r.list(n, at, "endpoints", `write "- from: …" for each`, func(item node, at *path) { r.endpoint(item, at) })
}

// entry is what the checks across endpoints need to know of one.
type entry struct {
	name     Position // of the name; of the endpoint when it has none
	queue    Position // of its queue
	misnamed bool     // the name is wrong
	mismatch bool     // what it matches is wrong or missing: not comparable
}

func (r *reader) endpoint(n node, at *path) {
	r.config.Endpoints = append(r.config.Endpoints, Endpoint{Position: n.position()})
	r.entries = append(r.entries, entry{name: n.position()})
	e := &r.config.Endpoints[len(r.config.Endpoints)-1]
	mine := &r.entries[len(r.entries)-1]
	keys := map[string]use{}
	r.mapping(n, at, endpointsSchema, "{from: /index, pool: [http://localhost:5000]}", func(key *schema, v node, at *path) {
		keys[key.key] = use{v.position(), at}
		switch key.key {
		case "name":
			mine.name = v.position()
			mine.misnamed = !r.name(v, at, e)
		case "from":
			mine.mismatch = !r.from(v, at, e) || mine.mismatch
		case "host":
			mine.mismatch = !r.hosts(v, at, e) || mine.mismatch
		case "methods":
			mine.mismatch = !r.methods(v, at, e) || mine.mismatch
		case "headers":
			var ok bool
			e.Headers, ok = r.headers(v, at, routetable.CheckHeaderName)
			mine.mismatch = !ok || mine.mismatch
		case "pool":
			r.pool(v, at, e)
		case "timeouts":
			r.timeouts(v, at, timeoutsOfEndpoints, &e.Timeouts)
		case "preserveHost":
			if b, ok := r.boolean(v, at); ok {
				e.PreserveHost = &b
			}
		case "maxRequests":
			r.maxRequests(v, at, func(n uint32) { e.MaxRequests = &n })
		case "queue":
			mine.queue = v.position()
			r.queue(v, at, queueOfEndpoints, &e.Queue)
		case "rateLimit":
			r.rateLimit(v, at, rateLimitOfEndpoints, func(l RateLimit) { e.RateLimit = &l })
		case "panic":
			e.Panic, _ = r.choice(v, at, panics)
		case "loadBalancing":
			e.LoadBalancing = r.loadBalancing(v, at, loadBalancingOfEndpoints)
		case "retry":
			r.retry(v, at, retryOfEndpoints, &e.Retry)
		case "redirect":
			r.redirect(v, at, e)
		case "respond":
			r.respond(v, at, e)
		case "requestHeaders":
			e.RequestHeaders = r.headerEdits(v, at, requestHeadersOfEndpoints)
		case "responseHeaders":
			e.ResponseHeaders = r.headerEdits(v, at, responseHeadersOfEndpoints)
		case "rewrite":
			r.rewrite(v, at, e)
		case "healthCheck":
			e.HealthCheck = r.healthCheck(v, at)
		default:
			panic("unread key " + key.path)
		}
	})
	r.answers(e, keys)
	if e.Path == "" && !e.Prefix {
		mine.mismatch = true
	}
}

func (r *reader) name(n node, at *path, e *Endpoint) (ok bool) {
	e.Name, ok = r.text(n, at, "a name", routetable.CheckName)
	return ok
}

func (r *reader) from(n node, at *path, e *Endpoint) bool {
	_, ok := r.text(n, at, "a path, such as /index, /assets/* or /*", func(from string) (err error) {
		e.Path, e.Prefix, err = routetable.ParseFrom(from)
		return err
	})
	return ok
}

func (r *reader) hosts(n node, at *path, e *Endpoint) bool {
	good := true
	one := func(n node, at *path) {
		host, ok := r.text(n, at, `a host, such as shop.example.com or "*.example.com"`, func(host string) error {
			return routetable.CheckHost(lower(host))
		})
		if !ok {
			good = false
			return
		}
		e.Hosts = append(e.Hosts, lower(host))
	}
	if n.kind() == scalar {
		one(n, at)
		return good
	}
	listed := r.some(n, at, "hosts", "write one host or a list [host, host]", "any host", one)
	e.Hosts = canonical(e.Hosts)
	return listed && good
}

// lower is s with ASCII letters in lower case: what has no case in HTTP is kept
// so.
func lower(s string) string {
	if routetable.IsLower(s) {
		return s
	}
	return string(routetable.AppendLower(nil, s))
}

func (r *reader) methods(n node, at *path, e *Endpoint) bool {
	good := true
	listed := r.some(n, at, "methods", inList(n, "write [GET, HEAD]"), "any method", func(n node, at *path) {
		method, ok := r.text(n, at, "a method, such as GET", checkMethod)
		if !ok {
			good = false
			return
		}
		e.Methods = append(e.Methods, method)
	})
	e.Methods = canonical(e.Methods)
	return listed && good
}

// checkMethod is stricter than a route table: a method in lower case is valid
// HTTP, but not what anyone sends.
func checkMethod(method string) error {
	if err := routetable.CheckMethod(method); err != nil {
		return err
	}
	if upper := strings.ToUpper(method); upper != method {
		return fmt.Errorf("%s is not in upper case, and methods are case-sensitive (did you mean %q?)", quote(method), upper)
	}
	return nil
}

// inList is the remedy for a single value where a list is expected.
func inList(n node, otherwise string) string {
	const longest = 100
	if n.kind() == scalar && n.scalarType() == stringType && len(n.text()) <= longest && !strings.ContainsAny(n.text(), "?,[]{}#\"'\n") {
		return fmt.Sprintf("write [%s]", n.text())
	}
	return otherwise
}

// canonical sorts a list and removes what is there twice.
func canonical(list []string) []string {
	slices.Sort(list)
	return slices.Clip(slices.Compact(list))
}

// some reads a list that must not be empty: no value at all would match nothing,
// while leaving out the key matches everything.
func (r *reader) some(n node, at *path, what, remedy, all string, visit func(item node, at *path)) bool {
	if n.kind() == list && n.length() == 0 {
		r.problem(n, at, "the list is empty, so nothing could match; leave out the key to match %s", all)
		return false
	}
	return r.list(n, at, what, remedy, visit)
}

// headers reads exact values of header fields, sorted by name, which is in lower case.
func (r *reader) headers(n node, at *path, checkName func(string) error) (headers []Header, ok bool) {
	if r.tagged(n, at) {
		return nil, false
	}
	if n.kind() != mapping {
		r.problem(n, at, "%s, expected a mapping of header names to values, such as {x-beta: \"1\"}", n.found())
		return nil, false
	}
	before := r.problems.added
	lines := map[string]int{}
	r.pairs(n, at, map[string]Position{}, func(key, v node, at *path) {
		value, ok := r.text(v, at, "the exact value of the header as a text", routetable.CheckHeaderValue)
		name := lower(key.text())
		if err := checkName(name); err != nil {
			r.problem(key, at, "%s", err)
			return
		}
		if line, duplicate := lines[name]; duplicate {
			r.problem(key, at, "duplicate header; it is already given in line %d, and header names have no case: remove one of them", line)
			return
		}
		lines[name] = key.position().Line
		if ok {
			headers = append(headers, Header{Name: name, Value: value})
		}
	})
	slices.SortFunc(headers, func(a, b Header) int { return cmp.Compare(a.Name, b.Name) })
	return headers, r.problems.added == before
}

func (r *reader) pool(n node, at *path, e *Endpoint) {
	if n.kind() == list && n.length() == 0 {
		r.problem(n, at, "the pool is empty; it needs at least one URL, such as [http://localhost:5000]")
		return
	}
	if n.kind() == list {
		e.Pool = make([]Backend, 0, n.length())
	}
	remedy := inList(n, `put "- " before each, such as "- http://localhost:5000"`)
	if !r.list(n, at, "URLs", remedy, func(item node, at *path) { r.backend(item, at, e) }) {
		return
	}
	weights := make([]uint32, len(e.Pool))
	for i, b := range e.Pool {
		weights[i] = b.Weight
	}
	if err := routetable.CheckWeights(weights); err != nil {
		r.problem(n, at, "%s", err)
	}
}

// backend reads an item of a pool: a URL, or a mapping with more about it.
func (r *reader) backend(n node, at *path, e *Endpoint) {
	b := Backend{Weight: 1}
	url := func(n node, at *path) {
		b.URL, _ = r.text(n, at, "a URL, such as http://localhost:5000", func(url string) error {
			_, err := routetable.ParseBackendURL(url)
			return err
		})
	}
	if n.kind() == mapping {
		r.mapping(n, at, poolSchema, "{url: http://localhost:5000, weight: 1}", func(key *schema, v node, at *path) {
			switch key.key {
			case "url":
				url(v, at)
			case "weight":
				if w, ok := r.integer(v, at, 0, routetable.MaxWeight); ok {
					b.Weight = w
				}
			case "backup":
				if is, ok := r.boolean(v, at); ok {
					b.Backup = is
				}
			case "maxRequests":
				r.maxRequests(v, at, func(n uint32) { b.MaxRequests = n })
			default:
				panic("unread key " + key.path)
			}
		})
	} else {
		url(n, at)
	}
	if b.URL != "" {
		e.Pool = append(e.Pool, b)
	}
}
