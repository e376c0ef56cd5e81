package fleet_test

import (
	"bytes"
	"fmt"
	"net"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"

	"reverseproxy/controlplane/internal/fleet"
	routetablev1 "reverseproxy/proto/routetable/v1"
)

func TestAnIDHasSoManyStreams(t *testing.T) {
	const most = 16
	s := start(t, fleet.Options{}, fleet.ServerOptions{})
	want := s.publish(t, table(1))
	players := make([]*player, most)
	for i := range players {
		players[i] = s.join(t, "twin", fmt.Sprint(i), want.Version)
		players[i].wantCurrent(t, want)
	}
	_, err := s.join(t, "twin", "one more", want.Version).stream.Recv()
	if status.Code(err) != codes.ResourceExhausted ||
		!strings.Contains(err.Error(), `too many data planes with the id "twin": 16 are connected; give each its own --id`) {
		t.Errorf("got %v, want RESOURCE_EXHAUSTED with the id and what to do", err)
	}

	// Nobody else is concerned, not even who was there before.
	s.join(t, "other", "1", want.Version).wantCurrent(t, want)
	for _, p := range players {
		p.wantNothing(t, want)
	}
	players[3].close()
	eventually(t, "one has left", func() bool {
		rows := 0
		for _, d := range s.fleet.DataPlanes() {
			if d.GetId() == "twin" {
				rows++
			}
		}
		return rows == most-1
	})
	s.join(t, "twin", "in its place", want.Version).wantCurrent(t, want)
}

func TestAConnectionHasSoManyStreams(t *testing.T) {
	s := start(t, fleet.Options{}, fleet.ServerOptions{})
	conn, err := net.DialTimeout("tcp", s.addr, patience)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	framer := http2.NewFramer(conn, conn)
	if _, err := conn.Write([]byte(http2.ClientPreface)); err != nil {
		t.Fatal(err)
	}
	if err := framer.WriteSettings(); err != nil {
		t.Fatal(err)
	}
	frame, err := framer.ReadFrame()
	if err != nil {
		t.Fatal(err)
	}
	settings, ok := frame.(*http2.SettingsFrame)
	if !ok {
		t.Fatalf("got %v, want the settings", frame)
	}
	if n, _ := settings.Value(http2.SettingMaxConcurrentStreams); n != 100 {
		t.Errorf("%d streams are allowed, want 100", n)
	}
}

// elements returns a message with as many empty elements of a list as fill it, in the parts
// of about a megabyte that a receiver puts together.
func elements(message, field protowire.Number) []byte {
	element := protowire.AppendBytes(protowire.AppendTag(nil, field, protowire.BytesType), nil)
	part := protowire.AppendBytes(protowire.AppendTag(nil, message, protowire.BytesType), bytes.Repeat(element, 500_000))
	return bytes.Repeat(part, 6)
}

// Six megabytes of nothing would be hundreds when they are decoded.
func TestListsAreCountedBeforeTheyAreDecoded(t *testing.T) {
	const most = 100 << 20 // of memory, for both sides
	s := start(t, fleet.Options{}, fleet.ServerOptions{})
	want := s.publish(t, table(1))
	for _, test := range []struct {
		name           string
		message, field protowire.Number
		want           string
	}{
		{"backends", 4, 4, "heartbeat: backends: at most 10000 are allowed"},
		{"watched", 4, 5, fmt.Sprintf("heartbeat: watched: at most %d are allowed", fleet.MaxDrained)},
		{"endpoints", 4, 7, "heartbeat: endpoints: at most 10000 are allowed"},
		{"samples", 4, 8, "heartbeat: samples: at most 1000 are allowed"},
		{"problems", 3, 3, "rejected: problems: at most 10000 are allowed"},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := s.join(t, test.name, "1", want.Version)
			p.wantCurrent(t, want)
			m := &routetablev1.SubscribeRequest{}
			m.ProtoReflect().SetUnknown(elements(test.message, test.field))
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			p.send(t, m)
			_ = p.stream.CloseSend() // it ends in any case
			if err := p.recvEnd(); !strings.Contains(err.Error(), test.want) {
				t.Errorf("the stream has ended with %v, want %s", err, test.want)
			}
			runtime.ReadMemStats(&after)
			if took := after.TotalAlloc - before.TotalAlloc; took > most {
				t.Errorf("it took %d MB, want less than %d", took>>20, most>>20)
			}
		})
	}
}

// What a data plane may say takes one message, however large.
func TestTheLargestHeartbeatIsTaken(t *testing.T) {
	s := start(t, fleet.Options{}, fleet.ServerOptions{})
	want := s.publish(t, table(1))
	p := s.join(t, "a", "1", want.Version)
	p.wantCurrent(t, want)
	h := &routetablev1.Heartbeat{State: &routetablev1.State{Version: want.Version}, RequestsTotal: 42}
	for i := range 10_000 {
		name := fmt.Sprintf("an endpoint with a name %d", i)
		h.Backends = append(h.Backends, &routetablev1.BackendReport{Endpoint: name, Url: "http://127.0.0.1:1"})
		h.Endpoints = append(h.Endpoints, &routetablev1.EndpointReport{Endpoint: name})
	}
	for range 1000 {
		h.Samples = append(h.Samples, &routetablev1.Sample{Method: "GET", Path: "/e"})
	}
	p.send(t, &routetablev1.SubscribeRequest{Message: &routetablev1.SubscribeRequest_Heartbeat{Heartbeat: h}})
	eventually(t, "it is taken", func() bool { return s.row(t, "a").GetRequestsTotal() == 42 })
}
