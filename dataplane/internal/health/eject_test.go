package health_test

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"reverseproxy/dataplane/internal/backend"
)

// fail makes attempts of a member fail, and lets the manager see to it.
func fail(m *backend.Member, times int) {
	for range times {
		m.Failed()
	}
	synctest.Wait()
}

// member returns one of an endpoint.
func (f *fixture) member(endpoint string, i int) *backend.Member {
	return f.pool(endpoint).Members()[i].Health
}

const three = "http://10.0.0.1 http://10.0.0.2 http://10.0.0.3"

func TestEjection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, nil)
		f.serve(judged(endpoint("e", strings.Fields(three)...), 5, 50))
		a := f.member("e", 0)
		fail(a, 4)
		a.Succeeded()
		fail(a, 4)
		if got := f.gets("e"); got != "012" {
			t.Errorf("after failures that are not in a row %s get requests", got)
		}
		fail(a, 1)
		if got := f.gets("e"); got != "12" {
			t.Errorf("after five failures in a row %s get requests", got)
		}
		if m := f.manager.Unusable(); len(m) != 1 || m[0].Address != "10.0.0.1:80" || !m[0].Ejected || !m[0].Healthy ||
			m[0].Reason != "5 requests failed in a row; ejected for 10s" || !m[0].Since.Equal(time.Now()) {
			t.Errorf("status %+v", m)
		}
		fail(a, 50) // of requests that it had got before
		time.Sleep(10*time.Second - time.Nanosecond)
		if got := f.gets("e"); got != "12" {
			t.Errorf("before its time is over %s get requests", got)
		}
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		if got := f.gets("e"); got != "012" {
			t.Errorf("after its time %s get requests", got)
		}
		fail(a, 4)
		if got := f.gets("e"); got != "012" {
			t.Errorf("failures from before count: %s get requests", got)
		}
		for line, n := range map[string]int{
			`level=WARN msg="backend ejected" endpoint=e backend=http://10.0.0.1 address=10.0.0.1:80 failures=5 for=10s`: 1,
			`level=INFO msg="backend readmitted" endpoint=e backend=http://10.0.0.1 address=10.0.0.1:80`:                 1,
		} {
			if got := strings.Count(f.logged(), line); got != n {
				t.Errorf("%d times %q in\n%s", got, line, f.logged())
			}
		}
	})
}

// ejectedFor returns for how many seconds a member is out after failures, and lets
// that time pass.
func (f *fixture) ejectedFor(m *backend.Member) int {
	f.t.Helper()
	fail(m, 5)
	if !m.Ejected() {
		f.t.Fatal("it is not ejected")
	}
	began := time.Now()
	for m.Ejected() {
		time.Sleep(time.Second)
		synctest.Wait()
	}
	return int(time.Since(began) / time.Second)
}

// Each ejection in a row is twice as long as the one before, up to ten times the
// first, and a good time of its length takes a doubling back.
func TestEjectionsGrowAndShrink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, nil)
		f.serve(judged(endpoint("e", strings.Fields(three)...), 5, 50))
		m := f.member("e", 0)
		for _, step := range []struct{ good, want int }{
			{0, 10}, {0, 20}, {0, 40}, {0, 80}, {0, 100}, {0, 100},
			{99, 100},           // not long enough
			{100, 100},          // one level back, to the one that is as long
			{100 + 80 + 40, 40}, // three
			{1000, 10},          // all
			{9, 20}, {20 + 10, 10},
		} {
			time.Sleep(time.Duration(step.good) * time.Second)
			if got := f.ejectedFor(m); got != step.want {
				t.Errorf("after %d good seconds: ejected for %d s, want %d", step.good, got, step.want)
			}
		}
	})
}

func TestHowManyAreEjected(t *testing.T) {
	tests := []struct {
		name    string
		pool    string
		percent uint32
		fail    string // these members fail, one after the other
		want    string // these get requests
	}{
		{"half of four", three + " http://10.0.0.4", 50, "0123", "23"},
		{"half of three is one", three, 50, "012", "12"},
		{"one always", three, 1, "21", "01"},
		{"all but the last", three, 100, "012", "2"},
		{"never the only one", "http://10.0.0.1", 100, "0", "0"},
		{"never the only one with a weight", "http://10.0.0.1 http://10.0.0.2=0", 100, "0", "0"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := start(t, nil)
				e := endpoint("e", strings.Fields(test.pool)...)
				for _, b := range e.Pool {
					if url, ok := strings.CutSuffix(b.Url, "=0"); ok {
						b.Url, b.Weight = url, 0
					}
				}
				f.serve(judged(e, 5, test.percent))
				for _, i := range test.fail {
					fail(f.member("e", int(i-'0')), 5)
				}
				if got := f.gets("e"); got != test.want {
					t.Errorf("%s get requests, want %s", got, test.want)
				}
			})
		})
	}
}

// One that is kept because too many are ejected goes when there is room and it
// fails on.
func TestEjectionThatHasToWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, nil)
		f.serve(judged(endpoint("e", strings.Fields(three)...), 5, 50))
		fail(f.member("e", 0), 5)
		fail(f.member("e", 1), 7)
		time.Sleep(10 * time.Second)
		synctest.Wait()
		fail(f.member("e", 1), 4)
		if got := f.gets("e"); got != "02" {
			t.Errorf("%s get requests", got)
		}
	})
}

// An ejection outlives tables as its member does, and ends with its check.
func TestEjectionOutlivesTables(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, nil)
		f.serve(judged(endpoint("e", strings.Fields(three)...), 5, 50))
		fail(f.member("e", 0), 5)
		time.Sleep(4 * time.Second)
		f.serve(judged(endpoint("e", "http://10.0.0.3", "http://10.0.0.1", "http://10.0.0.5"), 2, 50), endpoint("f", "http://10.0.0.1"))
		if got := f.gets("e") + " " + f.gets("f"); got != "02 0" {
			t.Errorf("after another table %s get requests", got)
		}
		fail(f.member("f", 0), 100) // has no check
		time.Sleep(6 * time.Second)
		synctest.Wait()
		if got := f.gets("e"); got != "012" {
			t.Errorf("after its time %s get requests", got)
		}
		fail(f.member("e", 1), 2)
		if got := f.gets("e"); got != "02" {
			t.Errorf("by the new check %s get requests", got)
		}
		f.serve(endpoint("e", "http://10.0.0.3", "http://10.0.0.1", "http://10.0.0.5"))
		if got := f.gets("e"); got != "012" {
			t.Errorf("without a check %s get requests", got)
		}
		fail(f.member("e", 1), 100)
		time.Sleep(time.Hour)
		if got := f.gets("e"); got != "012" || strings.Count(f.logged(), "\n") != 3 {
			t.Errorf("without a check %s get requests; log:\n%s", got, f.logged())
		}
	})
}

// The manager is slow or gone: failing costs nothing more.
func TestTripsDoNotBlock(t *testing.T) {
	trips := make(chan *backend.Member, 1)
	m := backend.NewMember(backend.NewRegistry().State("10.0.0.1:80"))
	m.Watch(2, trips)
	for range 100 {
		m.Failed()
	}
	if len(trips) != 1 {
		t.Fatal("it has not tripped")
	}
	<-trips
	m.Failed()
	if len(trips) != 1 {
		t.Error("a member that nobody had time for is not sent again")
	}
}
