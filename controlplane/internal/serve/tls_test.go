package serve_test

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"reverseproxy/controlplane/internal/serve"
	fleetv1 "reverseproxy/proto/fleet/v1"
	"reverseproxy/proto/identity"
	"reverseproxy/proto/identity/identitytest"
	routetablev1 "reverseproxy/proto/routetable/v1"
)

// connectAs returns a connection with somebody's certificate.
func connectAs(t *testing.T, server string, ca *identitytest.CA, who identity.Identity) *grpc.ClientConn {
	t.Helper()
	c, err := identity.Load(ca.Files(t, who, nil), "", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	conn, err := grpc.NewClient("passthrough:///"+server, grpc.WithTransportCredentials(identity.NewClient(c)), grpc.WithNoProxy())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// subscribe says hello with the id and returns the first answer.
func subscribe(t *testing.T, conn *grpc.ClientConn, id string) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	stream, err := routetablev1.NewRouteTableServiceClient(conn).Subscribe(ctx)
	if err != nil {
		return err
	}
	// An error of Send is told by Recv.
	_ = stream.Send(&routetablev1.SubscribeRequest{Message: &routetablev1.SubscribeRequest_Hello{
		Hello: &routetablev1.Hello{Id: id, SessionId: "s", AdminAddress: "127.0.0.1:19000"},
	}})
	_, err = stream.Recv()
	return err
}

func TestTLS(t *testing.T) {
	ca := identitytest.NewCA(t, "the CA")
	files := ca.Files(t, identity.Identity{Role: identity.ControlPlane, Name: "main"}, nil)
	r := start(t, newFile(t, text(2)), func(o *serve.Options) { o.TLS = files })
	edge := connectAs(t, r.server, ca, identity.Identity{Role: identity.DataPlane, Name: "edge-1"})
	alice := connectAs(t, r.server, ca, identity.Identity{Role: identity.Operator, Name: "alice"})
	refused := func(what string, err error, want string) {
		t.Helper()
		if status.Code(err) != codes.PermissionDenied || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want permission denied with %q", what, err, want)
		}
		if want = strings.ReplaceAll(want, `"`, `\"`); !strings.Contains(r.log.String(), want) {
			t.Errorf("%s: the log lacks %q:\n%s", what, want, r.log)
		}
	}

	if err := subscribe(t, edge, "edge-1"); err != nil {
		t.Errorf("a data plane with its own id: %v", err)
	}
	refused("another's id", subscribe(t, edge, "edge-2"), `says that it is "edge-2", and its certificate is that of "edge-1"`)
	refused("an operator subscribes", subscribe(t, alice, "alice"), "is for data planes, and this is the certificate of operator alice")
	_, err := fleetv1.NewFleetServiceClient(edge).Apply(t.Context(), &fleetv1.ApplyRequest{Name: "x", Config: []byte(text(3))})
	refused("a data plane applies", err, "is for operators, and this is the certificate of data plane edge-1")

	s, err := fleetv1.NewFleetServiceClient(alice).Status(t.Context(), &fleetv1.StatusRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if s.GetRevision() != 1 {
		t.Errorf("revision %d: the refused change was made", s.GetRevision())
	}
	for _, d := range s.GetDataplanes() {
		if d.GetId() != "edge-1" {
			t.Errorf("%s is known, which was refused", d.GetId())
		}
	}
	if _, err := r.fleet.Status(t.Context(), &fleetv1.StatusRequest{}); status.Code(err) != codes.Unavailable {
		t.Errorf("plaintext: %v, want unavailable", err)
	}
	c, err := identity.Load(files, "", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	r.metric(t, "controlplane_tls_certificate_expiry_timestamp_seconds "+fmt.Sprint(float64(c.Expiry().Unix())))
}

func TestCertificatesThatCannotBeUsed(t *testing.T) {
	ca := identitytest.NewCA(t, "the CA")
	o := serve.Options{
		Config: newFile(t, text(2)), Listen: "127.0.0.1:0", Admin: "127.0.0.1:0", Log: slog.New(slog.DiscardHandler),
		TLS: ca.Files(t, identity.Identity{Role: identity.Operator, Name: "alice"}, nil),
	}
	if err := serve.Run(t.Context(), o); err == nil || !strings.Contains(err.Error(), "is the certificate of operator alice, and that of a control plane is needed") {
		t.Errorf("an operator's certificate: %v", err)
	}
	o.TLS.CA = "nowhere"
	if err := serve.Run(t.Context(), o); err == nil || !strings.Contains(err.Error(), "certificates: open nowhere: ") {
		t.Errorf("no CA: %v", err)
	}
}

func TestFilesForTLSGoTogether(t *testing.T) {
	all := identity.Paths{CA: "a", Cert: "b", Key: "c"}
	for _, test := range []struct {
		address  string
		tls      identity.Paths
		insecure bool
		want     string
	}{
		{"0.0.0.0:1", all, false, ""},
		{"127.0.0.1:1", all, false, ""},
		{"127.0.0.1:1", identity.Paths{CA: "a"}, false, "no --tls-cert and no --tls-key"},
		{"0.0.0.0:1", identity.Paths{CA: "a", Cert: "b"}, true, "no --tls-key"},
		{"0.0.0.0:1", all, true, "--insecure is for gRPC without encryption"},
		{"0.0.0.0:1", identity.Paths{}, false, "--tls-ca"},
	} {
		err := serve.CheckListen("--listen", test.address, test.tls, test.insecure)
		if (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
			t.Errorf("%+v: %v", test, err)
		}
	}
}
