package subscribe

import (
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/protobuf/types/known/durationpb"

	routetablev1 "reverseproxy/proto/routetable/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// smallTable is a valid table with one endpoint per backend URL.
func smallTable(port uint16, urls ...string) *routetablev1.RouteTable {
	rt := &routetablev1.RouteTable{
		Port: uint32(port),
		Limits: &routetablev1.Limits{
			MaxHeadBytes: 64 << 10, MaxHeaderCount: 100, MaxUriBytes: 8 << 10,
			HeaderTimeout: durationpb.New(10 * time.Second), IdleTimeout: durationpb.New(time.Minute),
			MaxConnections: 1000,
		},
	}
	for i, url := range urls {
		name := "/" + string(rune('a'+i))
		rt.Endpoints = append(rt.Endpoints, &routetablev1.Endpoint{
			Name: name,
			Path: &routetablev1.Endpoint_Exact{Exact: name},
			Pool: []*routetablev1.Backend{{Url: url, Weight: 1}},
			Timeouts: &routetablev1.Timeouts{
				Connect: durationpb.New(time.Second), Response: durationpb.New(30 * time.Second), Idle: durationpb.New(90 * time.Second),
			},
		})
	}
	return rt
}
