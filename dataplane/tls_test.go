package main

import (
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"

	"google.golang.org/grpc"

	"reverseproxy/dataplane/internal/activate/activatetest"
	"reverseproxy/proto/identity"
	"reverseproxy/proto/identity/identitytest"
)

// A data plane with a certificate is the one that the certificate names, and serves
// what a control plane with TLS sends it.
func TestTLS(t *testing.T) {
	ca := identitytest.NewCA(t, "the CA")
	server, err := identity.Load(ca.Files(t, identity.Identity{Role: identity.ControlPlane, Name: "main"}, nil), "", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	rt, version := activatetest.Table(activatetest.Port(t), "http://127.0.0.1:1")
	cp := startControlPlane(t, rt, version, grpc.Creds(server.Server(func(net.Addr, error) {})))
	edge := identity.Identity{Role: identity.DataPlane, Name: "edge:1"}
	flags := func(p identity.Paths, more ...string) []string {
		return append([]string{
			"--controlplane", cp.address, "--admin", "127.0.0.1:0", "--address", "127.0.0.1", "--state-dir", t.TempDir(),
			"--tls-ca", p.CA, "--tls-cert", p.Cert, "--tls-key", p.Key,
		}, more...)
	}
	good := ca.Files(t, edge, nil)
	dp := start(t, flags(good)...)
	dp.logged(`msg=serving address=(\S+) version=` + version)
	if got := <-cp.ids; got != "edge:1" {
		t.Errorf("the id is %q, want that in the certificate", got)
	}
	c, err := identity.Load(good, "", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.Get("http://" + dp.logged(`msg=listening admin=(\S+)`) + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	page, err := io.ReadAll(res.Body)
	if want := fmt.Sprintf("dataplane_tls_certificate_expiry_timestamp_seconds %v\n", float64(c.Expiry().Unix())); err != nil || !strings.Contains(string(page), want) {
		t.Errorf("/metrics lacks %q (%v)", want, err)
	}
	http.DefaultClient.CloseIdleConnections()
	dp.stop()
	if err := dp.wait(); err != nil {
		t.Errorf("stopped with %v", err)
	}

	t.Run("with an id", func(t *testing.T) {
		start(t, flags(ca.Files(t, edge, nil), "--id", "edge-2")...)
		if got := <-cp.ids; got != "edge-2" {
			t.Errorf("the id is %q, want the one of the flag", got)
		}
	})
	t.Run("that has expired", func(t *testing.T) {
		dp := start(t, flags(ca.Files(t, edge, identitytest.Ended))...)
		dp.logged(`level=ERROR msg="certificate has expired: nobody will accept it" certificate=\S+ identity="data plane edge:1"`)
		dp.logged(`msg="control plane unreachable" controlplane=\S+ error="the control plane refuses the certificate in \S+ \(data plane edge:1, from the CA, expired on .*\): expired certificate"`)
	})
	t.Run("of another CA", func(t *testing.T) {
		dp := start(t, flags(identitytest.NewCA(t, "another CA").Files(t, edge, nil))...)
		dp.logged(`msg="control plane unreachable" controlplane=\S+ error="the certificate of control plane main is from \\"the CA\\", which is none of the CAs in `)
	})
	t.Run("of an operator", func(t *testing.T) {
		dp := start(t, flags(ca.Files(t, identity.Identity{Role: identity.Operator, Name: "alice"}, nil))...)
		if err := dp.wait(); err == nil || !strings.Contains(err.Error(), "is the certificate of operator alice, and that of a data plane is needed") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("none", func(t *testing.T) {
		dp := start(t, "--controlplane", cp.address, "--admin", "127.0.0.1:0", "--state-dir", t.TempDir())
		dp.logged(`msg="control plane unreachable" controlplane=\S+ error="it closes the connection before it says anything, as a control plane with encryption does: give --tls-ca`)
	})
}
