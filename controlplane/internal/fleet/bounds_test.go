package fleet_test

import (
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"reverseproxy/controlplane/internal/fleet"
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
