package plan_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"

	"reverseproxy/controlplane/internal/compile"
	"reverseproxy/controlplane/internal/config"
	"reverseproxy/controlplane/internal/plan"
	"reverseproxy/controlplane/internal/traffic"
	fleetv1 "reverseproxy/proto/fleet/v1"
	routetablev1 "reverseproxy/proto/routetable/v1"
)

// table compiles the lines of the list of endpoints, below "port: 8000" unless they
// begin with another.
func table(t testing.TB, lines ...string) *routetablev1.RouteTable {
	t.Helper()
	file := "port: 8000\nendpoints:\n- " + strings.Join(lines, "\n- ") + "\n"
	if strings.HasPrefix(lines[0], "port:") {
		file = strings.Join(lines, "\n")
	}
	c, err := config.Load("f", []byte(file))
	if err != nil {
		t.Fatal(err)
	}
	rt, err := compile.Compile(c)
	if err != nil {
		t.Fatal(err)
	}
	return rt
}

var accepted = time.Unix(1_000_000, 0)

// sample reads "endpoint: METHOD host/path", with a weight of 10.
func sample(t testing.TB, text string) traffic.Sample {
	t.Helper()
	endpoint, line, ok := strings.Cut(text, ": ")
	method, url, ok2 := strings.Cut(line, " ")
	i := strings.IndexByte(url, '/')
	if !ok || !ok2 || i < 0 {
		t.Fatalf("%q is no sample", text)
	}
	if endpoint == "none" {
		endpoint = ""
	}
	return traffic.Sample{Endpoint: endpoint, Method: method, Host: url[:i], Path: url[i:], Weight: 10, At: accepted.Add(time.Second)}
}

// seen is traffic of some endpoints: requests per second and the data planes.
func seen(rates ...traffic.EndpointRate) traffic.Rates {
	all := traffic.Rates{Endpoints: rates, DataPlanes: 3}
	for _, r := range rates {
		all.RequestsPerSecond += r.Requests
	}
	return all
}

func live(name string, perSecond float64, dataPlanes int) traffic.EndpointRate {
	return traffic.EndpointRate{Endpoint: name, Requests: perSecond, DataPlanes: dataPlanes, Recent: 300 * perSecond}
}

// show is a plan for the comparison: a line for each impact, "!" before those that lose
// traffic, its examples below, and the shares.
func show(p *fleetv1.PlanResponse) string {
	var b strings.Builder
	for _, i := range p.GetImpacts() {
		mark := " "
		if i.GetLosesTraffic() {
			mark = "!"
		}
		fmt.Fprintln(&b, mark, i.GetText())
		for _, e := range i.GetExamples() {
			fmt.Fprintln(&b, "   ", e)
		}
	}
	if s := p.GetBasis(); s.GetMoved()+s.GetLost()+s.GetUnknown() > 0 {
		fmt.Fprintf(&b, "moved %.2f lost %.2f unknown %.2f\n", s.GetMoved(), s.GetLost(), s.GetUnknown())
	}
	return b.String()
}

const (
	home  = "{name: home, from: /home/*, pool: [http://a, http://b, http://c]}"
	index = "{name: index, from: /index, pool: [http://a]}"
	all   = "{name: all, from: /*, pool: [http://z]}"
	beta  = `{name: beta, from: /home/*, headers: {x-beta: "1"}, pool: [http://beta]}`
)

func TestMake(t *testing.T) {
	for _, test := range []struct {
		name             string
		running, planned []string
		rates            traffic.Rates
		samples          []string
		old              bool // the samples are of a table before
		want             string
	}{
		{
			name: "nothing changes", running: []string{home, index}, planned: []string{index, home},
			rates: seen(live("home", 100, 3)), samples: []string{"home: GET h/home/a", "none: GET h/x"},
		},
		{
			name: "a live endpoint is removed", running: []string{home, index}, planned: []string{index},
			rates: seen(live("home", 120, 3), live("index", 40, 3)),
			samples: []string{
				"home: GET h/home/a", "home: POST h/home/b", "home: GET h/home/a", "index: GET h/index",
			},
			want: `
! removes endpoint home: 120 req/s on 3 data planes, which would get 404
    GET h/home/a
    POST h/home/b
moved 0.00 lost 0.75 unknown 0.00
`,
		},
		{
			name: "an idle endpoint is removed", running: []string{home, index}, planned: []string{index},
			rates: seen(live("index", 40, 3)), samples: []string{"index: GET h/index"},
		},
		{
			name: "nothing has been seen", running: []string{home, index}, planned: []string{index},
		},
		{
			name: "one that had requests a minute ago is removed", running: []string{home, index}, planned: []string{index},
			rates: seen(traffic.EndpointRate{Endpoint: "home", Recent: 2}),
			want:  "! removes endpoint home: 2 requests in the last 5 minutes, which would get 404\n",
		},
		{
			name: "a removed one without samples is taken over", running: []string{home, index, all}, planned: []string{index, all},
			rates: seen(live("home", 1.25, 1)),
			want:  "  removes endpoint home: 1.2 req/s on 1 data plane, which endpoint all would take\n",
		},
		{
			name: "a removed one without samples is taken over in part", running: []string{home, index},
			planned: []string{index, "{name: start, from: /home, pool: [http://a]}"},
			rates:   seen(live("home", 1.25, 1)),
			want:    "! removes endpoint home: 1.2 req/s on 1 data plane, which would get 404\n",
		},
		{
			name: "a removed one goes in three directions", running: []string{home}, planned: []string{
				"{name: a, from: /home/a, methods: [GET], pool: [http://a]}", "{name: b, from: /home/b, pool: [http://a]}",
			},
			rates: seen(live("home", 100, 2)),
			samples: []string{
				"home: GET h/home/a", "home: PUT h/home/a", "home: GET h/home/b", "home: GET h/home/b", "home: GET h/home/c",
			},
			want: `
! removes endpoint home: 100 req/s on 2 data planes, of which 40 % would get 404 or 405, 60 % would be taken by endpoints a, b
    GET h/home/c
    PUT h/home/a
moved 0.60 lost 0.40 unknown 0.00
`,
		},
		{
			name: "a removed one is taken over as the samples say", running: []string{home, index}, planned: []string{
				index, "{name: a, from: /home/a/*, pool: [http://a]}",
			},
			rates: seen(live("home", 100, 2)), samples: []string{"home: GET h/home/a", "home: GET h/home/a/b"},
			want: `
  removes endpoint home: 100 req/s on 2 data planes, which endpoint a would take
    GET h/home/a
    GET h/home/a/b
moved 1.00 lost 0.00 unknown 0.00
`,
		},
		{
			name: "an endpoint is renamed", running: []string{home, index},
			planned: []string{index, strings.Replace(home, "name: home", "name: start", 1)},
			rates:   seen(live("home", 100, 2)), samples: []string{"home: GET h/home/a"},
			want: "  renames endpoint home to start, whose counters begin at 0: 100 req/s on 2 data planes\n",
		},
		{
			name: "an endpoint is emptied", running: []string{home},
			planned: []string{"{name: home, from: /home/*, pool: [{url: http://a, weight: 0}]}"},
			rates:   seen(live("home", 100, 2)), samples: []string{"home: GET h/home/a"},
			want: `
! leaves endpoint home without a backend: 100 req/s on 2 data planes, which would get 503
    GET h/home/a
moved 0.00 lost 1.00 unknown 0.00
`,
		},
		{
			name: "an empty endpoint is removed", running: []string{"{name: home, from: /home/*, pool: [{url: http://a, weight: 0}]}", index},
			planned: []string{index}, rates: seen(live("home", 100, 2)), samples: []string{"home: GET h/home/a"},
			want: "  removes endpoint home, which has no backend with a weight: 100 req/s on 2 data planes\n",
		},
		{
			name: "another endpoint takes some", running: []string{home, index},
			planned: []string{home, index, "{name: new, from: /home/new/*, pool: [http://n]}"},
			rates:   seen(live("home", 100, 2)), samples: []string{"home: GET h/home/a", "home: GET h/home/new/x", "home: GET h/home/new", "index: GET h/index"},
			want: `
  50 % of the sampled requests would go from endpoint home to new
    GET h/home/new/x
    GET h/home/new
moved 0.50 lost 0.00 unknown 0.00
`,
		},
		{
			name: "another endpoint that is empty takes some", running: []string{home},
			planned: []string{home, "{name: new, from: /home/new/*, pool: [{url: http://n, weight: 0}]}"},
			rates:   seen(live("home", 100, 2)), samples: []string{"home: GET h/home/a", "home: GET h/home/new"},
			want: `
! 50 % of the sampled requests would go from endpoint home to new, which has no backend with a weight, and get 503
    GET h/home/new
moved 0.00 lost 0.50 unknown 0.00
`,
		},
		{
			name: "an endpoint is narrowed", running: []string{home},
			planned: []string{"{name: home, from: /home/*, host: shop.example.com, methods: [GET], pool: [http://a, http://b, http://c]}"},
			rates:   seen(live("home", 100, 2)),
			samples: []string{"home: GET shop.example.com/home", "home: GET other.example.com/home", "home: PUT shop.example.com/home", "home: PUT shop.example.com/home"},
			want: `
! 50 % of the sampled requests would get 405; endpoint home takes them now
    PUT shop.example.com/home
! 25 % of the sampled requests would get 404; endpoint home takes them now
    GET other.example.com/home
moved 0.00 lost 0.75 unknown 0.00
`,
		},
		{
			name: "an endpoint without samples is narrowed", running: []string{home},
			planned: []string{"{name: home, from: /home, pool: [http://a, http://b, http://c]}"},
			rates:   seen(live("home", 100, 2)),
			want:    "! endpoint home would no longer match all that it does: 100 req/s on 2 data planes, which may get 404; none was sampled\n",
		},
		{
			name: "an endpoint without samples is widened", running: []string{index},
			planned: []string{"{name: index, from: /index/*, pool: [http://a]}"}, rates: seen(live("index", 100, 2)),
		},
		{
			name: "what got 404 is taken", running: []string{index}, planned: []string{index, home},
			rates: seen(live("none", 10, 2)), samples: []string{"none: GET h/home/a", "none: GET h/x"},
			want: `
  50 % of the sampled requests would be taken by endpoint home; no endpoint takes them now
    GET h/home/a
moved 0.50 lost 0.00 unknown 0.00
`,
		},
		{
			name: "header fields are known from who took it", running: []string{home, beta}, planned: []string{
				home, strings.Replace(beta, "/home/*", "/home/x/*", 1),
			},
			rates: seen(live("home", 100, 2), live("beta", 100, 2)),
			samples: []string{
				"beta: GET h/home/a", "beta: GET h/home/x", "home: GET h/home/a", "home: GET h/home/x",
			},
			want: `
  25 % of the sampled requests would go from endpoint beta to home
    GET h/home/a
moved 0.25 lost 0.00 unknown 0.00
`,
		},
		{
			name: "header fields that nothing is known of", running: []string{home}, planned: []string{home, beta},
			rates: seen(live("home", 100, 2)), samples: []string{"home: GET h/home/a", "none: GET h/x"},
			want: `
  which endpoint would take 50 % of the sampled requests depends on header fields, which samples do not have
moved 0.00 lost 0.00 unknown 0.50
`,
		},
		{
			name: "more header fields than those that were not there", running: []string{home, beta}, planned: []string{
				home, beta, `{name: more, from: /home/*, headers: {x-beta: "1", x-more: "1"}, pool: [http://a]}`,
			},
			rates: seen(live("home", 100, 2)), samples: []string{"home: GET h/home/a", "beta: GET h/home/b"},
			want: `
  which endpoint would take 50 % of the sampled requests depends on header fields, which samples do not have
moved 0.00 lost 0.00 unknown 0.50
`,
		},
		{
			name: "another value of a field that was there", running: []string{home, beta}, planned: []string{
				home, beta, `{name: two, from: /home/*, headers: {x-beta: "2"}, methods: [GET], pool: [http://a]}`,
			},
			rates: seen(live("beta", 100, 2)), samples: []string{"beta: GET h/home/b"},
		},
		{
			name: "samples from before the running table", running: []string{home, beta}, planned: []string{home}, old: true,
			rates: seen(live("home", 100, 2)), samples: []string{"home: GET h/home/a"},
			want: `
  which endpoint would take 100 % of the sampled requests depends on header fields, which samples do not have
moved 0.00 lost 0.00 unknown 1.00
`,
		},
		{
			name: "a sample that contradicts the running table", running: []string{home, index}, planned: []string{home},
			samples: []string{"home: GET h/index", "gone: GET h/home/a", "none: GET h/home/b"},
			want: `
! removes endpoint index: 10 requests in the last 5 minutes, which would get 404
    GET h/index
moved 0.00 lost 0.33 unknown 0.00
`,
		},
		{
			name: "a pool shrinks", running: []string{home}, planned: []string{"{name: home, from: /home/*, pool: [http://a]}"},
			rates: seen(live("home", 120, 3)),
			want:  "  leaves endpoint home 1 of 3 backends: 120 req/s on 3 data planes, 120 req/s for each instead of 40 req/s\n",
		},
		{
			name: "the pool of an idle endpoint shrinks", running: []string{home}, planned: []string{"{name: home, from: /home/*, pool: [http://a]}"},
			rates: seen(live("index", 120, 3)),
		},
		{
			name: "only backups are left", running: []string{home}, planned: []string{"{name: home, from: /home/*, pool: [{url: http://a, backup: true}]}"},
			rates: seen(live("home", 120, 3)),
			want:  "  leaves endpoint home only its backups: 120 req/s on 3 data planes\n",
		},
		{
			name: "it answers by itself", running: []string{home}, planned: []string{"{name: home, from: /home/*, redirect: {to: /x}}"},
			rates: seen(live("home", 120, 3)), samples: []string{"home: GET h/home/a"},
			want: "  endpoint home would no longer forward, but answer by itself with 302: 120 req/s on 3 data planes\n",
		},
		{
			name: "a rate below what there is", running: []string{index}, planned: []string{"{name: index, from: /index, rateLimit: {requests: 600, per: 1m}, pool: [http://a]}"},
			rates: seen(live("index", 40, 3)),
			want:  "! limits endpoint index to 600 requests per 1m0s: there are 40 req/s on 3 data planes\n",
		},
		{
			name: "a rate above what there is", running: []string{index}, planned: []string{"{name: index, from: /index, rateLimit: {requests: 50}, pool: [http://a]}"},
			rates: seen(live("index", 40, 3)),
		},
		{
			name: "another port", running: []string{index}, planned: []string{"port: 8001", "endpoints: [" + index + "]"},
			rates: seen(live("index", 40, 3)), samples: []string{"index: GET h/index"},
			want: "! closes port 8000 and opens 8001, on data planes without --port: 40 req/s on 3 data planes\n",
		},
		{
			name: "another port that nobody uses", running: []string{index}, planned: []string{"port: 8001", "endpoints: [" + index + "]"},
			want: "  closes port 8000 and opens 8001, on data planes without --port: no requests have been seen\n",
		},
		{
			name: "the PROXY protocol", running: []string{index}, planned: []string{"port: 8000", "proxyProtocol: true", "endpoints: [" + index + "]"},
			rates: seen(live("index", 40, 3)),
			want:  "! refuses client connections without a header of the PROXY protocol, as all are that work now: 40 req/s on 3 data planes\n",
		},
		{
			name: "the worst comes first", running: []string{home, index, all}, planned: []string{"{name: all, from: /*, host: h, pool: [http://z]}"},
			rates: seen(live("all", 500, 1), live("index", 40, 1), live("home", 60, 1)),
			samples: []string{
				"all: GET h/x", "all: GET h/y", "all: GET i/y", "home: GET h/home", "index: GET i/index",
			},
			want: `
! 20 % of the sampled requests would get 404; endpoint all takes them now
    GET i/y
! removes endpoint index: 40 req/s on 1 data plane, which would get 404
    GET i/index
  removes endpoint home: 60 req/s on 1 data plane, which endpoint all would take
    GET h/home
moved 0.20 lost 0.40 unknown 0.00
`,
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			in := plan.Input{Running: table(t, test.running...), Planned: table(t, test.planned...), Since: accepted, Rates: test.rates}
			for _, text := range test.samples {
				s := sample(t, text)
				if test.old {
					s.At = accepted.Add(-time.Second)
				}
				in.Samples.List = append(in.Samples.List, s)
			}
			got := plan.Make(in)
			if diff := cmp.Diff(strings.TrimPrefix(test.want, "\n"), show(got)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if want := strings.Contains(show(got), "! "); got.GetLosesTraffic() != want {
				t.Errorf("loses traffic: %t", got.GetLosesTraffic())
			}
		})
	}
}

func TestBasisAndChanges(t *testing.T) {
	in := plan.Input{Running: table(t, home, index), Planned: table(t, home), Since: accepted, Rates: seen(live("home", 120, 2))}
	in.Samples = traffic.Samples{
		List: []traffic.Sample{sample(t, "home: GET h/home")}, DataPlanes: 4, WithoutSamples: 1, Over: 2 * time.Minute,
	}
	got := plan.Make(in)
	if b := got.GetBasis(); b.GetDataPlanes() != 4 || b.GetWithoutSamples() != 1 || b.GetRequestsPerSecond() != 120 || b.GetSamples() != 1 || b.GetOver().AsDuration() != 2*time.Minute {
		t.Errorf("basis %v", b)
	}
	if len(got.GetChanges()) != 1 || got.GetChanges()[0].GetSubject() != "endpoint index" {
		t.Errorf("changes %v", got.GetChanges())
	}
}

func TestManyImpactsAreCut(t *testing.T) {
	var running []string
	var rates []traffic.EndpointRate
	for i := range 200 {
		running = append(running, fmt.Sprintf("{name: e%03d, from: /e%d, pool: [http://a]}", i, i))
		rates = append(rates, live(fmt.Sprintf("e%03d", i), float64(1000-i), 1))
	}
	got := plan.Make(plan.Input{Running: table(t, running...), Planned: table(t, index), Rates: seen(rates...)})
	if n := len(got.GetImpacts()); n != 51 {
		t.Fatalf("%d impacts", n)
	}
	last := got.GetImpacts()[50]
	if last.GetText() != "and 150 more like these" || !last.GetLosesTraffic() || !strings.HasPrefix(got.GetImpacts()[0].GetText(), "removes endpoint e000: 1000 req/s") {
		t.Errorf("first %q, last %q", got.GetImpacts()[0].GetText(), last.GetText())
	}
}

// BenchmarkMake is a change of one endpoint, with as many samples as there may be.
func BenchmarkMake(b *testing.B) {
	for _, n := range []int{1000, 100_000} {
		running, planned := &routetablev1.RouteTable{}, &routetablev1.RouteTable{}
		in := plan.Input{Running: running, Planned: planned, Since: accepted}
		for i := range n {
			e := &routetablev1.Endpoint{
				Name: fmt.Sprintf("e%06d", i), Path: &routetablev1.Endpoint_Prefix{Prefix: fmt.Sprintf("/service/%d", i)},
				Pool: []*routetablev1.Backend{{Url: "http://h", Weight: 1}},
			}
			running.Endpoints = append(running.Endpoints, e)
			if i != n/2 {
				planned.Endpoints = append(planned.Endpoints, proto.CloneOf(e))
			}
			in.Rates.Endpoints = append(in.Rates.Endpoints, live(e.GetName(), 1, 1))
		}
		for i := range 10_000 {
			name := fmt.Sprintf("e%06d", i*n/10_000)
			in.Samples.List = append(in.Samples.List, traffic.Sample{
				Method: "GET", Host: "shop.example.com", Path: fmt.Sprintf("/service/%d/x", i*n/10_000), Endpoint: name, Weight: 1, At: accepted,
			})
		}
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if !plan.Make(in).GetLosesTraffic() {
					b.Fatal("not noticed")
				}
			}
		})
	}
}
