package routetable

import (
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	routetablev1 "reverseproxy/proto/routetable/v1"
)

// Problem is one broken rule of a wire table.
type Problem struct {
	Path    string // such as endpoints[3].pool[0].url; empty: the table as a whole
	Message string
}

// Error formats the problem as "path: message".
func (p *Problem) Error() string {
	if p.Path == "" {
		return p.Message
	}
	return p.Path + ": " + p.Message
}

// Problems returns the problems in an error of Validate.
func Problems(err error) []*Problem {
	var list []*Problem
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		for _, e := range joined.Unwrap() {
			list = append(list, Problems(e)...)
		}
		return list
	}
	var p *Problem
	switch {
	case err == nil:
	case errors.As(err, &p):
		list = append(list, p)
	default:
		list = append(list, &Problem{Message: err.Error()})
	}
	return list
}

// Validate checks every rule of the wire form and returns all broken ones, as
// *Problem values joined by errors.Join. Fields unknown to this release are
// problems too: a table that needs them would be served wrongly.
func Validate(t *routetablev1.RouteTable) error {
	var v validation
	if t == nil {
		v.report("", nil, "there is no route table")
		return errors.Join(v.problems...)
	}
	v.before(t)
	for i, e := range t.GetEndpoints() {
		v.endpoint(i, e)
		if i > 0 {
			v.order(i, t.GetEndpoints()[i-1].GetName(), e.GetName())
		}
	}
	v.after(t)
	if len(v.problems) == 0 {
		v.ties(t.GetEndpoints(), nil)
	}
	return errors.Join(v.problems...)
}

// before checks the fields of a table before its endpoints, and after those
// behind them: the order of the problems is that of the fields.
func (v *validation) before(t *routetablev1.RouteTable) {
	v.known("", nil, t)
	v.check("port", nil, CheckRange(uint64(t.GetPort()), 1, 65535))
	v.requestID = t.GetRequestId()
}

func (v *validation) after(t *routetablev1.RouteTable) {
	v.limits(t.GetLimits())
	v.accessLog(t.GetAccessLog())
	v.trustedProxies(t.GetTrustedProxies())
	v.resolveInterval(t.GetResolveInterval())
}

// validation collects problems.
type validation struct {
	problems  []error
	at        where // of the endpoint that is being checked
	requestID bool  // requests have ids
}

// where is an element of a list, perhaps within another; its text is made only
// for a problem.
type where struct {
	in    *where
	list  string
	index int
}

func (w *where) String() string {
	if w == nil {
		return ""
	}
	s := fmt.Sprintf("%s[%d]", w.list, w.index)
	if w.in != nil {
		s = w.in.String() + "." + s
	}
	return s
}

func (v *validation) report(field string, w *where, format string, args ...any) {
	path := w.String()
	if path != "" && field != "" {
		path += "."
	}
	v.problems = append(v.problems, &Problem{path + field, fmt.Sprintf(format, args...)})
}

// check reports an error about a field.
func (v *validation) check(field string, w *where, err error) {
	if err != nil {
		v.report(field, w, "%v", err)
	}
}

// known reports fields that this release does not know.
func (v *validation) known(field string, w *where, m proto.Message) {
	if len(m.ProtoReflect().GetUnknown()) > 0 {
		v.report(field, w, "has a field that this release does not know; upgrade the data plane first")
	}
}

func (v *validation) order(i int, before, name string) {
	w := &where{list: "endpoints", index: i}
	switch {
	case name == "": // reported already
	case before == name:
		v.report("name", w, "%s is the name of another endpoint too; names must be unique", quote(name))
	case before > name:
		v.report("name", w, "%s comes after %s; endpoints must be sorted by name", quote(name), quote(before))
	}
}

func (v *validation) endpoint(number int, e *routetablev1.Endpoint) {
	v.at = where{list: "endpoints", index: number}
	w := &v.at
	if e == nil {
		v.report("", w, "is not set")
		return
	}
	v.known("", w, e)
	v.check("name", w, CheckName(e.GetName()))
	switch p := e.GetPath().(type) {
	case *routetablev1.Endpoint_Exact:
		v.check("exact", w, CheckPath(p.Exact, false))
	case *routetablev1.Endpoint_Prefix:
		v.check("prefix", w, CheckPath(p.Prefix, true))
	default:
		v.report("path", w, "is not set; an endpoint needs an exact path or a prefix")
	}
	v.sorted("hosts", w, e.GetHosts(), CheckHost)
	v.sorted("methods", w, e.GetMethods(), CheckMethod)
	for i, m := range e.GetHeaders() {
		v.header(where{w, "headers", i}, m)
		if i > 0 {
			v.ascending("headers", w, i, e.GetHeaders()[i-1].GetName(), m.GetName())
		}
	}
	v.pool(w, e)
	v.timeouts(w, e.GetTimeouts())
	v.loadBalancing(w, e.GetLoadBalancing())
	v.admission(w, e)
	v.retry(w, e.GetRetry())
	v.headerEdits("request_headers", w, e.GetRequestHeaders())
	v.headerEdits("response_headers", w, e.GetResponseHeaders())
	v.rewrite(w, e)
	v.answer(w, e)
	v.activeCheck(w, e.GetActiveCheck())
	v.passiveCheck(w, e.GetPassiveCheck())
}

// sorted checks each string of a list, and that they ascend.
func (v *validation) sorted(list string, w *where, values []string, check func(string) error) {
	for i, s := range values {
		if err := check(s); err != nil {
			v.check("", &where{w, list, i}, err)
		}
		if i > 0 {
			v.ascending(list, w, i, values[i-1], s)
		}
	}
}

func (v *validation) ascending(list string, w *where, i int, before, value string) {
	switch {
	case before == value:
		v.report("", &where{w, list, i}, "%s is there twice", quote(value))
	case before > value:
		v.report("", &where{w, list, i}, "%s comes after %s; the list must be sorted", quote(value), quote(before))
	}
}

func (v *validation) header(at where, m *routetablev1.HeaderMatch) {
	if m == nil {
		v.report("", &at, "is not set")
		return
	}
	v.known("", &at, m)
	v.check("name", &at, CheckHeaderName(m.GetName()))
	v.check("value", &at, CheckHeaderValue(m.GetValue()))
}

func (v *validation) pool(w *where, e *routetablev1.Endpoint) {
	pool := e.GetPool()
	switch answers := e.GetAnswer() != nil; {
	case len(pool) == 0 && !answers:
		v.report("pool", w, "is empty; it needs at least one backend")
	case len(pool) > 0 && answers:
		v.report("pool", w, "has backends, but the endpoint answers by itself")
	}
	var few [16]uint32
	weights := few[:0]
	for i, b := range pool {
		at := where{w, "pool", i}
		if b == nil {
			v.report("", &at, "is not set")
			continue
		}
		v.known("", &at, b)
		_, err := ParseBackendURL(b.GetUrl())
		v.check("url", &at, err)
		v.check("weight", &at, CheckWeight(uint64(b.GetWeight())))
		weights = append(weights, b.GetWeight())
	}
	v.check("pool", w, CheckWeights(weights))
}

func (v *validation) timeouts(w *where, t *routetablev1.Timeouts) {
	if t == nil {
		v.report("timeouts", w, "is not set")
		return
	}
	v.known("timeouts", w, t)
	v.duration("timeouts.connect", w, t.GetConnect())
	v.duration("timeouts.response", w, t.GetResponse())
	v.duration("timeouts.idle", w, t.GetIdle())
	if t.GetRequest() != nil {
		v.duration("timeouts.request", w, t.GetRequest())
	}
}

func (v *validation) limits(l *routetablev1.Limits) {
	if l == nil {
		v.report("limits", nil, "is not set")
		return
	}
	v.known("limits", nil, l)
	v.check("limits.max_head_bytes", nil, CheckRange(uint64(l.GetMaxHeadBytes()), MinHeadBytes, MaxHeadBytes))
	v.check("limits.max_header_count", nil, CheckRange(uint64(l.GetMaxHeaderCount()), 1, MaxHeaderCount))
	v.check("limits.max_uri_bytes", nil, CheckRange(uint64(l.GetMaxUriBytes()), MinURIBytes, MaxURIBytes))
	v.duration("limits.header_timeout", nil, l.GetHeaderTimeout())
	v.duration("limits.idle_timeout", nil, l.GetIdleTimeout())
	v.check("limits.max_connections", nil, CheckRange(uint64(l.GetMaxConnections()), 1, MaxConnections))
}

func (v *validation) accessLog(l *routetablev1.AccessLog) {
	if l == nil {
		return
	}
	v.known("access_log", nil, l)
	v.check("access_log.path", nil, CheckLogPath(l.GetPath()))
	switch l.GetFormat() {
	case routetablev1.AccessLogFormat_ACCESS_LOG_FORMAT_JSON, routetablev1.AccessLogFormat_ACCESS_LOG_FORMAT_COMMON,
		routetablev1.AccessLogFormat_ACCESS_LOG_FORMAT_COMBINED:
	default:
		v.report("access_log.format", nil, "%d is not known to this release; upgrade the data plane first", l.GetFormat())
	}
	v.check("access_log.sample_per_million", nil, CheckRange(uint64(l.GetSamplePerMillion()), 1, SamplePerMillion))
}

func (v *validation) duration(field string, w *where, d *durationpb.Duration) {
	v.interval(field, w, d, CheckTimeout)
}

// interval is duration with a check of its own. It reports whether the field is
// well-formed.
func (v *validation) interval(field string, w *where, d *durationpb.Duration, check func(time.Duration) error) bool {
	if d == nil {
		v.report(field, w, "is not set")
		return false
	}
	v.known(field, w, d)
	// A duration has one valid form only: two forms would be two versions.
	if nanos := d.GetNanos(); nanos < 0 || nanos >= int32(time.Second) {
		v.report(field, w, "has %d nanoseconds beside its seconds; it must be 0 to 999999999", nanos)
		return false
	}
	v.check(field, w, check(d.AsDuration()))
	return true
}

// ties reports ties among some endpoints of a table, whose places in it are
// numbers; nil: they are all.
func (v *validation) ties(endpoints []*routetablev1.Endpoint, numbers []int) {
	number := func(i int) int {
		if numbers == nil {
			return i
		}
		return numbers[i]
	}
	ties, err := Ties(endpoints)
	for _, t := range ties {
		v.report("", &where{list: "endpoints", index: number(t.Second)},
			"takes the same requests as endpoints[%d] (%s) with equal right; they must differ in host, path or conditions",
			number(t.First), quote(endpoints[t.First].GetName()))
	}
	v.check("endpoints", nil, err)
}
