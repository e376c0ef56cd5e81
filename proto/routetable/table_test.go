package routetable_test

import (
	"fmt"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	routetablev1 "reverseproxy/proto/routetable/v1"
)

// small is a valid table that sets every field.
func small() *routetablev1.RouteTable {
	return &routetablev1.RouteTable{
		Port:                   8000,
		HideMetricsOnProxyPort: true,
		Limits:                 limits(),
		AccessLog: &routetablev1.AccessLog{
			Path: "/var/log/access.log", Format: routetablev1.AccessLogFormat_ACCESS_LOG_FORMAT_COMBINED, SamplePerMillion: 100_000,
		},
		RequestId: true,
		Endpoints: []*routetablev1.Endpoint{
			{
				Name:        "all",
				Path:        &routetablev1.Endpoint_Prefix{Prefix: ""},
				Pool:        []*routetablev1.Backend{{Url: "http://localhost:5004", Weight: 1}},
				Timeouts:    timeouts(),
				ReplaceHost: true,
			},
			{
				Name:     "index",
				Path:     &routetablev1.Endpoint_Exact{Exact: "/index"},
				Hosts:    []string{"*.example.com", "shop.example.com"},
				Methods:  []string{"GET", "HEAD"},
				Headers:  []*routetablev1.HeaderMatch{{Name: "x-beta", Value: "1"}, {Name: "x-new", Value: "yes"}},
				Pool:     []*routetablev1.Backend{{Url: "http://localhost:5000/index?a=1", Weight: 3}, {Url: "http://localhost:5002", Weight: 1}},
				Timeouts: timeouts(),
			},
		},
	}
}

func limits() *routetablev1.Limits {
	return &routetablev1.Limits{
		MaxHeadBytes: 64 << 10, MaxHeaderCount: 100, MaxUriBytes: 8 << 10,
		HeaderTimeout: durationpb.New(10 * time.Second), IdleTimeout: durationpb.New(time.Minute),
		MaxConnections: 10_000,
	}
}

func timeouts() *routetablev1.Timeouts {
	return &routetablev1.Timeouts{
		Connect:  durationpb.New(time.Second),
		Response: durationpb.New(30*time.Second + time.Millisecond),
		Idle:     durationpb.New(90 * time.Second),
	}
}

// large is a valid table of n exact endpoints with three backends each.
func large(n int) *routetablev1.RouteTable {
	t := &routetablev1.RouteTable{Port: 8000, Limits: limits()}
	for i := range n {
		e := &routetablev1.Endpoint{
			Name:     fmt.Sprintf("/service/%06d/index", i),
			Path:     &routetablev1.Endpoint_Exact{Exact: fmt.Sprintf("/service/%06d/index", i)},
			Timeouts: timeouts(),
		}
		for b := range 3 {
			e.Pool = append(e.Pool, &routetablev1.Backend{Url: fmt.Sprintf("http://10.0.%d.%d:8080/index", i%256, b), Weight: 1})
		}
		t.Endpoints = append(t.Endpoints, e)
	}
	return t
}
