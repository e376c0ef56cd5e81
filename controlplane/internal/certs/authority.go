// Package certs makes and describes the certificates for mutual TLS: a private CA in
// a directory, and what it issues to data planes, control planes and operators. What
// the certificates mean is in package identity.
package certs

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"net/url"
	"time"

	"reverseproxy/proto/identity"
)

const (
	// authorityDays is how long a CA is valid.
	authorityDays = 3650
	// tolerance is by how much clocks may be slow.
	tolerance = time.Hour
	// maxCommonName is the X.520 bound.
	maxCommonName = 64
)

// pair is a certificate and its private key, both in PEM.
type pair struct {
	certificate *x509.Certificate
	cert, key   []byte
}

// authority is a CA that can issue.
type authority struct {
	certificate *x509.Certificate
	key         crypto.Signer
}

// newAuthority makes a CA. No two have the same name, so that messages which name one
// are clear.
func newAuthority(now time.Time) (*authority, pair, error) {
	number := make([]byte, 4)
	_, _ = rand.Read(number) // never fails
	template := &x509.Certificate{
		Subject:   pkix.Name{CommonName: "reverseproxy CA " + hex.EncodeToString(number)},
		NotBefore: now.Add(-tolerance), NotAfter: now.AddDate(0, 0, authorityDays),
		IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true, KeyUsage: x509.KeyUsageCertSign,
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, pair{}, err
	}
	p, err := sign(template, template, key, key)
	return &authority{p.certificate, key}, p, err
}

// issue makes a certificate for somebody. It ends with the CA's at the latest.
func (a *authority) issue(who identity.Identity, now time.Time, days int) (pair, error) {
	if err := who.Check(); err != nil {
		return pair{}, err
	}
	if !now.Before(a.certificate.NotAfter) {
		return pair{}, fmt.Errorf("the CA expired on %s", day(a.certificate.NotAfter))
	}
	end := now.AddDate(0, 0, days)
	if end.After(a.certificate.NotAfter) {
		end = a.certificate.NotAfter
	}
	template := &x509.Certificate{
		NotBefore: now.Add(-tolerance), NotAfter: end, URIs: []*url.URL{who.URI()},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{usageOf(who.Role)}, BasicConstraintsValid: true,
	}
	if name := who.String(); len(name) <= maxCommonName {
		template.Subject.CommonName = name // for people; the URI is what counts
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return pair{}, err
	}
	return sign(template, a.certificate, key, a.key)
}

// usageOf is the side of a connection that a role is on.
func usageOf(r identity.Role) x509.ExtKeyUsage {
	if r == identity.ControlPlane {
		return x509.ExtKeyUsageServerAuth
	}
	return x509.ExtKeyUsageClientAuth
}

// sign makes the certificate that the template describes.
func sign(template, parent *x509.Certificate, key *ecdsa.PrivateKey, by crypto.Signer) (pair, error) {
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, by)
	if err != nil {
		return pair{}, fmt.Errorf("sign: %w", err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		return pair{}, fmt.Errorf("sign: %w", err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return pair{}, err
	}
	return pair{
		c, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}),
	}, nil
}

// parseKey reads a private key in PEM, of any kind that TLS takes.
func parseKey(data []byte) (crypto.Signer, error) {
	block, _ := pem.Decode(data)
	if block == nil {
		return nil, errors.New("it has no private key in PEM")
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		key, err = x509.ParseECPrivateKey(block.Bytes)
	}
	if err != nil {
		key, err = x509.ParsePKCS1PrivateKey(block.Bytes)
	}
	signer, ok := key.(crypto.Signer)
	if err != nil || !ok {
		return nil, fmt.Errorf("its %s is no private key that TLS takes", block.Type)
	}
	return signer, nil
}

// belong reports whether a private key is that of a certificate.
func belong(key crypto.Signer, c *x509.Certificate) bool {
	public, ok := key.Public().(interface{ Equal(crypto.PublicKey) bool })
	return ok && public.Equal(c.PublicKey)
}

func day(t time.Time) string { return t.UTC().Format("2006-01-02") }
