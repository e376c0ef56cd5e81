// Package identitytest makes certificates for tests, good ones and bad ones.
package identitytest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"

	"reverseproxy/proto/identity"
)

// CA is a private CA.
type CA struct {
	Certificate *x509.Certificate
	// PEM is its certificate.
	PEM []byte
	key *ecdsa.PrivateKey
}

// NewCA returns a CA with the name.
func NewCA(t testing.TB, name string) *CA {
	t.Helper()
	key := newKey(t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(240 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	return signed(t, template, template, key, key)
}

// Issue returns certificate and key of somebody, for 30 days; change, when not nil,
// changes the certificate before it is signed.
func (ca *CA) Issue(t testing.TB, who identity.Identity, change func(*x509.Certificate)) (cert, key []byte) {
	t.Helper()
	private := newKey(t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: who.Name}, URIs: []*url.URL{who.URI()},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(720 * time.Hour),
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}
	if change != nil {
		change(template)
	}
	made := signed(t, template, ca.Certificate, private, ca.key)
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return made.PEM, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
}

// Intermediate returns a CA that this one vouches for.
func (ca *CA) Intermediate(t testing.TB, name string) *CA {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(3), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(240 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	return signed(t, template, ca.Certificate, newKey(t), ca.key)
}

// Files writes three files into a directory of the test: the CA, and what Issue
// returns.
func (ca *CA) Files(t testing.TB, who identity.Identity, change func(*x509.Certificate)) identity.Paths {
	t.Helper()
	dir := t.TempDir()
	p := identity.Paths{CA: filepath.Join(dir, "ca.crt"), Cert: filepath.Join(dir, "tls.crt"), Key: filepath.Join(dir, "tls.key")}
	Write(t, p.CA, ca.PEM)
	ca.Renew(t, p, who, change)
	return p
}

// Renew replaces certificate and key in the files.
func (ca *CA) Renew(t testing.TB, p identity.Paths, who identity.Identity, change func(*x509.Certificate)) {
	t.Helper()
	cert, key := ca.Issue(t, who, change)
	Write(t, p.Cert, cert)
	Write(t, p.Key, key)
}

// Write writes a file in place.
func Write(t testing.TB, path string, parts ...[]byte) {
	t.Helper()
	var data []byte
	for _, p := range parts {
		data = append(data, p...)
	}
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// Ended makes a certificate that ended an hour ago.
func Ended(c *x509.Certificate) {
	c.NotBefore, c.NotAfter = time.Now().Add(-2*time.Hour), time.Now().Add(-time.Hour)
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// signed returns the template, signed by the parent.
func signed(t testing.TB, template, parent *x509.Certificate, key, by *ecdsa.PrivateKey) *CA {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, by)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &CA{Certificate: c, PEM: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), key: key}
}
