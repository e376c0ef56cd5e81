package subscribe

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"

	"reverseproxy/dataplane/internal/activate/activatetest"
	"reverseproxy/dataplane/internal/backend"
	"reverseproxy/dataplane/internal/metrics"
	"reverseproxy/dataplane/internal/sample"
	routetablev1 "reverseproxy/proto/routetable/v1"
)

// slowly keeps heartbeats from coming by themselves.
func slowly(o *Options) { o.Heartbeat = time.Hour }

func (p *peer) ask(t *testing.T, r *routetablev1.Report) {
	t.Helper()
	p.mustSend(t, &routetablev1.SubscribeResponse{Message: &routetablev1.SubscribeResponse_Report{Report: r}})
}

// nextHeartbeat waits for one.
func (p *peer) nextHeartbeat(t *testing.T) *routetablev1.Heartbeat {
	t.Helper()
	select {
	case h := <-p.heartbeats:
		return h
	case <-time.After(patience):
		t.Fatal("no heartbeat came")
		return nil
	}
}

// The control plane is told at once what it asks for, under the version in force.
func TestReportsWhenAsked(t *testing.T) {
	cp := startControlPlane(t, "127.0.0.1:0", nil)
	dp := startDataPlane(t, t.TempDir(), slowly, cp.address)
	p := cp.accept(t)
	if h := p.nextHeartbeat(t); len(h.GetBackends())+len(h.GetWatched()) > 0 {
		t.Errorf("before there is a table: %v", h)
	}
	rt, version := activatetest.Table(activatetest.Port(t), backend1, backend2)
	p.sendChunks(t, chunksOf(t, rt, version, 1, 1<<20)...)
	p.wantApplied(t, version, 1)

	a, b := dp.metrics.Endpoint("/a").Backend(backend1), dp.metrics.Endpoint("/b").Backend(backend2)
	a.Begin(0)
	a.Begin(0)
	b.Begin(0)
	watch := []string{backend2, "http://unknown", backend1}
	inFlight := func(two, one uint64) {
		t.Helper()
		var got *routetablev1.Heartbeat
		eventually(t, "what is in flight, not sooner than is cheap", func() error {
			p.ask(t, &routetablev1.Report{Watch: watch})
			if got = p.nextHeartbeat(t); len(got.GetWatched()) == 0 {
				return errors.New("not told")
			}
			return nil
		})
		want := &routetablev1.Heartbeat{
			State: &routetablev1.State{Version: version, Revision: 1, Source: routetablev1.Source_SOURCE_STREAM},
			Watched: []*routetablev1.InFlight{
				{Url: backend2, Requests: two}, {Url: "http://unknown"}, {Url: backend1, Requests: one},
			},
		}
		if diff := cmp.Diff(want, got, protocmp.Transform(), protocmp.IgnoreFields(want, "traffic")); diff != "" {
			t.Errorf("heartbeat (-want +got):\n%s", diff)
		}
	}
	inFlight(1, 2)
	a.End(0)
	inFlight(1, 1)
	// Also those of a backend that has left the table.
	rt, version = activatetest.Table(uint16(rt.GetPort()), backend1)
	p.sendChunks(t, chunksOf(t, rt, version, 1, 1<<20)...)
	p.wantApplied(t, version, 1)
	inFlight(1, 1)
	b.End(0)
	inFlight(0, 1)

	want := []*routetablev1.BackendReport{{Endpoint: "/a", Url: backend1, Requests: 2, InFlight: 1}}
	eventually(t, "the backends, not sooner than is good for rates", func() error {
		p.ask(t, &routetablev1.Report{Backends: true})
		h := p.nextHeartbeat(t)
		if len(h.GetWatched()) > 0 {
			t.Errorf("still told about %v", h.GetWatched())
		}
		if diff := cmp.Diff(want, h.GetBackends(), protocmp.Transform()); diff != "" {
			return fmt.Errorf("backends (-want +got):\n%s", diff)
		}
		return nil
	})
}

// Everything is told once on each stream, in parts, and then what changes.
func TestReportsOnEachStream(t *testing.T) {
	const endpoints = 3*maxReports + 1
	cp := startControlPlane(t, "127.0.0.1:0", nil)
	dp := startDataPlane(t, t.TempDir(), func(o *Options) {
		slowly(o)
		for i := range endpoints {
			o.Metrics.Endpoint(fmt.Sprint("e", i)).Backend(backend1)
		}
	}, cp.address)
	for range 2 {
		p := cp.accept(t)
		seen := map[string]bool{}
		for len(seen) < endpoints {
			part := p.nextReports(t)
			if len(part) > maxReports {
				t.Fatalf("a part of %d", len(part))
			}
			for _, b := range part {
				if seen[b.GetEndpoint()] {
					t.Fatalf("%s was told twice", b.GetEndpoint())
				}
				seen[b.GetEndpoint()] = true
			}
		}
		dp.metrics.Endpoint("e0").Backend(backend1).Begin(0)
		part := p.nextReports(t)
		if len(part) != 1 || part[0].GetEndpoint() != "e0" || part[0].GetRequestsPerSecond() <= 0 {
			t.Errorf("after one has changed: %v", part)
		}
		p.end <- nil
	}
}

// What requests look like is told once, and not at all if nobody wants it.
func TestReportsOnRequests(t *testing.T) {
	for name, kept := range map[string]*sample.Set{"samples": sample.New(1), "no samples": nil} {
		t.Run(name, func(t *testing.T) {
			cp := startControlPlane(t, "127.0.0.1:0", nil)
			dp := startDataPlane(t, t.TempDir(), func(o *Options) {
				slowly(o)
				o.Samples = kept
			}, cp.address)
			p := cp.accept(t)
			p.nextHeartbeat(t)
			e := dp.metrics.Endpoint("e")
			answer := func() *routetablev1.Heartbeat {
				e.Begin(0)
				e.End(0, &metrics.Request{Method: "GET", Code: 500})
				var got *routetablev1.Heartbeat
				eventually(t, "the endpoint is told about", func() error {
					p.ask(t, &routetablev1.Report{Backends: true})
					if got = p.nextHeartbeat(t); len(got.GetEndpoints()) == 0 {
						return errors.New("not yet")
					}
					return nil
				})
				return got
			}
			if s := kept.Shard(0); s != nil && s.Due() {
				s.Add([]byte("GET"), []byte("H:80"), []byte("/x"), "e")
			}
			got := answer()
			one := &routetablev1.EndpointReport{Endpoint: "e", Requests: 1, Failures: 1, NewRequests: 1}
			want := &routetablev1.Heartbeat{Endpoints: []*routetablev1.EndpointReport{one}}
			if kept != nil {
				want.Samples = []*routetablev1.Sample{{Method: "GET", Host: "h", Path: "/x", Endpoint: "e", Weight: 1}}
			}
			if diff := cmp.Diff(want, got, protocmp.Transform(), protocmp.IgnoreFields(want, "state", "requests_total", "traffic"),
				protocmp.IgnoreFields(one, "requests_per_second", "failures_per_second")); diff != "" {
				t.Errorf("heartbeat (-want +got):\n%s", diff)
			}
			if again := answer(); len(again.GetSamples()) > 0 || again.GetEndpoints()[0].GetRequests() != 2 {
				t.Errorf("after another request, which was not kept: %v", again)
			}
		})
	}
}

// nextReports returns the next reports about backends. One question is always open:
// of two heartbeats that wait to be looked at the older one is lost.
func (p *peer) nextReports(t *testing.T) (part []*routetablev1.BackendReport) {
	t.Helper()
	eventually(t, "reports about backends", func() error {
		part = p.nextHeartbeat(t).GetBackends()
		p.ask(t, &routetablev1.Report{Backends: true})
		if len(part) == 0 {
			return errors.New("none")
		}
		return nil
	})
	return part
}

// A control plane ends the stream of a data plane that says more about a backend.
func TestLongTextsAreCut(t *testing.T) {
	const most = 1000
	for _, test := range []struct{ name, text string }{
		{"longest", strings.Repeat("x", most)},
		{"too long", strings.Repeat("x", most+1)},
		{"cut in a character", strings.Repeat("x", most-4) + strings.Repeat("ü", 100)},
		{"no text", strings.Repeat("\xff", most) + "x"},
		{"hardly a text", strings.Repeat("\xffx", most)},
	} {
		t.Run(test.name, func(t *testing.T) {
			cp := startControlPlane(t, "127.0.0.1:0", nil)
			startDataPlane(t, t.TempDir(), func(o *Options) {
				slowly(o)
				m := backend.NewMember(backend.NewRegistry().State("127.0.0.1:1"))
				m.SetHealthy(false)
				m.SetTrouble(test.text)
				o.Metrics.Endpoint("e").Backend(backend1).Track([]*backend.Member{m})
			}, cp.address)
			got := cp.accept(t).nextReports(t)[0].GetTrouble() // no stream takes what is not UTF-8
			if len(got) > most || len(test.text) > most && !strings.HasSuffix(got, "…") && utf8.ValidString(test.text) {
				t.Errorf("%d bytes, which end with %q, want %d at most and that they are said to be cut", len(got), got[max(0, len(got)-9):], most)
			}
		})
	}
}
