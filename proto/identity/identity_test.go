package identity

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net/url"
	"strings"
	"testing"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/peer"
)

func TestURI(t *testing.T) {
	for _, test := range []struct {
		identity Identity
		uri      string
	}{
		{Identity{DataPlane, "edge-1"}, "reverseproxy://dataplane/edge-1"},
		{Identity{DataPlane, "host:19000"}, "reverseproxy://dataplane/host:19000"},
		{Identity{DataPlane, "/a//b/"}, "reverseproxy://dataplane//a//b/"},
		{Identity{DataPlane, "100% ?#å"}, "reverseproxy://dataplane/100%25%20%3F%23%C3%A5"},
		{Identity{ControlPlane, "main"}, "reverseproxy://controlplane/main"},
		{Identity{Operator, ".."}, "reverseproxy://operator/.."},
		{Identity{Operator, strings.Repeat("x", 200)}, "reverseproxy://operator/" + strings.Repeat("x", 200)},
	} {
		if err := test.identity.Check(); err != nil {
			t.Errorf("%v: %v", test.identity, err)
		}
		if got := test.identity.URI().String(); got != test.uri {
			t.Errorf("URI of %v: %s, want %s", test.identity, got, test.uri)
		}
		if got, err := Of(with(t, test.uri)); err != nil || got != test.identity {
			t.Errorf("Of %s: %v, %v, want %v", test.uri, got, err, test.identity)
		}
	}
}

// with returns a certificate with these URIs.
func with(t *testing.T, uris ...string) *x509.Certificate {
	t.Helper()
	c := new(x509.Certificate)
	for _, text := range uris {
		u, err := url.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		c.URIs = append(c.URIs, u)
	}
	return c
}

func TestOfRefuses(t *testing.T) {
	for _, test := range []struct {
		uris []string
		want string
	}{
		{nil, "no alternative name"},
		{[]string{"spiffe://x/dataplane/a"}, "no alternative name"},
		{[]string{"reverseproxy://dataplane"}, "is not reverseproxy://ROLE/NAME"},
		{[]string{"reverseproxy:dataplane/a"}, "is not reverseproxy://ROLE/NAME"},
		{[]string{"reverseproxy://dataplane/a?b"}, "is not reverseproxy://ROLE/NAME"},
		{[]string{"reverseproxy://dataplane/a?"}, "is not reverseproxy://ROLE/NAME"},
		{[]string{"reverseproxy://dataplane/a#b"}, "is not reverseproxy://ROLE/NAME"},
		{[]string{"reverseproxy://u@dataplane/a"}, "is not reverseproxy://ROLE/NAME"},
		{[]string{"reverseproxy://dataplane:1/a"}, "is not reverseproxy://ROLE/NAME"},
		{[]string{"reverseproxy://dataplane/"}, "name"},
		{[]string{"reverseproxy://dataplane/a%00"}, "name"},
		{[]string{"reverseproxy://dataplane/%ff"}, "name"},
		{[]string{"reverseproxy://operator/" + strings.Repeat("x", 201)}, "name"},
		{[]string{"reverseproxy://DataPlane/a"}, `role "DataPlane" is none of dataplane, controlplane, operator`},
		{[]string{"reverseproxy://admin/a"}, `role "admin" is none of`},
		{[]string{"reverseproxy://dataplane/a", "reverseproxy://operator/a"}, "several identities"},
		{[]string{"reverseproxy://dataplane/a", "reverseproxy://admin/a"}, "role"},
	} {
		if got, err := Of(with(t, test.uris...)); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%q: %v, %v, want an error with %q", test.uris, got, err, test.want)
		}
	}
	if got, err := Of(with(t, "https://example.com/", "reverseproxy://operator/a")); err != nil || got.Name != "a" {
		t.Errorf("beside other URIs: %v, %v", got, err)
	}
}

func TestFromContext(t *testing.T) {
	tlsInfo := func(c ...*x509.Certificate) context.Context {
		return peer.NewContext(t.Context(), &peer.Peer{AuthInfo: credentials.TLSInfo{State: tls.ConnectionState{PeerCertificates: c}}})
	}
	for name, test := range map[string]struct {
		ctx  context.Context
		want Identity
	}{
		"no call":           {ctx: t.Context()},
		"plaintext":         {ctx: peer.NewContext(t.Context(), &peer.Peer{AuthInfo: insecureInfo(t)})},
		"no certificate":    {ctx: tlsInfo()},
		"no identity":       {ctx: tlsInfo(with(t))},
		"an identity":       {ctx: tlsInfo(with(t, "reverseproxy://operator/a")), want: Identity{Operator, "a"}},
		"with its issuer":   {ctx: tlsInfo(with(t, "reverseproxy://operator/a"), with(t, "reverseproxy://operator/b")), want: Identity{Operator, "a"}},
		"only in an issuer": {ctx: tlsInfo(with(t), with(t, "reverseproxy://operator/b"))},
	} {
		got, ok := FromContext(test.ctx)
		if ok != (test.want.Role != "") || ok && got != test.want {
			t.Errorf("%s: %v, %t, want %v", name, got, ok, test.want)
		}
	}
}

// insecureInfo is what a plaintext connection says about its peer.
func insecureInfo(t *testing.T) credentials.AuthInfo {
	t.Helper()
	_, info, err := insecure.NewCredentials().ServerHandshake(nil)
	if err != nil {
		t.Fatal(err)
	}
	return info
}

// What is taken for an identity is written the same way again, and is fit for a
// status line.
func FuzzOf(f *testing.F) {
	for _, uri := range []string{"reverseproxy://dataplane/edge-1", "reverseproxy://dataplane//%2F%00", "reverseproxy:///", "reverseproxy://operator/a?b#c"} {
		f.Add(uri)
	}
	f.Fuzz(func(t *testing.T, uri string) {
		u, err := url.Parse(uri)
		if err != nil {
			return
		}
		i, err := Of(&x509.Certificate{URIs: []*url.URL{u}})
		if err != nil {
			return
		}
		if err := i.Check(); err != nil {
			t.Errorf("%q is %v, which is not valid: %v", uri, i, err)
		}
		if again, err := Of(with(t, i.URI().String())); err != nil || again != i {
			t.Errorf("%q is %v, but %s is %v, %v", uri, i, i.URI(), again, err)
		}
	})
}
