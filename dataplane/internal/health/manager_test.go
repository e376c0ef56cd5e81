package health_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"google.golang.org/protobuf/types/known/durationpb"

	routetablev1 "reverseproxy/proto/routetable/v1"
)

func TestUnhealthyBackendsGetNoRequests(t *testing.T) {
	a, b, c := newOrigin(t), newOrigin(t), newOrigin(t)
	f := start(t, nil)
	f.serve(probed(endpoint("e", a.URL, b.URL, c.URL)))
	if got := f.gets("e"); got != "012" {
		t.Errorf("before the first probe %s get requests", got)
	}
	b.answers(status(503))
	eventually(t, "b is out", func() bool { return f.gets("e") == "02" })
	b.answers(nil)
	eventually(t, "b is back", func() bool { return f.gets("e") == "012" })
	a.Close()
	eventually(t, "a is out", func() bool { return f.gets("e") == "12" })

	log := f.logged()
	for _, line := range []string{
		`level=WARN msg="backend unhealthy" backend=` + addr(b) + ` endpoints=e error="status 503, expected 2xx"`,
		`level=INFO msg="backend healthy" backend=` + addr(b) + ` endpoints=e`,
		`level=WARN msg="backend unhealthy" backend=` + addr(a) + ` endpoints=e error="connect: connection refused"`,
	} {
		if n := strings.Count(log, line); n != 1 {
			t.Errorf("%d times %q in\n%s", n, line, log)
		}
	}
}

func addr(o *origin) string { return o.Listener.Addr().String() }

// A backend is unhealthy only after failures in a row, and healthy again only after
// successes in a row.
func TestInARow(t *testing.T) {
	a := newOrigin(t)
	f := start(t, nil)
	n := 0 // every third fails
	a.answers(func(w http.ResponseWriter, _ *http.Request) {
		if n++; n%3 == 0 {
			w.WriteHeader(http.StatusInternalServerError)
		}
	})
	f.serve(probed(endpoint("e", a.URL), func(c *check) {
		// A busy host must not make one late that is not to fail.
		c.UnhealthyAfter, c.Interval, c.Timeout = 2, durationpb.New(time.Second), durationpb.New(time.Second)
		c.JitterPercent = 0
	}))
	eventually(t, "ten probes", func() bool { n, _ := a.seen(); return n >= 10 })
	if f.logged() != "" {
		t.Errorf("it is not healthy:\n%s", f.logged())
	}
}

// However many endpoints share a backend and a check, it is probed once in an
// interval.
func TestOneProber(t *testing.T) {
	a := newOrigin(t)
	f := start(t, nil)
	var endpoints []*routetablev1.Endpoint
	for _, name := range []string{"a", "b", "c", "d", "e"} {
		endpoints = append(endpoints, probed(endpoint(name, a.URL, a.URL+"/other/path")))
	}
	f.serve(endpoints...)
	eventually(t, "a probe", func() bool { n, _ := a.seen(); return n > 0 })
	began := time.Now()
	before, _ := a.seen()
	eventually(t, "ten more", func() bool { n, _ := a.seen(); return n >= before+10 })
	// 100 ms, at most a fifth of it less, make 720; one for each endpoint, a fifth of that.
	// A probe that had been late may be counted sooner after the one before.
	if took := time.Since(began); took < 400*time.Millisecond {
		t.Errorf("ten probes in %v", took)
	}
	a.answers(status(500))
	for _, e := range endpoints {
		eventually(t, e.Name+" knows", func() bool {
			for _, m := range f.manager.Members(e.Name) {
				if m.Healthy || m.Reason == "" {
					return false
				}
			}
			return len(f.manager.Members(e.Name)) == 2
		})
	}
	if n := strings.Count(f.logged(), "\n"); n != 1 {
		t.Errorf("%d lines, want one:\n%s", n, f.logged())
	}
}

// State outlives tables while backend and check are the same, and a new member of a
// prober that knows has its state at once.
func TestStateOutlivesTables(t *testing.T) {
	a, b := newOrigin(t), newOrigin(t)
	a.answers(status(500))
	f := start(t, nil)
	f.serve(probed(endpoint("e", a.URL, b.URL)))
	eventually(t, "a is out", func() bool { return f.gets("e") == "1" })
	since := f.manager.Unusable()[0].Since
	a.answers(nil)
	a.Close() // so that no probe can make it healthy

	// Other endpoints, another order, another URL of the same address.
	f.serve(probed(endpoint("d", b.URL, a.URL)), probed(endpoint("e", b.URL, a.URL+"/x", a.URL)))
	if got := f.gets("d") + f.gets("e"); got != "00" {
		t.Errorf("after another table %s get requests", got)
	}
	for _, m := range f.manager.Unusable() {
		if !m.Since.Equal(since) {
			t.Errorf("%+v is unhealthy since another moment than %v", m, since)
		}
	}
	// Without a check, and back: what was known is gone.
	f.serve(endpoint("e", b.URL, a.URL))
	if got := f.gets("e"); got != "01" || len(f.manager.Unusable()) != 0 {
		t.Errorf("without a check %s get requests", got)
	}
	f.serve(probed(endpoint("e", b.URL, a.URL)))
	if got := f.gets("e"); got != "01" {
		t.Errorf("with the check again %s get requests", got)
	}
	eventually(t, "a is out again", func() bool { return f.gets("e") == "0" })
	// Another check starts anew.
	f.serve(probed(endpoint("e", b.URL, a.URL), func(c *check) { c.Path, c.UnhealthyAfter = "/other", 1000 }))
	if got := f.gets("e"); got != "01" {
		t.Errorf("with another check %s get requests", got)
	}
}

// Probing ends at once with the last endpoint that wants it.
func TestProbingEnds(t *testing.T) {
	a := newOrigin(t)
	gone := make(chan struct{}, 1) // there is one probe
	a.answers(func(_ http.ResponseWriter, r *http.Request) {
		<-r.Context().Done()
		gone <- struct{}{}
	})
	f := start(t, nil)
	slow := func(c *check) { c.Interval, c.Timeout = durationpb.New(time.Hour), durationpb.New(time.Hour) }
	f.serve(probed(endpoint("d", a.URL), slow), probed(endpoint("e", a.URL), slow))
	eventually(t, "a probe", func() bool { n, _ := a.seen(); return n == 1 })
	f.serve(probed(endpoint("e", a.URL), slow))
	select {
	case <-gone:
		t.Fatal("the probe has ended with the first of two endpoints")
	default:
	}
	f.serve(endpoint("e", a.URL))
	<-gone
	if n := testutil.CollectAndCount(f.manager, "dataplane_health_checks_total"); n != 0 {
		t.Errorf("%d series of a prober that has ended", n)
	}
}

// Of a large table, endpoints with an active check are in use from the start.
func TestLargeTable(t *testing.T) {
	a := newOrigin(t)
	f := start(t, nil)
	var endpoints []*routetablev1.Endpoint
	for i := range 1100 {
		e := endpoint(name(i), a.URL)
		if i == 700 {
			probed(e)
		}
		endpoints = append(endpoints, e)
	}
	f.serve(endpoints...)
	eventually(t, "a probe", func() bool { n, _ := a.seen(); return n > 0 })
	if len(f.manager.Members(name(700))) != 1 || len(f.manager.Members(name(0))) != 0 {
		t.Error("other endpoints are watched than those with a check")
	}
}

func name(i int) string {
	return "e" + string([]byte{byte('0' + i/1000), byte('0' + i/100%10), byte('0' + i/10%10), byte('0' + i%10)})
}

// However many URLs of one address a pool has, it is probed once.
func TestManyURLs(t *testing.T) {
	o := newOrigin(t)
	f := start(t, nil)
	e := endpoint("e")
	for i := range 1000 {
		e.Pool = append(e.Pool, &routetablev1.Backend{Url: o.URL + "/" + name(i), Weight: 1})
	}
	f.serve(probed(e))
	eventually(t, "a few probes", func() bool { n, _ := o.seen(); return n >= 3 })
	o.answers(status(500))
	eventually(t, "all are out", func() bool { return len(f.manager.Unusable()) == 1000 })
	if n := strings.Count(f.logged(), "\n"); n != 1 {
		t.Errorf("%d lines, want one", n)
	}
}

func TestMetrics(t *testing.T) {
	a, b := newOrigin(t), newOrigin(t)
	b.answers(status(500))
	f := start(t, nil)
	f.serve(judged(probed(endpoint("e", a.URL, b.URL)), 5, 50), endpoint("without", a.URL))
	eventually(t, "b is out", func() bool { return f.gets("e") == "0" })
	want := strings.NewReplacer(`"A"`, `"`+a.URL+`"`, `"B"`, `"`+b.URL+`"`).Replace(`
# HELP dataplane_backend_ejections_total Ejections of a backend by its endpoint's passive check.
# TYPE dataplane_backend_ejections_total counter
dataplane_backend_ejections_total{backend="A",endpoint="e"} 0
dataplane_backend_ejections_total{backend="B",endpoint="e"} 0
# HELP dataplane_backend_members Addresses of a backend that has a health check or a name, by state: usable, unhealthy, ejected.
# TYPE dataplane_backend_members gauge
dataplane_backend_members{backend="A",endpoint="e",state="ejected"} 0
dataplane_backend_members{backend="A",endpoint="e",state="unhealthy"} 0
dataplane_backend_members{backend="A",endpoint="e",state="usable"} 1
dataplane_backend_members{backend="B",endpoint="e",state="ejected"} 0
dataplane_backend_members{backend="B",endpoint="e",state="unhealthy"} 1
dataplane_backend_members{backend="B",endpoint="e",state="usable"} 0
`)
	if err := testutil.CollectAndCompare(f.manager, strings.NewReader(want), "dataplane_backend_ejections_total", "dataplane_backend_members"); err != nil {
		t.Error(err)
	}
	if n := testutil.CollectAndCount(f.manager, "dataplane_health_checks_total"); n != 4 {
		t.Errorf("%d series of checks, want 4", n)
	}
	f.serve(endpoint("without", a.URL))
	if n := testutil.CollectAndCount(f.manager); n != 0 {
		t.Errorf("%d series of an endpoint that is gone", n)
	}
}

// A table that does not come into force changes nothing for good.
func TestTableThatNeverComesIntoForce(t *testing.T) {
	a, b := newOrigin(t), newOrigin(t)
	a.answers(status(500))
	f := start(t, nil)
	f.serve(probed(endpoint("e", a.URL, b.URL)))
	eventually(t, "a is out", func() bool { return f.gets("e") == "1" })
	in := f.current
	f.serve(endpoint("e", a.URL, b.URL), probed(endpoint("f", b.URL)))
	f.current = in
	f.state.Retain(in)
	eventually(t, "a is out again", func() bool { return f.gets("e") == "1" })
	if f.manager.Members("f") != nil {
		t.Error("an endpoint of the other table is watched")
	}
}
