package fleet_test

import (
	"bytes"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"

	"reverseproxy/controlplane/internal/fleet"
	routetablev1 "reverseproxy/proto/routetable/v1"
)

func TestHeartbeatsTellAboutRequests(t *testing.T) {
	clock := newClock()
	s := start(t, fleet.Options{Now: clock.Now}, fleet.ServerOptions{})
	table := s.publish(t, table(1))
	one := s.join(t, "one", "1", table.Version)
	s.waitState(t, "one", "applied")
	beat := func(n uint64, rate float64) {
		s.hear(t, one, "one", &routetablev1.Heartbeat{
			State: &routetablev1.State{Version: table.Version}, Traffic: &routetablev1.Traffic{Requests: n},
			Endpoints: []*routetablev1.EndpointReport{{Endpoint: "e", NewRequests: uint64(5 * rate), RequestsPerSecond: rate}},
			Samples:   []*routetablev1.Sample{{Method: "GET", Path: "/e", Endpoint: "e", Weight: 1}},
		})
	}
	beat(10, 0)
	before, _ := s.fleet.Traffic().Counters("one")
	clock.Advance(fleet.DefaultSilenceLimit / 3)
	beat(30, 4)
	after, ok := s.fleet.Traffic().Counters("one")
	if got := after.Sub(before); !ok || got.Requests != 20 || got.Version != table.Version {
		t.Errorf("since the first heartbeat: %+v", got)
	}
	if all := s.fleet.Traffic().Rates(); all.RequestsPerSecond != 4 || len(all.Endpoints) != 1 || all.Endpoints[0].Requests != 4 {
		t.Errorf("rates: %+v", all)
	}
	if n := len(s.fleet.Traffic().Samples().List); n != 2 {
		t.Errorf("%d samples, want 2", n)
	}

	one.close()
	eventually(t, "it has no rate any more", func() bool { return s.fleet.Traffic().Rates().RequestsPerSecond == 0 })
	s.fleet.Sweep()
	if all := s.fleet.Traffic().Rates(); len(all.Endpoints) != 1 || all.Endpoints[0].Recent != 20 {
		t.Errorf("after it has left: %+v", all)
	}
}

func TestHeartbeatsAboutTooMuchEndTheStream(t *testing.T) {
	for name, h := range map[string]*routetablev1.Heartbeat{
		"endpoints": {Endpoints: make([]*routetablev1.EndpointReport, 10_001)},
		"samples":   {Samples: make([]*routetablev1.Sample, 1001)},
	} {
		t.Run(name, func(t *testing.T) {
			s := start(t, fleet.Options{}, fleet.ServerOptions{})
			p := s.join(t, "one", "1", s.publish(t, table(1)).Version)
			for i := range h.GetEndpoints() {
				h.Endpoints[i] = &routetablev1.EndpointReport{}
			}
			for i := range h.GetSamples() {
				h.Samples[i] = &routetablev1.Sample{}
			}
			p.send(t, &routetablev1.SubscribeRequest{Message: &routetablev1.SubscribeRequest_Heartbeat{Heartbeat: h}})
			if err := p.recvEnd(); status.Code(err) != codes.InvalidArgument {
				t.Errorf("the stream ends with %v", err)
			}
		})
	}
}

// What a data plane could make the control plane allocate by small reports in a large
// message is refused before they are decoded.
func TestAMessageThatIsTooLarge(t *testing.T) {
	s := start(t, fleet.Options{}, fleet.ServerOptions{})
	p := s.joinAt(t, "a", s.publish(t, table(1)))
	const endpoints = 7 // the number of the field
	h := &routetablev1.Heartbeat{}
	h.ProtoReflect().SetUnknown(bytes.Repeat(protowire.AppendBytes(protowire.AppendTag(nil, endpoints, protowire.BytesType), nil), 4<<20))
	p.send(t, &routetablev1.SubscribeRequest{Message: &routetablev1.SubscribeRequest_Heartbeat{Heartbeat: h}})
	if err := p.recvEnd(); !strings.Contains(status.Convert(err).Message(), "bytes, at most") {
		t.Errorf("end %v, want that the message is too large", err)
	}
}
