package explain_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/types/known/durationpb"

	"reverseproxy/controlplane/internal/explain"
	fleetv1 "reverseproxy/proto/fleet/v1"
	routetablev1 "reverseproxy/proto/routetable/v1"
)

func TestHealthChecksAreExplained(t *testing.T) {
	rt := &routetablev1.RouteTable{Port: 1, Endpoints: []*routetablev1.Endpoint{
		endpoint("http", "/http", func(e *routetablev1.Endpoint) {
			e.ActiveCheck = &routetablev1.ActiveCheck{
				Method: "GET", Path: "/health", ExpectStatus: []*routetablev1.StatusRange{{First: 200, Last: 299}, {First: 401, Last: 401}},
				Interval: durationpb.New(5 * time.Second), Timeout: durationpb.New(time.Second), UnhealthyAfter: 3, HealthyAfter: 2,
			}
			e.PassiveCheck = &routetablev1.PassiveCheck{ConsecutiveFailures: 5, EjectFor: durationpb.New(10 * time.Second), MaxEjectedPercent: 50, On_5Xx: true}
		}),
		endpoint("tcp", "/tcp", func(e *routetablev1.Endpoint) {
			e.ActiveCheck = &routetablev1.ActiveCheck{
				Tcp: true, Interval: durationpb.New(5 * time.Second), Timeout: durationpb.New(time.Second), UnhealthyAfter: 1, HealthyAfter: 1,
			}
		}),
	}}
	for url, want := range map[string][]string{
		"/http": {
			"active check: GET /health, expecting 200-299, 401, every 5s with 1s to answer; unhealthy after 3 failures, healthy after 2 successes",
			"passive check: ejected for 10s after 5 failures or answers of 500 or more in a row, at most 50% of the pool",
		},
		"/tcp": {"active check: a connection, every 5s with 1s to answer; unhealthy after 1 failures, healthy after 1 successes"},
	} {
		got, err := explain.Explain(rt, &fleetv1.ExplainRequest{Url: url})
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got.GetSettings()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", url, diff)
		}
	}
}
