package identity_test

import (
	"bytes"
	"context"
	"crypto/x509"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"

	"reverseproxy/proto/identity"
	"reverseproxy/proto/identity/identitytest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = 20 * time.Second

var (
	edge  = identity.Identity{Role: identity.DataPlane, Name: "edge-1"}
	plane = identity.Identity{Role: identity.ControlPlane, Name: "main"}
	alice = identity.Identity{Role: identity.Operator, Name: "alice"}
)

// record may be written and read at the same time.
type record struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (r *record) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.b.Write(p)
}

func (r *record) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.b.String()
}

// load reads the files of somebody.
func load(t testing.TB, p identity.Paths) *identity.Certificates {
	t.Helper()
	c, _ := logging(t, p)
	return c
}

// logging is load with the log.
func logging(t testing.TB, p identity.Paths) (*identity.Certificates, *record) {
	t.Helper()
	log := new(record)
	c, err := identity.Load(p, "", slog.New(slog.NewTextHandler(log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	return c, log
}

// listener serves gRPC, with TLS when there are files, and says who calls.
type listener struct {
	healthv1.UnimplementedHealthServer
	address string

	mu      sync.Mutex
	refused []string
}

// Check answers by failing unless the caller's identity is known.
func (l *listener) Check(ctx context.Context, r *healthv1.HealthCheckRequest) (*healthv1.HealthCheckResponse, error) {
	if who, _ := identity.FromContext(ctx); r.GetService() != who.Name {
		return &healthv1.HealthCheckResponse{Status: healthv1.HealthCheckResponse_NOT_SERVING}, nil
	}
	return &healthv1.HealthCheckResponse{Status: healthv1.HealthCheckResponse_SERVING}, nil
}

// Watch stays open until the client is done.
func (l *listener) Watch(_ *healthv1.HealthCheckRequest, s grpc.ServerStreamingServer[healthv1.HealthCheckResponse]) error {
	if err := s.Send(&healthv1.HealthCheckResponse{}); err != nil {
		return err
	}
	<-s.Context().Done()
	return nil
}

func listen(t testing.TB, c *identity.Certificates) *listener {
	t.Helper()
	socket, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := &listener{address: socket.Addr().String()}
	creds := insecure.NewCredentials()
	if c != nil {
		creds = c.Server(func(_ net.Addr, err error) {
			l.mu.Lock()
			defer l.mu.Unlock()
			l.refused = append(l.refused, err.Error())
		})
	}
	s := grpc.NewServer(grpc.Creds(creds))
	healthv1.RegisterHealthServer(s, l)
	var serving sync.WaitGroup
	serving.Go(func() { _ = s.Serve(socket) })
	t.Cleanup(func() { s.Stop(); serving.Wait() })
	return l
}

func (l *listener) refusals() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Join(l.refused, "\n")
}

// connect returns a client that has not connected yet.
func connect(t *testing.T, address string, creds *identity.Client) healthv1.HealthClient {
	t.Helper()
	conn, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(creds), grpc.WithNoProxy())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return healthv1.NewHealthClient(conn)
}

// call asks with a new connection who the server thinks the caller is.
func call(t *testing.T, address string, c *identity.Certificates, want string) error {
	t.Helper()
	creds := identity.NewClient(c)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	r, err := connect(t, address, creds).Check(ctx, &healthv1.HealthCheckRequest{Service: want})
	switch trouble := creds.Trouble(); {
	case err == nil && trouble != nil:
		t.Errorf("trouble in spite of an answer: %v", trouble)
	case err == nil && r.GetStatus() != healthv1.HealthCheckResponse_SERVING:
		t.Errorf("the server does not know that the caller is %q", want)
	case trouble != nil:
		return trouble
	}
	return err
}

func TestBothSidesKnowEachOther(t *testing.T) {
	ca := identitytest.NewCA(t, "the CA")
	server := load(t, ca.Files(t, plane, nil))
	l := listen(t, server)
	for _, who := range []identity.Identity{edge, alice, {Role: identity.DataPlane, Name: "høst:19000/a b"}} {
		client := load(t, ca.Files(t, who, nil))
		if client.Identity() != who {
			t.Errorf("got %v, want %v", client.Identity(), who)
		}
		if err := call(t, l.address, client, who.Name); err != nil {
			t.Errorf("%v: %v", who, err)
		}
	}
	t.Run("through an intermediate", func(t *testing.T) {
		between := ca.Intermediate(t, "between")
		paths := between.Files(t, edge, nil)
		cert, key := between.Issue(t, edge, nil)
		identitytest.Write(t, paths.CA, ca.PEM)
		identitytest.Write(t, paths.Cert, cert, between.PEM)
		identitytest.Write(t, paths.Key, key)
		client := load(t, paths)
		if err := call(t, l.address, client, edge.Name); err != nil {
			t.Error(err)
		}
	})
	if got := l.refusals(); got != "" {
		t.Errorf("refused: %s", got)
	}
	if err := call(t, listen(t, nil).address, nil, ""); err != nil {
		t.Errorf("plaintext on both sides: %v", err)
	}
}

func TestRefusals(t *testing.T) {
	ca, other := identitytest.NewCA(t, "the CA"), identitytest.NewCA(t, "another CA")
	serverOnly := func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }
	clientOnly := func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} }
	early := func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Hour) }
	// With the CA of the other side, so that it is the other side that refuses.
	trusting := func(p identity.Paths, ca *identitytest.CA) identity.Paths {
		identitytest.Write(t, p.CA, ca.PEM)
		return p
	}
	for _, test := range []struct {
		name           string
		server, client identity.Paths // none: plaintext
		// in the error of each side
		atServer, atClient string
	}{
		{
			"the client's CA is unknown", ca.Files(t, plane, nil), trusting(other.Files(t, edge, nil), ca),
			`the certificate of data plane edge-1 is from "another CA", which is none of the CAs in `, "(data plane edge-1, from another CA, until 2",
		},
		{
			"the client's certificate has expired", ca.Files(t, plane, nil), ca.Files(t, edge, identitytest.Ended),
			"the certificate of data plane edge-1 expired on ", "(data plane edge-1, from the CA, expired on 2",
		},
		{
			"the client's certificate is not valid yet", ca.Files(t, plane, nil), ca.Files(t, edge, early),
			"the certificate of data plane edge-1 is not valid before ", "the control plane refuses the certificate in ",
		},
		{
			"the client's certificate is for servers", ca.Files(t, plane, nil), ca.Files(t, edge, serverOnly),
			"the certificate of data plane edge-1 is not meant for this side", "the control plane refuses the certificate in ",
		},
		{
			"the server's CA is unknown", trusting(other.Files(t, plane, nil), ca), ca.Files(t, edge, nil),
			"the client refuses the certificate in ", `the certificate of control plane main is from "another CA", which is none of the CAs in `,
		},
		{
			"the server's certificate has expired", ca.Files(t, plane, identitytest.Ended), ca.Files(t, edge, nil),
			"(control plane main, from the CA, expired on 2", "the certificate of control plane main expired on ",
		},
		{
			"the server's certificate is for clients", ca.Files(t, plane, clientOnly), ca.Files(t, edge, nil),
			"the client refuses the certificate in ", "the certificate of control plane main is not meant for this side",
		},
		{
			"the server is a data plane", ca.Files(t, edge, nil), ca.Files(t, edge, nil),
			"the client refuses the certificate in ", "has the certificate of data plane edge-1, and not that of a control plane",
		},
		{
			"the server is an operator", ca.Files(t, alice, nil), ca.Files(t, edge, nil),
			"the client refuses the certificate in ", "has the certificate of operator alice, and not that of a control plane",
		},
		{
			"the client is plaintext", ca.Files(t, plane, nil), identity.Paths{},
			"the client speaks without encryption", "it closes the connection before it says anything, as a control plane with encryption does",
		},
		{
			"the server is plaintext", identity.Paths{}, ca.Files(t, edge, nil),
			"", "what listens there speaks without encryption",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			var server, client *identity.Certificates
			if test.server.Given() {
				server = load(t, test.server)
			}
			if test.client.Given() {
				client = load(t, test.client)
			}
			l := listen(t, server)
			err := call(t, l.address, client, "")
			if err == nil || !strings.Contains(err.Error(), test.atClient) {
				t.Errorf("at the client: %v, want %q", err, test.atClient)
			}
			eventually(t, "the server says "+test.atServer, func() bool { return strings.Contains(l.refusals(), test.atServer) })
		})
	}
}

// A port that somebody only tries is no refusal.
func TestAConnectionWithoutAWordIsNotRefused(t *testing.T) {
	ca := identitytest.NewCA(t, "the CA")
	server := load(t, ca.Files(t, plane, nil))
	l := listen(t, server)
	for _, linger := range []int{-1, 0} { // with a FIN, with a RST
		conn, err := net.Dial("tcp", l.address)
		if err != nil {
			t.Fatal(err)
		}
		if err := conn.(*net.TCPConn).SetLinger(linger); err != nil {
			t.Fatal(err)
		}
		conn.Close()
	}
	client := load(t, ca.Files(t, edge, nil))
	if err := call(t, l.address, client, edge.Name); err != nil { // by then the other has been seen, too
		t.Fatal(err)
	}
	if got := l.refusals(); got != "" {
		t.Errorf("refused: %s", got)
	}
}

func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !condition(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not in %s: %s", patience, what)
		}
	}
}

// follow has the files re-read until the test ends.
func follow(t *testing.T, c *identity.Certificates) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { identity.RunEvery(ctx, c, time.Millisecond) })
	t.Cleanup(func() { cancel(); running.Wait() })
}

// A new leaf on both sides, then a new CA: trusted beside the old one first, then
// instead of it. A stream that is open all the time notices nothing.
func TestRotation(t *testing.T) {
	before, after := identitytest.NewCA(t, "before"), identitytest.NewCA(t, "after")
	serverFiles, clientFiles := before.Files(t, plane, nil), before.Files(t, edge, nil)
	oldFiles := before.Files(t, edge, nil)
	identitytest.Write(t, oldFiles.CA, before.PEM, after.PEM)
	server, serverLog := logging(t, serverFiles)
	client := load(t, clientFiles)
	follow(t, server)
	follow(t, client)
	l := listen(t, server)

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	stream, err := connect(t, l.address, identity.NewClient(client)).Watch(ctx, &healthv1.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() {
		_, err := stream.Recv()
		ended <- err
	}()

	renewed := func(what string, do func()) {
		t.Helper()
		n := strings.Count(serverLog.String(), "certificates replaced")
		do()
		eventually(t, what, func() bool { return strings.Count(serverLog.String(), "certificates replaced") > n })
	}
	accepted := func(what string, c *identity.Certificates) {
		t.Helper()
		if err := call(t, l.address, c, edge.Name); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	renewed("the leaf is replaced", func() {
		before.Renew(t, serverFiles, plane, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(100 * time.Hour) })
	})
	if left := time.Until(server.Expiry()); left > 101*time.Hour {
		t.Errorf("the certificate ends in %s, want that of the new one", left)
	}
	accepted("with a new leaf at the server", client)

	identitytest.Write(t, clientFiles.CA, before.PEM, after.PEM)
	renewed("the new CA is trusted", func() { identitytest.Write(t, serverFiles.CA, before.PEM, after.PEM) })
	accepted("with both CAs", client)
	renewed("the server has a leaf of the new CA", func() { after.Renew(t, serverFiles, plane, nil) })
	eventually(t, "the client trusts both", func() bool { return call(t, l.address, client, edge.Name) == nil })
	after.Renew(t, clientFiles, identity.Identity{Role: identity.DataPlane, Name: "edge-2"}, nil)
	eventually(t, "the client has a leaf of the new CA", func() bool { return client.Identity().Name == "edge-2" })
	if err := call(t, l.address, client, "edge-2"); err != nil {
		t.Errorf("with leaves of the new CA: %v", err)
	}
	old := load(t, oldFiles)
	accepted("one that is late, with both CAs", old)
	renewed("the old CA is dropped", func() { identitytest.Write(t, serverFiles.CA, after.PEM) })
	if err := call(t, l.address, old, ""); err == nil || !strings.Contains(err.Error(), "unknown certificate authority") {
		t.Errorf("with a leaf of the CA that was dropped: %v", err)
	}
	if err := call(t, l.address, client, "edge-2"); err != nil {
		t.Errorf("with the new CA alone: %v", err)
	}

	select {
	case err := <-ended:
		t.Errorf("the stream has ended: %v", err)
	default:
	}
	cancel()
	<-ended
}

func TestFilesThatCannotBeUsedChangeNothing(t *testing.T) {
	ca := identitytest.NewCA(t, "the CA")
	cert, key := ca.Issue(t, plane, nil)
	otherCert, _ := ca.Issue(t, plane, nil)
	ofAlice, keyOfAlice := ca.Issue(t, alice, nil)
	nameless, keyOfNameless := ca.Issue(t, plane, func(c *x509.Certificate) { c.URIs = nil })
	two := identitytest.NewCA(t, "two").PEM
	for _, test := range []struct {
		name          string
		ca, cert, key []byte // nil: no such file
		want          string
	}{
		{"no CA", nil, cert, key, "no such file"},
		{"no certificate", ca.PEM, nil, key, "no such file"},
		{"no key", ca.PEM, cert, nil, "no such file"},
		{"an empty CA", []byte{}, cert, key, "ca.crt has no certificate: want PEM"},
		{"half a CA", ca.PEM[:len(ca.PEM)/2], cert, key, "ca.crt is damaged: it begins 1 certificates, of which 0 can be read"},
		{"one CA and a half", join(two, ca.PEM[:len(ca.PEM)/2]), cert, key, "ca.crt is damaged: it begins 2 certificates, of which 1 can be read"},
		{"a damaged CA before another", join(bytes.Replace(two, []byte("MII"), []byte("MI*"), 1), ca.PEM), cert, key, "begins 2 certificates, of which 1"},
		{"bytes of no certificate", join([]byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")), cert, key, "ca.crt: certificate 1: "},
		{"a leaf as CA", cert, cert, key, "the certificate of control plane main is not that of a CA"},
		{"a key as CA", key, cert, key, "ca.crt has a PRIVATE KEY where a CERTIFICATE is expected"},
		{"half a certificate", ca.PEM, cert[:len(cert)/2], key, "tls.crt is damaged"},
		{"half a key", ca.PEM, cert, key[:len(key)/2], "tls.key: tls: failed to find any PEM data in key input"},
		{"another's key", ca.PEM, otherCert, key, "tls.key: tls: private key does not match public key"},
		{"another role", ca.PEM, ofAlice, keyOfAlice, "tls.crt is the certificate of operator alice, and that of a control plane is needed"},
		{"no identity", ca.PEM, nameless, keyOfNameless, "tls.crt: no alternative name is a URI that begins with reverseproxy://"},
	} {
		t.Run(test.name, func(t *testing.T) {
			good := ca.Files(t, plane, nil)
			log := new(record)
			c, err := identity.Load(good, identity.ControlPlane, slog.New(slog.NewTextHandler(log, nil)))
			if err != nil {
				t.Fatal(err)
			}
			end := c.Expiry()
			for path, data := range map[string][]byte{good.CA: test.ca, good.Cert: test.cert, good.Key: test.key} {
				if data == nil {
					if err := os.Remove(path); err != nil {
						t.Fatal(err)
					}
					continue
				}
				identitytest.Write(t, path, data)
			}
			if _, err := identity.Load(good, identity.ControlPlane, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("at the start: %v, want %q", err, test.want)
			}
			follow(t, c) // when all are there: some of them alone may be good, or bad for another reason
			eventually(t, "it is logged", func() bool { return strings.Contains(log.String(), "those before stay in force") })
			if got := log.String(); !strings.Contains(got, strings.ReplaceAll(test.want, `"`, `\"`)) {
				t.Errorf("logged %s, want %q", got, test.want)
			}
			if !c.Expiry().Equal(end) || c.Identity() != plane {
				t.Error("something else is in force")
			}
			// Everything is good again, and has been looked at many times meanwhile.
			ca.Renew(t, good, plane, func(c *x509.Certificate) { c.NotAfter = c.NotAfter.Add(time.Hour) })
			identitytest.Write(t, good.CA, ca.PEM)
			eventually(t, "the good ones are used", func() bool { return c.Expiry().After(end) })
		})
	}
}

// What is found at one look only may be half of a change, and one that cannot be used
// is logged once however often it is looked at.
func TestFilesAreGivenTimeAndErrorsAreLoggedOnce(t *testing.T) {
	ca := identitytest.NewCA(t, "the CA")
	synctest.Test(t, func(t *testing.T) {
		p := ca.Files(t, edge, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(900 * time.Hour) })
		c, log := logging(t, p)
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { identity.RunEvery(ctx, c, time.Second) })
		time.Sleep(500 * time.Millisecond) // between two looks from here on
		identitytest.Write(t, p.CA, ca.PEM[:100])
		time.Sleep(time.Second)
		identitytest.Write(t, p.CA, ca.PEM)
		time.Sleep(time.Minute)
		if got := log.String(); strings.Count(got, "\n") != 1 || !strings.Contains(got, "certificates loaded") {
			t.Errorf("logged %s", got)
		}
		identitytest.Write(t, p.CA, ca.PEM[:100])
		time.Sleep(time.Hour)
		if got := strings.Count(log.String(), "\n"); got != 2 {
			t.Errorf("%d lines about one error:\n%s", got-1, log)
		}
		identitytest.Write(t, p.CA, ca.PEM)
		time.Sleep(time.Minute)
		if got := log.String(); strings.Count(got, "\n") != 3 || !strings.Contains(got, "certificates replaced") {
			t.Errorf("after the end of the error:\n%s", got)
		}
		cancel()
		running.Wait()
	})
}

func join(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

// A certificate that is about to end is warned of once a day, until it is renewed.
func TestExpiryIsWarnedOf(t *testing.T) {
	ca := identitytest.NewCA(t, "the CA")
	for _, test := range []struct {
		name   string
		left   time.Duration
		want   string
		inDays []int // warnings so far, at the beginning and after each day
	}{
		{"soon", 100 * time.Hour, "certificate expires soon", []int{1, 2, 3}},
		{"in time", 8*24*time.Hour + time.Hour, "certificate expires soon", []int{0, 0, 1}},
		{"too late", -time.Minute, "certificate has expired: nobody will accept it", []int{1, 2, 3}},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := ca.Files(t, edge, func(c *x509.Certificate) {
					c.NotBefore, c.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(test.left)
				})
				c, log := logging(t, p)
				ctx, cancel := context.WithCancel(t.Context())
				var running sync.WaitGroup
				running.Go(func() { identity.RunEvery(ctx, c, time.Hour) })
				for day, want := range test.inDays {
					if day > 0 {
						time.Sleep(24 * time.Hour)
					}
					synctest.Wait()
					if got := strings.Count(log.String(), test.want); got != want {
						t.Errorf("day %d: %d warnings, want %d:\n%s", day, got, want, log)
					}
				}
				n := strings.Count(log.String(), test.want)
				ca.Renew(t, p, edge, func(c *x509.Certificate) {
					c.NotBefore, c.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(900*time.Hour)
				})
				time.Sleep(48 * time.Hour)
				synctest.Wait()
				if got := strings.Count(log.String(), test.want); got != n {
					t.Errorf("%d more warnings after it was renewed:\n%s", got-n, log)
				}
				cancel()
				running.Wait()
			})
		})
	}
}

func TestPaths(t *testing.T) {
	for _, test := range []struct {
		paths identity.Paths
		want  string
	}{
		{identity.Paths{}, ""},
		{identity.Paths{CA: "a", Cert: "b", Key: "c"}, ""},
		{identity.Paths{CA: "a"}, "no --tls-cert and no --tls-key"},
		{identity.Paths{CA: "a", Key: "c"}, "no --tls-cert"},
		{identity.Paths{Cert: "b", Key: "c"}, "no --tls-ca"},
	} {
		err := test.paths.Check()
		if (err == nil) != (test.want == "") || err != nil && !strings.HasSuffix(err.Error(), test.want) {
			t.Errorf("%+v: %v, want %q", test.paths, err, test.want)
		}
	}
}
