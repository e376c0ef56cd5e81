package status_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"reverseproxy/controlplane/internal/status"
	"reverseproxy/controlplane/internal/traffic"
	routetablev1 "reverseproxy/proto/routetable/v1"
)

func exact(name, path string, pool int) *routetablev1.Endpoint {
	e := &routetablev1.Endpoint{Name: name, Path: &routetablev1.Endpoint_Exact{Exact: path}}
	for i := range pool {
		e.Pool = append(e.Pool, &routetablev1.Backend{Url: fmt.Sprint("http://h:", i)})
	}
	return e
}

func all(string, string) bool { return true }

func TestTheDocumentOfTheTraffic(t *testing.T) {
	at := time.Date(2026, 1, 2, 4, 4, 5, 6, time.FixedZone("", 3600))
	look := status.NewLook(
		&routetablev1.RouteTable{Endpoints: []*routetablev1.Endpoint{exact("busy", "/b", 2), exact("idle", "/i", 1)}},
		traffic.Rates{
			DataPlanes: 3, RequestsPerSecond: 30.00049,
			Endpoints: []traffic.EndpointRate{{Endpoint: "busy", Requests: 20, Failures: 1.5, DataPlanes: 2}, {Endpoint: "none", Requests: 10, DataPlanes: 1}},
		},
		traffic.Series{
			Times: []time.Time{at, at.Add(5 * time.Second)}, All: []traffic.Rate{{Requests: 1}, {Requests: 30, Failures: 1.5}},
			Endpoints: []traffic.EndpointSeries{{Endpoint: "busy", Rates: []traffic.Rate{{}, {Requests: 20, Failures: 1.5}}}},
		},
	)
	const want = `{"dataplanes":3,"requestsPerSecond":30,"errorsPerSecond":1.5,"incomplete":false,` +
		`"times":["2026-01-02T03:04:05Z","2026-01-02T03:04:10Z"],"requests":[1,30],"errors":[0,1.5],"configured":2,"matching":3,"endpoints":[` +
		`{"name":"busy","takes":"/b","poolSize":2,"dataplanes":2,"requestsPerSecond":20,"errorsPerSecond":1.5,"requests":[0,20],"errors":[0,1.5]},` +
		`{"name":"none","takes":"","poolSize":0,"dataplanes":1,"requestsPerSecond":10,"errorsPerSecond":0},` +
		`{"name":"idle","takes":"/i","poolSize":1,"dataplanes":0,"requestsPerSecond":0,"errorsPerSecond":0}]}` + "\n"
	if diff := cmp.Diff(strings.Split(string(look.Traffic(all, 10).JSON()), ","), strings.Split(want, ",")); diff != "" {
		t.Errorf("(-got +want):\n%s", diff)
	}
	const nothing = `{"dataplanes":0,"requestsPerSecond":0,"errorsPerSecond":0,"incomplete":false,"times":[],"configured":0,"matching":0,"endpoints":[]}` + "\n"
	empty := status.NewLook(&routetablev1.RouteTable{}, traffic.Rates{}, traffic.Series{})
	if got := string(empty.Traffic(all, 10).JSON()); got != nothing {
		t.Errorf("of nothing: %s, want %s", got, nothing)
	}
}

func TestTheTrafficOfSomeEndpoints(t *testing.T) {
	look := status.NewLook(
		&routetablev1.RouteTable{Endpoints: []*routetablev1.Endpoint{exact("a", "/a", 1), exact("b", "/b", 1), exact("c", "/c", 1)}},
		traffic.Rates{Endpoints: []traffic.EndpointRate{{Endpoint: "gone", Requests: 9}, {Endpoint: "c", Requests: 5}}},
		traffic.Series{},
	)
	for _, test := range []struct {
		name     string
		match    func(name, takes string) bool
		most     int
		matching int
		want     string
	}{
		{"all, the busiest first; one that has left the table is not one", all, 10, 3, "c a b"},
		{"no more than wanted", all, 2, 3, "c a"},
		{"none", all, 0, 3, ""},
		{"those that match", func(name, takes string) bool { return name == "b" || takes == "/c" }, 10, 2, "c b"},
	} {
		t.Run(test.name, func(t *testing.T) {
			got := look.Traffic(test.match, test.most)
			var names []string
			for _, e := range got.Endpoints {
				names = append(names, e.Name)
			}
			if strings.Join(names, " ") != test.want || got.Matching != test.matching || got.Configured != 3 {
				t.Errorf("%q, %d matching of %d; want %q, %d of 3", names, got.Matching, got.Configured, test.want, test.matching)
			}
		})
	}
}

func TestWhatAnEndpointTakes(t *testing.T) {
	for _, test := range []struct {
		want     string
		endpoint *routetablev1.Endpoint
	}{
		{"/x", exact("", "/x", 0)},
		{"/x/*", &routetablev1.Endpoint{Path: &routetablev1.Endpoint_Prefix{Prefix: "/x"}}},
		{"/*", &routetablev1.Endpoint{Path: &routetablev1.Endpoint_Prefix{}}},
		{"GET, HEAD shop.example.com/x with x-beta", &routetablev1.Endpoint{
			Path: &routetablev1.Endpoint_Exact{Exact: "/x"}, Hosts: []string{"shop.example.com"}, Methods: []string{"GET", "HEAD"},
			Headers: []*routetablev1.HeaderMatch{{Name: "x-beta", Value: "secret"}},
		}},
		{"{a.example.com, b.example.com}/", &routetablev1.Endpoint{
			Path: &routetablev1.Endpoint_Exact{Exact: "/"}, Hosts: []string{"a.example.com", "b.example.com"},
		}},
	} {
		look := status.NewLook(&routetablev1.RouteTable{Endpoints: []*routetablev1.Endpoint{test.endpoint}}, traffic.Rates{}, traffic.Series{})
		if got := look.Traffic(all, 1).Endpoints[0].Takes; got != test.want {
			t.Errorf("%q, want %q", got, test.want)
		}
	}
}
