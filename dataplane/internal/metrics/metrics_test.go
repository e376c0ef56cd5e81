package metrics_test

import (
	"fmt"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"reverseproxy/dataplane/internal/backend"
	"reverseproxy/dataplane/internal/metrics"
)

// gather returns every series of a set as "name{labels} value", histograms as
// their count and sum.
func gather(t testing.TB, s *metrics.Set) map[string]float64 {
	t.Helper()
	r := prometheus.NewPedanticRegistry()
	r.MustRegister(s)
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	series := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			var labels []string
			for _, l := range m.GetLabel() {
				labels = append(labels, l.GetName()+"="+l.GetValue())
			}
			key := strings.TrimPrefix(f.GetName(), "dataplane_") + "{" + strings.Join(labels, ",") + "}"
			switch {
			case m.GetHistogram() != nil:
				series[key+"_count"] = float64(m.GetHistogram().GetSampleCount())
				series[key+"_sum"] = m.GetHistogram().GetSampleSum()
			case m.GetGauge() != nil:
				series[key] = m.GetGauge().GetValue()
			default:
				series[key] = m.GetCounter().GetValue()
			}
		}
	}
	return series
}

// matching returns the series whose key matches.
func matching(series map[string]float64, pattern string) map[string]float64 {
	found := map[string]float64{}
	for k, v := range series {
		if regexp.MustCompile(pattern).MatchString(k) {
			found[k] = v
		}
	}
	return found
}

func want(t *testing.T, s *metrics.Set, pattern string, want map[string]float64) {
	t.Helper()
	if diff := cmp.Diff(want, matching(gather(t, s), pattern)); diff != "" {
		t.Errorf("series %s (-want +got):\n%s", pattern, diff)
	}
}

func TestRequests(t *testing.T) {
	s := metrics.NewSet(2)
	e := s.Endpoint("index")
	for range 3 {
		e.Begin(0)
	}
	e.End(0, &metrics.Request{Method: "GET", Code: 200, Duration: 2 * time.Millisecond, BytesIn: 10, BytesOut: 100})
	e.End(0, &metrics.Request{Method: "BREW", Code: 502, ByProxy: true, Duration: time.Second, BytesIn: 1, BytesOut: 2})
	e.Begin(1)
	e.End(1, &metrics.Request{Method: "GET", Code: 200, Duration: -1})
	want(t, s, "endpoint=index", map[string]float64{
		"requests_total{code=200,endpoint=index,method=GET}":         2,
		"requests_total{code=502,endpoint=index,method=other}":       1,
		"requests_in_flight{endpoint=index}":                         1,
		"request_duration_seconds{endpoint=index}_count":             3,
		"request_duration_seconds{endpoint=index}_sum":               1.002,
		"request_bytes_total{endpoint=index}":                        11,
		"response_bytes_total{endpoint=index}":                       102,
		"endpoint_panic{endpoint=index}":                             0,
		"endpoint_panics_total{endpoint=index}":                      0,
		"requests_refused_total{endpoint=index,reason=no_address}":   0,
		"requests_refused_total{endpoint=index,reason=no_backend}":   0,
		"requests_refused_total{endpoint=index,reason=none_healthy}": 0,
	})
	s.None().Begin(0)
	s.None().End(0, &metrics.Request{Method: "GET", Code: 404, ByProxy: true})
	want(t, s, "^requests_.*endpoint=none", map[string]float64{
		"requests_total{code=404,endpoint=none,method=GET}": 1,
		"requests_in_flight{endpoint=none}":                 0,
	})
	if all := s.Totals(); all.Requests != 4 || all.Failures != 1 {
		t.Errorf("totals are %+v; want 4 requests, 1 failure", all)
	}
}

func TestTotals(t *testing.T) {
	s := metrics.NewSet(2)
	e := s.Endpoint("e")
	end := func(e *metrics.Endpoint, shard, code int, byProxy bool, d time.Duration) {
		e.Begin(shard)
		e.End(shard, &metrics.Request{Method: "GET", Code: code, ByProxy: byProxy, Duration: d})
	}
	for shard := range 2 {
		end(e, shard, 200, false, 0)
		end(e, shard, 499, false, time.Millisecond)
		end(e, shard, 500, false, time.Hour)
		end(e, shard, 503, false, time.Second) // of a backend, or of an endpoint that answers so
		end(e, shard, 502, true, time.Second)
		end(e, shard, 503, true, time.Second)
		end(e, shard, 504, true, time.Second)
		end(e, shard, 500, true, time.Second)
		end(s.None(), shard, 404, true, time.Second)
		end(s.None(), shard, 503, true, time.Second)
	}
	want := metrics.Totals{Requests: 20, Failures: 10, ServerErrors: 14, GatewayErrors: 6}
	want.Durations[0], want.Durations[1], want.Durations[10], want.Durations[metrics.Buckets-1] = 2, 2, 14, 2
	if diff := cmp.Diff(want, s.Totals()); diff != "" {
		t.Errorf("totals (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]uint64{10, 10}, s.Answered(nil)); diff != "" {
		t.Errorf("answered by each shard (-want +got):\n%s", diff)
	}
	s.Forget("e")
	if diff := cmp.Diff(want, s.Totals()); diff != "" {
		t.Errorf("after an endpoint has been forgotten (-want +got):\n%s", diff)
	}
}

func TestEndpointHealth(t *testing.T) {
	s := metrics.NewSet(1)
	e := s.Endpoint("e")
	for _, step := range []struct{ on, news bool }{{false, false}, {true, true}, {true, false}, {false, true}, {true, true}} {
		if news := e.Panic(step.on); news != step.news {
			t.Errorf("%t is news: %t", step.on, news)
		}
	}
	e.Refused(metrics.NoneHealthy)
	want(t, s, "endpoint_panic|refused", map[string]float64{
		"endpoint_panic{endpoint=e}":                             1,
		"endpoint_panics_total{endpoint=e}":                      2,
		"requests_refused_total{endpoint=e,reason=no_address}":   0,
		"requests_refused_total{endpoint=e,reason=no_backend}":   0,
		"requests_refused_total{endpoint=e,reason=none_healthy}": 1,
	})
}

func TestHistogramBuckets(t *testing.T) {
	s := metrics.NewSet(1)
	e := s.None()
	for _, d := range []time.Duration{
		0, 500 * time.Microsecond, 500*time.Microsecond + 1, 10 * time.Second, 10*time.Second + 1, time.Hour,
	} {
		e.Begin(0)
		e.End(0, &metrics.Request{Method: "GET", Code: 200, Duration: d})
	}
	text := `
# HELP dataplane_request_duration_seconds Time from the first byte of a request to the last byte of its response.
# TYPE dataplane_request_duration_seconds histogram
dataplane_request_duration_seconds_bucket{endpoint="none",le="0.0005"} 2
dataplane_request_duration_seconds_bucket{endpoint="none",le="0.001"} 3
dataplane_request_duration_seconds_bucket{endpoint="none",le="0.0025"} 3
dataplane_request_duration_seconds_bucket{endpoint="none",le="0.005"} 3
dataplane_request_duration_seconds_bucket{endpoint="none",le="0.01"} 3
dataplane_request_duration_seconds_bucket{endpoint="none",le="0.025"} 3
dataplane_request_duration_seconds_bucket{endpoint="none",le="0.05"} 3
dataplane_request_duration_seconds_bucket{endpoint="none",le="0.1"} 3
dataplane_request_duration_seconds_bucket{endpoint="none",le="0.25"} 3
dataplane_request_duration_seconds_bucket{endpoint="none",le="0.5"} 3
dataplane_request_duration_seconds_bucket{endpoint="none",le="1"} 3
dataplane_request_duration_seconds_bucket{endpoint="none",le="2.5"} 3
dataplane_request_duration_seconds_bucket{endpoint="none",le="5"} 3
dataplane_request_duration_seconds_bucket{endpoint="none",le="10"} 4
dataplane_request_duration_seconds_bucket{endpoint="none",le="+Inf"} 6
dataplane_request_duration_seconds_sum{endpoint="none"} 3620.001000002
dataplane_request_duration_seconds_count{endpoint="none"} 6
`
	if err := testutil.CollectAndCompare(s, strings.NewReader(text), "dataplane_request_duration_seconds"); err != nil {
		t.Error(err)
	}
}

func member() *backend.Member { return backend.NewMember(backend.NewRegistry().State("a:80")) }

// A backend is up while one of its addresses can be used.
func TestBackendUp(t *testing.T) {
	b := metrics.NewSet(1)
	up := func() float64 {
		t.Helper()
		return gather(t, b)["backend_up{backend=http://a,endpoint=e}"]
	}
	one, two := member(), member()
	b.Endpoint("e").Backend("http://a").Track([]*backend.Member{one, two})
	for _, step := range []struct {
		name   string
		change func()
		want   float64
	}{
		{"nothing is known", func() {}, 1},
		{"one cannot be connected to", func() { one.State.SetUp(false) }, 1},
		{"the other is ejected", func() { two.SetEjected(true) }, 0},
		{"one is back", func() { one.State.SetUp(true) }, 1},
		{"it is unhealthy", func() { one.SetHealthy(false) }, 0},
		{"the other is readmitted", func() { two.SetEjected(false) }, 1},
		{"there is none", func() { b.Endpoint("e").Backend("http://a").Track(nil) }, 0},
	} {
		step.change()
		if got := up(); got != step.want {
			t.Errorf("%s: up is %v, want %v", step.name, got, step.want)
		}
	}
}

func TestBackends(t *testing.T) {
	s := metrics.NewSet(2)
	e := s.Endpoint("e")
	b := e.Backend("http://a")
	if e.Backend("http://a") != b || e.Backend("http://b") == b {
		t.Error("a URL does not have counters of its own")
	}
	one := member()
	b.Track([]*backend.Member{one})
	b.Response(0, 200, time.Millisecond)
	b.Response(1, 200, time.Millisecond)
	b.Response(1, 503, time.Second)
	b.Error(0, metrics.ConnectFailed)
	b.Error(1, metrics.ConnectFailed)
	b.Error(1, metrics.BadMessage)
	const labels = "backend=http://a,endpoint=e"
	wanted := map[string]float64{
		"backend_requests_total{backend=http://a,code=200,endpoint=e}": 2,
		"backend_requests_total{backend=http://a,code=503,endpoint=e}": 1,
		"backend_errors_total{" + labels + ",reason=connect_failed}":   2,
		"backend_errors_total{" + labels + ",reason=connect_timeout}":  0,
		"backend_errors_total{" + labels + ",reason=response_timeout}": 0,
		"backend_errors_total{" + labels + ",reason=idle_timeout}":     0,
		"backend_errors_total{" + labels + ",reason=per_try_timeout}":  0,
		"backend_errors_total{" + labels + ",reason=request_timeout}":  0,
		"backend_errors_total{" + labels + ",reason=reset}":            0,
		"backend_errors_total{" + labels + ",reason=bad_message}":      1,
		"backend_request_duration_seconds{" + labels + "}_count":       3,
		"backend_request_duration_seconds{" + labels + "}_sum":         1.002,
		"backend_up{" + labels + "}":                                   1,
	}
	want(t, s, "backend=http://a", wanted)
	one.State.SetUp(false)
	wanted["backend_up{"+labels+"}"] = 0
	want(t, s, "backend=http://a", wanted)
}

func TestConnections(t *testing.T) {
	s := metrics.NewSet(2)
	s.Connections(0, metrics.Idle, 1)
	s.Connections(1, metrics.Idle, 1)
	s.Connections(0, metrics.Idle, -1)
	s.Connections(0, metrics.Active, 1)
	want(t, s, "connections", map[string]float64{
		"connections{state=active}": 1, "connections{state=idle}": 1, "connections{state=tunnel}": 0,
	})
}

func TestClientErrors(t *testing.T) {
	s := metrics.NewSet(2)
	s.ClientError(0, metrics.BodyTimeout)
	s.ClientError(1, metrics.BodyTimeout)
	s.ClientError(1, metrics.TooSlow)
	want(t, s, "client_errors", map[string]float64{
		"client_errors_total{reason=head_timeout}": 0, "client_errors_total{reason=body_timeout}": 2,
		"client_errors_total{reason=read_timeout}": 0, "client_errors_total{reason=too_slow}": 1,
		"client_errors_total{reason=no_proxy_header}": 0, "client_errors_total{reason=proxy_header_timeout}": 0, "client_errors_total{reason=untrusted_proxy_header}": 0,
	})
}

func TestRetries(t *testing.T) {
	s := metrics.NewSet(2)
	e := s.Endpoint("e")
	want(t, s, "retries", map[string]float64{})
	e.TrackRetries(true)
	e.Retry(0, metrics.RetryReset)
	e.Retry(1, metrics.RetryReset)
	e.Retry(1, metrics.Retry504)
	e.RetrySkipped(0, metrics.SkippedBudget)
	want(t, s, "retries", map[string]float64{
		"retries_total{endpoint=e,reason=connect_failure}": 0, "retries_total{endpoint=e,reason=reset}": 2, "retries_total{endpoint=e,reason=timeout}": 0,
		"retries_total{endpoint=e,reason=502}": 0, "retries_total{endpoint=e,reason=503}": 0, "retries_total{endpoint=e,reason=504}": 1,
		"retries_skipped_total{endpoint=e,why=attempts}": 0, "retries_skipped_total{endpoint=e,why=budget}": 1, "retries_skipped_total{endpoint=e,why=method}": 0,
		"retries_skipped_total{endpoint=e,why=body}": 0, "retries_skipped_total{endpoint=e,why=sent}": 0, "retries_skipped_total{endpoint=e,why=backend}": 0,
	})
	e.TrackRetries(false)
	want(t, s, "retries", map[string]float64{})
	e.Begin(0)
	e.Begin(1)
	e.End(1, &metrics.Request{Code: 200})
	if n := e.Begun(); n != 2 {
		t.Errorf("%d requests have begun", n)
	}
}

// What labels are known exists before the first request.
func TestSeriesFromTheStart(t *testing.T) {
	s := metrics.NewSet(2)
	s.Endpoint("e").Backend("http://a").Track([]*backend.Member{member()})
	got := gather(t, s)
	for _, name := range []string{
		"requests_in_flight{endpoint=e}", "request_duration_seconds{endpoint=e}_count", "request_bytes_total{endpoint=e}",
		"response_bytes_total{endpoint=e}", "backend_up{backend=http://a,endpoint=e}",
		"backend_errors_total{backend=http://a,endpoint=e,reason=reset}", "requests_in_flight{endpoint=none}",
	} {
		if _, ok := got[name]; !ok {
			t.Errorf("there is no %s in %v", name, got)
		}
	}
}

// Codes that no table of known ones holds; a client or backend that sends all
// there are makes a bounded number of series.
func TestManyCodes(t *testing.T) {
	s := metrics.NewSet(1)
	e := s.Endpoint("e")
	for round := range 3 {
		for code := -10; code < 1100; code++ {
			for _, m := range []string{"GET", "POST", "X", "Y"} {
				e.Begin(0)
				e.End(0, &metrics.Request{Method: m, Code: code})
			}
		}
		got := matching(gather(t, s), "^requests_total")
		if len(got) != 901*3 {
			t.Fatalf("%d series, want 900 codes and one for what is none, by 3 methods", len(got))
		}
		n := float64(round + 1)
		for key, want := range map[string]float64{
			"requests_total{code=100,endpoint=e,method=GET}":   n,
			"requests_total{code=999,endpoint=e,method=other}": 2 * n,
			"requests_total{code=0,endpoint=e,method=POST}":    210 * n,
		} {
			if got[key] != want {
				t.Errorf("%s is %v, want %v", key, got[key], want)
			}
		}
	}
	want(t, s, "in_flight.*=e", map[string]float64{"requests_in_flight{endpoint=e}": 0})
}

func TestForget(t *testing.T) {
	s := metrics.NewSet(1)
	kept, gone := s.Endpoint("kept"), s.Endpoint("gone")
	for i := range 40 { // a long list, with its index
		kept.Backend(fmt.Sprint("http://", i)).Error(0, metrics.Reset)
	}
	gone.Backend("http://a").Response(0, 200, 0)
	first := kept.Backend("http://0")
	gone.Begin(0)
	s.Forget("gone")
	s.Forget("never there")
	kept.Retain(func(url string) bool { return url == "http://0" || url == "http://39" })
	if got := matching(gather(t, s), "gone|http://a"); len(got) != 0 {
		t.Errorf("series of what has left the table: %v", got)
	}
	want(t, s, "reset", map[string]float64{
		"backend_errors_total{backend=http://0,endpoint=kept,reason=reset}":  1,
		"backend_errors_total{backend=http://39,endpoint=kept,reason=reset}": 1,
	})
	if s.Endpoint("kept") != kept || kept.Backend("http://0") != first {
		t.Error("what is in the table has new counters")
	}
	if kept.Backend("http://7") == nil || len(matching(gather(t, s), "reset")) != 3 {
		t.Error("a backend that comes back is not exposed")
	}

	// A request that was in flight ends, while the name is used anew.
	again := s.Endpoint("gone")
	again.Begin(0)
	gone.End(0, &metrics.Request{Method: "GET", Code: 500, ByProxy: true})
	gone.Backend("http://a").Response(0, 200, 0)
	gone.Backend("http://new").Error(0, metrics.Reset)
	want(t, s, "gone.*}$", map[string]float64{
		"requests_in_flight{endpoint=gone}":                         1,
		"request_bytes_total{endpoint=gone}":                        0,
		"response_bytes_total{endpoint=gone}":                       0,
		"endpoint_panic{endpoint=gone}":                             0,
		"endpoint_panics_total{endpoint=gone}":                      0,
		"requests_refused_total{endpoint=gone,reason=no_address}":   0,
		"requests_refused_total{endpoint=gone,reason=no_backend}":   0,
		"requests_refused_total{endpoint=gone,reason=none_healthy}": 0,
	})
	if all := s.Totals(); all.Requests != 1 || all.Failures != 1 {
		t.Errorf("totals are %+v; those of forgotten endpoints are missing", all)
	}
}

func TestDetached(t *testing.T) {
	s := metrics.NewSet(1)
	e := s.Detached("e")
	e.Begin(0)
	e.Backend("http://a").Response(0, 200, 0)
	e.End(0, &metrics.Request{Method: "GET", Code: 500, ByProxy: true})
	want(t, s, "endpoint=e", map[string]float64{})
	if all := s.Totals(); all.Requests != 1 || all.Failures != 1 {
		t.Errorf("totals are %+v, want 1 request, 1 failure", all)
	}
	if s.Endpoint("e") == e {
		t.Error("detached counters were found")
	}
}

// Shards count at the same time, while tables change and the numbers are read;
// in the end every number is exact.
func TestShardsAreExact(t *testing.T) {
	const shards, rounds, endpoints = 4, 3000, 5
	s := metrics.NewSet(shards)
	stop := make(chan struct{})
	var reading, writing sync.WaitGroup
	reading.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			for key, v := range gather(t, s) {
				if v < 0 {
					t.Errorf("%s is %v", key, v)
				}
			}
			s.Forget("gone")
			s.Endpoint("0").Retain(func(string) bool { return true })
			s.Totals()
		}
	})
	for shard := range shards {
		writing.Go(func() {
			for i := range rounds {
				e := s.Endpoint(fmt.Sprint(i % endpoints))
				e.Begin(shard)
				s.Connections(shard, metrics.Active, 1)
				b := e.Backend(fmt.Sprint("http://", i%3))
				b.Response(shard, 200+i%7, time.Millisecond)
				b.Error(shard, metrics.Reason(i%6))
				gone := s.Endpoint("gone")
				gone.Begin(shard)
				gone.End(shard, &metrics.Request{Method: "GET", Code: 200})
				s.Connections(shard, metrics.Active, -1)
				e.End(shard, &metrics.Request{Method: "GET", Code: 200 + i%7, Duration: time.Millisecond, BytesIn: 2, BytesOut: 3, ByProxy: true})
			}
		})
	}
	writing.Wait()
	close(stop)
	reading.Wait()
	sum := map[string]float64{}
	for key, v := range matching(gather(t, s), "endpoint=[0-9]|state=") {
		sum[key[:strings.IndexByte(key, '{')]+key[strings.LastIndexByte(key, '}')+1:]] += v
	}
	for name, want := range map[string]float64{
		"requests_total": shards * rounds, "request_duration_seconds_count": shards * rounds, "requests_in_flight": 0,
		"request_bytes_total": 2 * shards * rounds, "response_bytes_total": 3 * shards * rounds,
		"backend_requests_total": shards * rounds, "backend_errors_total": shards * rounds, "connections": 0,
	} {
		if sum[name] != want {
			t.Errorf("%s is %v in all, want %v", name, sum[name], want)
		}
	}
	if all := s.Totals(); all.Requests != 2*shards*rounds || all.Failures != 0 {
		t.Errorf("totals are %+v", all)
	}
}

func TestLint(t *testing.T) {
	s := metrics.NewSet(1)
	e := s.Endpoint("e")
	e.Begin(0)
	e.End(0, &metrics.Request{Method: "GET", Code: 200})
	b := e.Backend("http://a")
	b.Track([]*backend.Member{member()})
	b.Response(0, 200, 0)
	problems, err := testutil.CollectAndLint(s)
	if err != nil || len(problems) > 0 {
		t.Errorf("%v, %v", problems, err)
	}
}

func BenchmarkBeginEnd(b *testing.B) {
	s := metrics.NewSet(2)
	e := s.Endpoint("e")
	r := &metrics.Request{Method: "GET", Code: 200, Duration: 3 * time.Millisecond, BytesIn: 100, BytesOut: 1000}
	b.ReportAllocs()
	for b.Loop() {
		e.Begin(0)
		e.End(0, r)
	}
}

func BenchmarkBackendResponse(b *testing.B) {
	backend := metrics.NewSet(2).Endpoint("e").Backend("http://a")
	b.ReportAllocs()
	for b.Loop() {
		backend.Response(0, 200, time.Millisecond)
	}
}

func BenchmarkGather(b *testing.B) {
	s := metrics.NewSet(2)
	for i := range 10_000 {
		e := s.Endpoint(fmt.Sprintf("/service/%d/index", i))
		for j := range 3 {
			back := e.Backend(fmt.Sprintf("http://10.0.0.%d:%d", i%250, 8000+j))
			back.Track([]*backend.Member{member()})
			if i%10 == 0 { // a tenth is in use
				back.Response(0, 200, time.Millisecond)
			}
		}
		if i%10 == 0 {
			e.Begin(0)
			e.End(0, &metrics.Request{Method: "GET", Code: 200})
		}
	}
	r := prometheus.NewRegistry()
	r.MustRegister(s)
	for b.Loop() {
		if _, err := r.Gather(); err != nil {
			b.Fatal(err)
		}
	}
}
