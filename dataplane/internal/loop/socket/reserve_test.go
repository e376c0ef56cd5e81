//go:build unix

package socket_test

import (
	"context"
	"net"
	"strconv"
	"testing"

	"reverseproxy/dataplane/internal/loop/socket"
)

func TestReserve(t *testing.T) {
	for _, address := range []string{"", "127.0.0.1", "::1"} {
		t.Run("address "+address, func(t *testing.T) {
			l, err := socket.Listen(context.Background(), address, 0)
			if err != nil {
				t.Skipf("not here: %v", err)
			}
			port := uint16(l.Addr().(*net.TCPAddr).Port)
			l.Close()

			kept, err := socket.Reserve(address, port)
			if err != nil {
				t.Fatal(err)
			}
			target := net.JoinHostPort(address, strconv.Itoa(int(port)))
			if c, err := net.Dial("tcp", target); err == nil {
				c.Close()
				t.Error("somebody can connect")
			}
			if l, err := net.Listen("tcp", target); err == nil {
				l.Close()
				t.Error("another program can take the port")
			}
			if both, err := socket.Reserve(address, port); err != nil {
				t.Errorf("another data plane cannot keep it as well: %v", err)
			} else {
				both.Close()
			}
			l, err = socket.Listen(context.Background(), address, port)
			if err != nil {
				t.Fatalf("listen on the port that is kept: %v", err)
			}
			defer l.Close()
			if err := kept.Close(); err != nil {
				t.Fatal(err)
			}
			c, err := net.Dial("tcp", target)
			if err != nil {
				t.Fatalf("connect: %v", err)
			}
			c.Close()
		})
	}
}

func TestAPortThatIsTakenIsNotReserved(t *testing.T) {
	l, err := net.Listen("tcp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if kept, err := socket.Reserve("", uint16(l.Addr().(*net.TCPAddr).Port)); err == nil {
		kept.Close()
		t.Error("the port of another program is reserved")
	}
}
