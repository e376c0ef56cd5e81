//go:build linux

package main

import (
	"bytes"
	"compress/gzip"
	"errors"
	"net"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"reverseproxy/proto/routetable"
	routetablev1 "reverseproxy/proto/routetable/v1"
)

const patience = 20 * time.Second

// server plays a control plane that sends everybody one table, in small chunks, and
// answers heartbeats.
type server struct {
	routetablev1.UnimplementedRouteTableServiceServer
	chunks  []*routetablev1.Chunk
	answers chan *routetablev1.SubscribeRequest
}

func (s *server) Subscribe(stream grpc.BidiStreamingServer[routetablev1.SubscribeRequest, routetablev1.SubscribeResponse]) error {
	m, err := stream.Recv()
	if err != nil || m.GetHello() == nil {
		return errors.New("no hello")
	}
	for _, c := range s.chunks {
		if err := stream.Send(&routetablev1.SubscribeResponse{Message: &routetablev1.SubscribeResponse_Chunk{Chunk: c}}); err != nil {
			return err
		}
	}
	for {
		m, err := stream.Recv()
		if err != nil {
			return err
		}
		if m.GetHeartbeat() != nil {
			if err := stream.Send(&routetablev1.SubscribeResponse{Message: &routetablev1.SubscribeResponse_Alive{Alive: &routetablev1.Alive{}}}); err != nil {
				return err
			}
			continue
		}
		s.answers <- m
	}
}

// serve serves the chunks until the test ends and returns where.
func serve(t *testing.T, chunks []*routetablev1.Chunk) (s *server, address string) {
	t.Helper()
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s = &server{chunks: chunks, answers: make(chan *routetablev1.SubscribeRequest, 100)}
	g := grpc.NewServer()
	routetablev1.RegisterRouteTableServiceServer(g, s)
	var serving sync.WaitGroup
	serving.Go(func() { _ = g.Serve(lis) })
	t.Cleanup(func() { g.Stop(); serving.Wait() })
	return s, lis.Addr().String()
}

// table returns a route table with a body of noise, so that it has many chunks, and
// their joined data.
func table(t *testing.T, noise []byte) (version string, data []byte, size int) {
	t.Helper()
	second := durationpb.New(time.Second)
	rt := &routetablev1.RouteTable{
		Port: 8000,
		Limits: &routetablev1.Limits{
			MaxHeadBytes: 65536, MaxHeaderCount: 100, MaxUriBytes: 8192, HeaderTimeout: second, IdleTimeout: second, MaxConnections: 1,
		},
		Endpoints: []*routetablev1.Endpoint{{
			Name: "e", Path: &routetablev1.Endpoint_Exact{Exact: "/e"},
			Answer:   &routetablev1.Endpoint_Respond{Respond: &routetablev1.Respond{Status: 200, Body: noise}},
			Timeouts: &routetablev1.Timeouts{Connect: second, Response: second, Idle: second},
		}},
	}
	raw, err := proto.Marshal(rt)
	if err != nil {
		t.Fatal(err)
	}
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	if _, err := z.Write(raw); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return routetable.Version(rt), packed.Bytes(), len(raw)
}

// cut returns the chunks of a table.
func cut(version string, data []byte, decoded, size int) []*routetablev1.Chunk {
	var chunks []*routetablev1.Chunk
	count := (len(data) + size - 1) / size
	for i := range count {
		chunks = append(chunks, &routetablev1.Chunk{
			Version: version, Revision: 7, Index: uint32(i), Count: uint32(count), Encoding: routetablev1.Encoding_ENCODING_GZIP,
			DecodedSize: uint64(decoded), Data: data[i*size : min((i+1)*size, len(data))],
		})
	}
	return chunks
}

// noise does not compress.
func noise(n int) []byte {
	b := make([]byte, n)
	x := uint32(1)
	for i := range b {
		x = x*1664525 + 1013904223
		b[i] = byte(x >> 24)
	}
	return b
}

// play starts data planes against the server.
func play(address string, count int) *fleet {
	f := newFleet(address, count, "t", true)
	for _, p := range f.planes {
		go p.follow()
	}
	return f
}

func TestDataPlanesVerifyWhatTheyGet(t *testing.T) {
	const planes = 20
	version, data, decoded := table(t, noise(60<<10))
	for name, test := range map[string]struct {
		chunks []*routetablev1.Chunk
		ok     bool
	}{
		"one chunk":    {cut(version, data, decoded, len(data)), true},
		"many chunks":  {cut(version, data, decoded, 1000), true},
		"other bytes":  {cut(version, append(bytes.Clone(data[:len(data)-9]), data[len(data)-8:]...), decoded, 1000), false},
		"another size": {cut(version, data, decoded+1, 1000), false},
		"misnamed":     {cut("0123", data, decoded, 1000), false},
	} {
		t.Run(name, func(t *testing.T) {
			s, address := serve(t, test.chunks)
			f := play(address, planes)
			for range planes {
				select {
				case m := <-s.answers:
					if got := m.GetApplied().GetVersion(); test.ok && (got != version || m.GetApplied().GetRevision() != 7) {
						t.Fatalf("answered %v, want applied", m)
					}
					if !test.ok && m.GetRejected() == nil {
						t.Fatalf("answered %v, want rejected", m)
					}
				case <-time.After(patience):
					t.Fatal("no answer")
				}
			}
			if got := f.bytesIn.Load(); got < int64(planes*len(data)) {
				t.Errorf("counted %d bytes, at least %d were sent", got, planes*len(data))
			}
		})
	}
}

func TestEveryDataPlaneMustGetTheSame(t *testing.T) {
	var j joined
	if err := j.take(0, []byte("abc")); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		offset int
		part   string
		ok     bool
	}{
		{0, "ab", true}, {0, "abcde", true}, {2, "cdef", true}, {3, "dX", false}, {0, "b", false},
	} {
		if err := j.take(test.offset, []byte(test.part)); (err == nil) != test.ok {
			t.Errorf("%q at %d: %v", test.part, test.offset, err)
		}
	}
	if string(j.data) != "abcdef" {
		t.Errorf("kept %q", j.data)
	}
}
