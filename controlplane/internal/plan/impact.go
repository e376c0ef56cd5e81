package plan

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/protobuf/proto"

	fleetv1 "reverseproxy/proto/fleet/v1"
	"reverseproxy/proto/routetable"
	routetablev1 "reverseproxy/proto/routetable/v1"
)

// impact is one thing that a change means for requests.
type impact struct {
	loses    bool
	size     float64 // requests per second, or what is as bad
	text     string
	examples []string
}

// shownImpacts is how many a plan has; nobody reads more, and the worst come first.
const shownImpacts = 50

// impacts returns all, the worst first.
func (p *planner) impacts() []*fleetv1.Impact {
	list := p.ofAll()
	for _, e := range p.Running.GetEndpoints() {
		if i, ok := p.ofEndpoint(e); ok {
			list = append(list, i)
		}
	}
	list = append(list, p.ofFlows()...)
	slices.SortStableFunc(list, func(a, b impact) int {
		if a.loses != b.loses {
			if a.loses {
				return -1
			}
			return 1
		}
		return cmp.Compare(b.size, a.size)
	})
	if rest := list[min(len(list), shownImpacts):]; len(rest) > 0 {
		list = append(list[:shownImpacts:shownImpacts], impact{loses: rest[0].loses, text: fmt.Sprintf("and %d more like these", len(rest))})
	}
	answer := make([]*fleetv1.Impact, len(list))
	for n, i := range list {
		answer[n] = &fleetv1.Impact{LosesTraffic: i.loses, Text: i.text, Examples: i.examples}
	}
	return answer
}

// ofAll returns what concerns every request.
func (p *planner) ofAll() (list []impact) {
	total := p.total()
	before, after := p.Running, p.Planned
	if before.GetPort() != after.GetPort() {
		list = append(list, impact{
			loses: total.any(), size: total.size(),
			text: fmt.Sprintf("closes port %d and opens %d, on data planes without --port: %s", before.GetPort(), after.GetPort(), total),
		})
	}
	if before.GetProxyProtocol() != after.GetProxyProtocol() {
		with := "without"
		if before.GetProxyProtocol() {
			with = "with"
		}
		list = append(list, impact{
			loses: total.any(), size: total.size(),
			text: fmt.Sprintf("refuses client connections %s a header of the PROXY protocol, as all are that work now: %s", with, total),
		})
	}
	if p.Rates.Incomplete {
		list = append(list, impact{text: "data planes have told of more endpoints than there is room for: there may be more requests than it says here"})
	}
	return list
}

func (p *planner) total() load {
	l := load{perSecond: p.Rates.RequestsPerSecond, dataPlanes: p.Rates.DataPlanes}
	for _, r := range p.Rates.Endpoints {
		l.recent += r.Recent
	}
	return l
}

// loadOf returns that of an endpoint. Where nothing was told of its rate, but requests
// of it were sampled, they stand for it.
func (p *planner) loadOf(name string) load {
	r := p.live[name]
	return load{r.Requests, max(r.Recent, p.seen[name]), r.DataPlanes}
}

// ofEndpoint returns what becomes of the requests of a running endpoint as a whole. One
// that has no requests is not spoken of.
func (p *planner) ofEndpoint(e *routetablev1.Endpoint) (impact, bool) {
	l := p.loadOf(e.GetName())
	if !l.any() {
		return impact{}, false
	}
	next := p.successor[e.GetName()]
	i := impact{size: l.size()}
	switch {
	case next == nil && usable(e):
		p.removed(&i, e, l)
	case next == nil:
		i.text = fmt.Sprintf("removes endpoint %s, which has no backend with a weight: %s", e.GetName(), l)
	case usable(e) && !usable(next):
		i.loses = true
		i.text = fmt.Sprintf("leaves endpoint %s without a backend: %s, which would get 503", e.GetName(), l)
		i.examples = p.examples(func(f flow) bool { return f.from == e.GetName() && f.status == 503 })
	case next.GetName() != e.GetName():
		i.text = fmt.Sprintf("renames endpoint %s to %s, whose counters begin at 0: %s", e.GetName(), next.GetName(), l)
	case e.GetAnswer() == nil && next.GetAnswer() != nil:
		i.text = fmt.Sprintf("endpoint %s would no longer forward, but answer by itself with %d: %s", e.GetName(), answers(next), l)
	case p.seen[e.GetName()] == 0 && !proto.Equal(conditions(e), conditions(next)) && p.narrows(&i, e, l):
	case limited(e, next, l):
		i.loses = true
		i.text = fmt.Sprintf("limits endpoint %s to %s: there are %s", e.GetName(), limit(next), l)
	default:
		return p.shrunk(e, next, l)
	}
	return i, true
}

// answers is the status of an endpoint that answers by itself.
func answers(e *routetablev1.Endpoint) uint32 {
	return cmp.Or(e.GetRedirect().GetStatus(), e.GetRespond().GetStatus())
}

// removed fills in what becomes of the requests of an endpoint that is no more: by the
// samples, or else by what it matches.
func (p *planner) removed(i *impact, e *routetablev1.Endpoint, l load) {
	name := e.GetName()
	var lost, moved float64
	takers := map[string]bool{}
	for f, a := range p.flows {
		switch {
		case f.from != name:
		case f.status != 0:
			lost += a.weight
		default:
			moved += a.weight
			takers[f.to] = true
		}
	}
	i.text = fmt.Sprintf("removes endpoint %s: %s", name, l)
	if lost+moved == 0 {
		status, taker := p.probe(e)
		if i.loses = status != 0; i.loses {
			i.text += fmt.Sprintf(", which would get %d", status)
			if p.uncertain[name] > 0 {
				i.text += " where header fields do not lead elsewhere"
			}
		} else if taker != "" {
			i.text += fmt.Sprintf(", which endpoint %s would take", taker)
		}
		return
	}
	i.loses = lost > 0
	all := p.seen[name]
	switch {
	case whole(lost / all):
		i.text += ", which would get " + p.statuses(name)
	case whole(moved/all) && len(takers) == 1:
		i.text += fmt.Sprintf(", which endpoint %s would take", only(takers))
	default:
		var parts []string
		if lost > 0 {
			parts = append(parts, fmt.Sprintf("%s would get %s", Percent(lost/all), p.statuses(name)))
		}
		if moved > 0 {
			parts = append(parts, fmt.Sprintf("%s would be taken by %s", Percent(moved/all), someOf(takers)))
		}
		if u := p.uncertain[name]; u > 0 {
			parts = append(parts, fmt.Sprintf("with %s it depends on header fields", Percent(u/all)))
		}
		i.text += ", of which " + strings.Join(parts, ", ")
	}
	i.examples = p.examples(func(f flow) bool { return f.from == name && (f.status != 0) == i.loses })
}

// narrows fills in what becomes of the requests of an endpoint of which none was
// sampled, when not all of what it matches now would be taken.
func (p *planner) narrows(i *impact, e *routetablev1.Endpoint, l load) bool {
	status, _ := p.probe(e)
	if status == 0 {
		return false
	}
	i.loses = true
	i.text = fmt.Sprintf("endpoint %s would no longer match all that it does: %s, which may get %d; none was sampled", e.GetName(), l, status)
	return true
}

// statuses are those that lost requests of an endpoint would get.
func (p *planner) statuses(name string) string {
	codes := map[string]bool{}
	for f := range p.flows {
		if f.from == name && f.status != 0 {
			codes[strconv.FormatUint(uint64(f.status), 10)] = true
		}
	}
	return strings.Join(sorted(codes), " or ")
}

// examples returns requests of the flows for which it holds, those of large ones first.
func (p *planner) examples(of func(flow) bool) (list []string) {
	for _, f := range p.sortedFlows() {
		if of(f) {
			list = append(list, p.flows[f].examples...)
		}
	}
	return list[:min(len(list), shownExamples)]
}

// sortedFlows returns them, the largest first.
func (p *planner) sortedFlows() []flow {
	list := make([]flow, 0, len(p.flows))
	for f := range p.flows {
		list = append(list, f)
	}
	slices.SortFunc(list, func(a, b flow) int {
		return cmp.Or(cmp.Compare(p.flows[b].weight, p.flows[a].weight), cmp.Compare(a.from, b.from), cmp.Compare(a.to, b.to), cmp.Compare(a.status, b.status))
	})
	return list
}

// probe asks for what an endpoint matches: with which status it would be answered,
// if at all, and by the planned table who would take it. Nothing is known when a better
// one takes all of that now.
func (p *planner) probe(e *routetablev1.Endpoint) (status uint32, taker string) {
	for r := range requests(e) {
		if match(p.running.index.Near(r), e.GetHeaders(), r).endpoint != e {
			continue
		}
		then := match(p.planned.index.Near(r), e.GetHeaders(), r)
		if s := then.status(); s != 0 {
			return s, ""
		}
		taker = then.endpoint.GetName()
	}
	return 0, taker
}

// rateLimited returns how many requests an endpoint lets through in a second, if it
// counts all of them together.
func rateLimited(e *routetablev1.Endpoint) (perSecond float64, ok bool) {
	l := e.GetRateLimit()
	if l.GetRequests() == 0 || l.GetKey() != nil {
		return 0, false
	}
	return float64(l.GetRequests()) / l.GetPer().AsDuration().Seconds(), true
}

// limited reports whether an endpoint would let through fewer requests than there are.
func limited(before, after *routetablev1.Endpoint, l load) bool {
	most, is := rateLimited(after)
	was, had := rateLimited(before)
	return is && l.perSecond > most && (!had || most < was)
}

func limit(e *routetablev1.Endpoint) string {
	return fmt.Sprintf("%d requests per %s", e.GetRateLimit().GetRequests(), e.GetRateLimit().GetPer().AsDuration())
}

// shrunk tells of a pool that loses backends.
func (p *planner) shrunk(e, next *routetablev1.Endpoint, l load) (impact, bool) {
	before, after := serving(e), serving(next)
	if after >= before {
		return impact{}, false
	}
	i := impact{size: l.size()}
	if after == 0 {
		i.text = fmt.Sprintf("leaves endpoint %s only its backups: %s", e.GetName(), l)
		return i, true
	}
	i.text = fmt.Sprintf("leaves endpoint %s %d of %s: %s", e.GetName(), after, count(before, "backend"), l)
	if l.perSecond > 0 {
		i.text += fmt.Sprintf(", %s for each instead of %s", Rate(l.perSecond/float64(after)), Rate(l.perSecond/float64(before)))
	}
	return i, true
}

// serving counts the backends that get requests.
func serving(e *routetablev1.Endpoint) (n int) {
	for _, b := range e.GetPool() {
		if b.GetWeight() > 0 && !b.GetBackup() {
			n++
		}
	}
	return n
}

// ofFlows tells of the requests of endpoints that stay.
func (p *planner) ofFlows() (list []impact) {
	for _, f := range p.sortedFlows() {
		a := p.flows[f]
		i := impact{loses: f.status != 0, size: p.share(a.weight) * p.Rates.RequestsPerSecond, examples: a.examples}
		of := Percent(p.share(a.weight)) + " of the sampled requests would "
		stays := p.successor[f.from] != nil
		switch {
		case f.from != "" && !stays, f.status == 503 && p.successor[f.from].GetName() == f.to:
			continue // told with the endpoint
		case f.status == 503:
			i.text = of + fmt.Sprintf("go from endpoint %s to %s, which has no backend with a weight, and get 503", f.from, f.to)
		case f.status != 0:
			i.text = of + fmt.Sprintf("get %d; endpoint %s takes them now", f.status, f.from)
		case f.from == "":
			i.text = of + fmt.Sprintf("be taken by endpoint %s; no endpoint takes them now", f.to)
		default:
			i.text = of + fmt.Sprintf("go from endpoint %s to %s", f.from, f.to)
		}
		list = append(list, i)
	}
	if p.unknown > 0 {
		list = append(list, impact{
			size: p.share(p.unknown) * p.Rates.RequestsPerSecond,
			text: fmt.Sprintf("which endpoint would take %s of the sampled requests depends on header fields, which samples do not have", Percent(p.share(p.unknown))),
		})
	}
	return list
}

// requests yields some that an endpoint matches, one for each place and method, and
// for a prefix one below it.
func requests(e *routetablev1.Endpoint) func(yield func(*routetable.Request) bool) {
	methods := e.GetMethods()
	if len(methods) == 0 {
		methods = []string{"GET"}
	}
	hosts := e.GetHosts()
	if len(hosts) == 0 {
		hosts = []string{""}
	}
	paths := []string{e.GetExact()}
	if _, prefix := e.GetPath().(*routetablev1.Endpoint_Prefix); prefix {
		paths = []string{cmp.Or(e.GetPrefix(), "/"), e.GetPrefix() + "/~"}
	}
	return func(yield func(*routetable.Request) bool) {
		for _, host := range hosts {
			if suffix, wildcard := routetable.WildcardSuffix(host); wildcard {
				host = "any" + suffix
			}
			for _, method := range methods {
				for _, path := range paths {
					if !yield(&routetable.Request{Method: method, Host: host, Path: path}) {
						return
					}
				}
			}
		}
	}
}
