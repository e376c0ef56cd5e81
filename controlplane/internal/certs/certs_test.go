package certs

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"reverseproxy/proto/identity"
	"reverseproxy/proto/identity/identitytest"
)

var (
	plane = identity.Identity{Role: identity.ControlPlane, Name: "main"}
	admin = identity.Identity{Role: identity.Operator, Name: "admin"}
	edge  = identity.Identity{Role: identity.DataPlane, Name: "host:19000"}
)

// initialized returns a directory with a CA, a control plane and an operator.
func initialized(t *testing.T, now time.Time) Dir {
	t.Helper()
	d := Dir(filepath.Join(t.TempDir(), "made", "certs"))
	if _, _, err := d.Init([]identity.Identity{plane, admin}, now, 365, false); err != nil {
		t.Fatal(err)
	}
	return d
}

// snapshot returns all files of a directory.
func snapshot(t *testing.T, d Dir) map[string]string {
	t.Helper()
	entries, err := os.ReadDir(string(d))
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]string{}
	for _, e := range entries {
		data, err := os.ReadFile(filepath.Join(string(d), e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		all[e.Name()] = string(data)
	}
	return all
}

// Whatever has been made is accepted where it is used, and for its owner only.
func TestWhatIsIssuedCanBeUsed(t *testing.T) {
	now := time.Now()
	d := initialized(t, now)
	for _, who := range []identity.Identity{
		edge, {Role: identity.DataPlane, Name: "a/b c'$å"}, {Role: identity.DataPlane, Name: ".."},
		{Role: identity.Operator, Name: "alice"}, {Role: identity.ControlPlane, Name: "second"},
		{Role: identity.Operator, Name: strings.Repeat("x", 200)},
	} {
		issued, err := d.Issue(who, now, 30, false)
		if err != nil {
			t.Errorf("%v: %v", who, err)
			continue
		}
		if dir := filepath.Dir(issued.Paths.Cert); dir != string(d) {
			t.Errorf("%v: written into %s", who, dir)
		}
		c, err := identity.Load(issued.Paths, who.Role, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Errorf("%v: %v", who, err)
			continue
		}
		if c.Identity() != who || !c.Expiry().Equal(issued.Until) || issued.Until.Sub(now) > 30*24*time.Hour {
			t.Errorf("%v: is %v, until %v", who, c.Identity(), c.Expiry())
		}
		verify(t, issued.Paths, who)
	}
	for name := range snapshot(t, d) {
		info, err := os.Stat(filepath.Join(string(d), name))
		if err != nil {
			t.Fatal(err)
		}
		if want := map[string]fs.FileMode{".key": 0o600, ".crt": 0o644}[filepath.Ext(name)]; info.Mode() != want {
			t.Errorf("%s has mode %v, want %v", name, info.Mode(), want)
		}
	}
	if info, err := os.Stat(string(d)); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the directory has mode %v (%v), want 0700", info.Mode(), err)
	}
}

// verify fails unless the certificate is good for its owner's side of a connection,
// and for no other.
func verify(t *testing.T, p identity.Paths, who identity.Identity) {
	t.Helper()
	leaf, roots := certificate(t, p.Cert), x509.NewCertPool()
	roots.AddCert(certificate(t, p.CA))
	for _, usage := range []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth} {
		_, err := leaf.Verify(x509.VerifyOptions{Roots: roots, KeyUsages: []x509.ExtKeyUsage{usage}})
		if server := who.Role == identity.ControlPlane; (err == nil) != (server == (usage == x509.ExtKeyUsageServerAuth)) {
			t.Errorf("%v for usage %v: %v", who, usage, err)
		}
	}
}

func certificate(t *testing.T, path string) *x509.Certificate {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	list, err := identity.ParseCertificates(path, data)
	if err != nil {
		t.Fatal(err)
	}
	return list[0]
}

func TestNothingIsOverwrittenWithoutForce(t *testing.T) {
	now := time.Now()
	d := initialized(t, now)
	if _, err := d.Issue(edge, now, 30, false); err != nil {
		t.Fatal(err)
	}
	before := snapshot(t, d)
	if _, err := d.Issue(edge, now, 30, false); err == nil || !strings.Contains(err.Error(), "dataplane-host:19000.key") {
		t.Errorf("a certificate again: %v", err)
	}
	for _, name := range []string{"ca.crt", "ca.key", "operator-admin.crt", "operator-admin.key"} {
		// One that is there is enough.
		alone := Dir(t.TempDir())
		if err := os.WriteFile(filepath.Join(string(alone), name), nil, 0o644); err != nil {
			t.Fatal(err)
		}
		if _, _, err := alone.Init([]identity.Identity{plane, admin}, now, 30, false); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("init beside %s: %v", name, err)
		}
		if got := snapshot(t, alone); len(got) != 1 {
			t.Errorf("init beside %s wrote %d files", name, len(got)-1)
		}
	}
	if diff := cmp.Diff(before, snapshot(t, d)); diff != "" {
		t.Errorf("changed:\n%s", diff)
	}

	if _, err := d.Issue(edge, now, 30, true); err != nil {
		t.Fatal(err)
	}
	after := snapshot(t, d)
	for name := range before {
		if renewed := strings.HasPrefix(name, "dataplane-"); (before[name] != after[name]) != renewed {
			t.Errorf("%s: changed %t, want %t", name, before[name] != after[name], renewed)
		}
	}
	// A key that others could read cannot be read by them any more.
	if err := os.Chmod(d.caKey(), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, _, err := d.Init([]identity.Identity{plane}, now, 30, true); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(d.caKey()); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the replaced key has mode %v", info.Mode())
	}
	if snapshot(t, d)["ca.crt"] == before["ca.crt"] {
		t.Error("with force the CA is the same")
	}
}

func TestACertificateEndsWithItsCA(t *testing.T) {
	now := time.Now()
	d := initialized(t, now.AddDate(0, 0, 10-authorityDays))
	issued, err := d.Issue(edge, now, 30, false)
	if err != nil {
		t.Fatal(err)
	}
	if want := certificate(t, d.caCert()).NotAfter; !issued.Until.Equal(want) {
		t.Errorf("until %v, want the end of the CA, %v", issued.Until, want)
	}
	if _, err := d.Issue(plane, now.AddDate(0, 0, 11), 30, true); err == nil || !strings.Contains(err.Error(), "the CA expired on") {
		t.Errorf("after the end of the CA: %v", err)
	}
}

// While two CAs are trusted the key says which one issues, and CAs that somebody else
// has made are as good.
func TestTheCAIsTheOneOfTheKey(t *testing.T) {
	now := time.Now()
	d := initialized(t, now)
	ca, err := os.ReadFile(d.caCert())
	if err != nil {
		t.Fatal(err)
	}
	other := identitytest.NewCA(t, "another CA")
	identitytest.Write(t, d.caCert(), other.PEM, ca)
	issued, err := d.Issue(edge, now, 30, false)
	if err != nil {
		t.Fatal(err)
	}
	if got := certificate(t, issued.Paths.Cert).Issuer.CommonName; !strings.HasPrefix(got, "reverseproxy CA ") {
		t.Errorf("issued by %q", got)
	}
	identitytest.Write(t, d.caCert(), other.PEM)
	if _, err := d.Issue(plane, now, 30, true); err == nil || !strings.Contains(err.Error(), "ca.crt has no certificate of a CA that belongs to the key in ") {
		t.Errorf("another's key: %v", err)
	}
}

func TestACAThatCannotIssue(t *testing.T) {
	now := time.Now()
	for _, test := range []struct {
		name, key, cert string // empty: left as it is
		want            string
	}{
		{"no PEM", "x", "", "ca.key: it has no private key in PEM"},
		{"no key", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "", "ca.key: its PRIVATE KEY is no private key that TLS takes"},
		{"no certificate", "", "x", "ca.crt has no certificate"},
	} {
		t.Run(test.name, func(t *testing.T) {
			d := initialized(t, now)
			for path, text := range map[string]string{d.caKey(): test.key, d.caCert(): test.cert} {
				if text != "" {
					identitytest.Write(t, path, []byte(text))
				}
			}
			if _, err := d.Issue(edge, now, 30, false); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %q", err, test.want)
			}
		})
	}
	if _, err := Dir("nowhere").Issue(edge, now, 30, false); err == nil || !strings.Contains(err.Error(), "controlplane certs init --dir nowhere makes a CA") {
		t.Errorf("no CA: %v", err)
	}
	if _, err := initialized(t, now).Issue(identity.Identity{Role: identity.DataPlane}, now, 30, false); err == nil {
		t.Error("issued for nobody")
	}
}

func TestKeysOfEveryKind(t *testing.T) {
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	sec1, err := x509.MarshalECPrivateKey(ec)
	if err != nil {
		t.Fatal(err)
	}
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	for kind, der := range map[string][]byte{"EC PRIVATE KEY": sec1, "RSA PRIVATE KEY": x509.MarshalPKCS1PrivateKey(rsaKey)} {
		if _, err := parseKey(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})); err != nil {
			t.Errorf("%s: %v", kind, err)
		}
	}
}

func TestShow(t *testing.T) {
	now := time.Now()
	d := initialized(t, now)
	issued, err := d.Issue(edge, now, 30, false)
	if err != nil {
		t.Fatal(err)
	}
	all, err := filepath.Glob(filepath.Join(string(d), "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, described := range Show(all, now) {
		if len(described.Problems) > 0 || described.Role == "" || described.Name == "" {
			t.Errorf("%+v", described)
		}
	}
	dir := t.TempDir()
	file := func(name string, mode fs.FileMode, parts ...[]byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, bytes.Join(parts, nil), mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	other := identitytest.NewCA(t, "another CA")
	cert, key := other.Issue(t, edge, nil)
	nameless, _ := other.Issue(t, edge, func(c *x509.Certificate) { c.URIs = nil })
	wrongSide, _ := other.Issue(t, plane, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} })
	leaf := file("leaf.crt", 0o644, cert)
	for _, test := range []struct {
		name  string
		files []string
		at    time.Time
		want  []string // of the first description
	}{
		{"good", []string{issued.Paths.Cert, issued.Paths.CA}, now, nil},
		{"alone", []string{issued.Paths.Cert}, now, nil},
		{"the last week", []string{issued.Paths.Cert}, now.AddDate(0, 0, 29), []string{"it expires in 2"}},
		{"expired", []string{issued.Paths.Cert}, now.AddDate(0, 0, 31), []string{"it has expired"}},
		{"too early", []string{issued.Paths.Cert}, now.AddDate(0, 0, -1), []string{"it is not valid before "}},
		{"another CA", []string{leaf, issued.Paths.CA}, now, []string{"no CA in these files has issued it"}},
		{"no identity", []string{file("nameless.crt", 0o644, nameless)}, now, []string{"no alternative name is a URI"}},
		{"the wrong side", []string{file("side.crt", 0o644, wrongSide)}, now, []string{"its extended key usage is not that of a control plane"}},
		{"no file", []string{filepath.Join(dir, "nowhere")}, now, []string{"no such file"}},
		{"no PEM", []string{file("text", 0o644, []byte("hello"))}, now, []string{"has no certificate"}},
		{"half", []string{file("half.crt", 0o644, cert, cert[:100])}, now, []string{"is damaged"}},
		{"an open key", []string{file("open.key", 0o644, key), leaf}, now, []string{"others can read it: mode 0644, want 0600"}},
		{"a lonely key", []string{issued.Paths.Key, leaf}, now, []string{"it belongs to no certificate in these files"}},
		{"a damaged key", []string{file("bad.key", 0o600, []byte("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"))}, now, []string{"no private key that TLS takes"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			got := Show(test.files, test.at)[0].Problems
			if len(got) != len(test.want) {
				t.Fatalf("problems %q, want %q", got, test.want)
			}
			for i := range got {
				if !strings.Contains(got[i], test.want[i]) {
					t.Errorf("problem %q, want %q", got[i], test.want[i])
				}
			}
		})
	}
	both := Show([]string{file("bundle.crt", 0o644, cert, other.PEM)}, now)
	if len(both) != 2 || both[0].Name != edge.Name || both[1].Role != "CA" || len(both[0].Problems)+len(both[1].Problems) > 0 {
		t.Errorf("a bundle: %+v", both)
	}
}

func TestNamesAreFitForATerminal(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ca.crt")
	identitytest.Write(t, path, identitytest.NewCA(t, "a\x1b[2Jb\n").PEM)
	if got := Show([]string{path}, time.Now())[0]; got.Name != "a?[2Jb?" || got.Issuer != "a?[2Jb?" {
		t.Errorf("%+q", got)
	}
}

func FuzzShow(f *testing.F) {
	f.Add([]byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"))
	f.Add([]byte("-----BEGIN EC PRIVATE KEY-----\nAAAA\n-----END EC PRIVATE KEY-----\n"))
	f.Add([]byte("-----BEGIN"))
	_, p, err := newAuthority(time.Now())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(p.cert)
	f.Add(p.key)
	path := filepath.Join(f.TempDir(), "file")
	f.Fuzz(func(t *testing.T, data []byte) {
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		if len(Show([]string{path}, time.Now())) == 0 {
			t.Error("nothing is said about a file")
		}
	})
}
