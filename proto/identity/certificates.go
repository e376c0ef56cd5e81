package identity

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync/atomic"
	"time"
)

// Paths are the three PEM files of one side.
type Paths struct {
	// CA has the certificates of all CAs that are trusted.
	CA string
	// Cert has this side's certificate, and after it those between it and the CA, if
	// there are any; Key its private key.
	Cert, Key string
}

// Given reports whether any is.
func (p Paths) Given() bool { return p != Paths{} }

// Check returns an error, in the words of the flags, unless all are given or none.
func (p Paths) Check() error {
	var missing []string
	for _, f := range []struct{ flag, path string }{{"--tls-ca", p.CA}, {"--tls-cert", p.Cert}, {"--tls-key", p.Key}} {
		if f.path == "" {
			missing = append(missing, f.flag)
		}
	}
	if len(missing) == 0 || !p.Given() {
		return nil
	}
	return fmt.Errorf("--tls-ca, --tls-cert and --tls-key go together, and there is no %s", strings.Join(missing, " and no "))
}

const (
	// interval is the time between two looks at the files. What two looks in a row
	// have found is used, so that files that are written one after the other, or in
	// place, are given time.
	interval = time.Second
	// expiresSoon is how long before its end a certificate is warned of, once a day.
	expiresSoon = 7 * 24 * time.Hour
	warnAgain   = 24 * time.Hour
)

// Certificates are what one side presents and whom it trusts, as the files say.
// All methods may be called from several goroutines.
type Certificates struct {
	paths   Paths
	role    Role
	log     *slog.Logger
	current atomic.Pointer[material]
}

// material is what the files had in them when they were read. It is immutable.
type material struct {
	files    files
	roots    *x509.CertPool
	own      tls.Certificate
	identity Identity
	// server is for connections that are accepted.
	server *tls.Config
}

// files are the contents of the three, or why they cannot be read.
type files struct{ ca, cert, key, err string }

// Load reads the files. The certificate must be for somebody with the role, or for
// anybody when it is empty. One that has expired is no error: the other side may be
// of another opinion, and a data plane serves without a control plane.
func Load(p Paths, role Role, log *slog.Logger) (*Certificates, error) {
	c := &Certificates{paths: p, role: role, log: log}
	m, err := c.parse(p.read())
	if err != nil {
		return nil, err
	}
	c.current.Store(m)
	c.logOf(m).Info("certificates loaded")
	return c, nil
}

// logOf is the log with what there is to know about material.
func (c *Certificates) logOf(m *material) *slog.Logger {
	return c.log.With("certificate", c.paths.Cert, "identity", m.identity.String(), "expires", m.own.Leaf.NotAfter.UTC().Format(time.RFC3339))
}

// Identity returns whose the certificate is that is presented now.
func (c *Certificates) Identity() Identity { return c.current.Load().identity }

// Expiry returns when that certificate ends.
func (c *Certificates) Expiry() time.Time { return c.current.Load().own.Leaf.NotAfter }

// Run reads the files again when they change, until the context ends. What cannot be
// used is logged once and changes nothing. Connections that are open stay.
//
// The contents themselves are compared: three small files a second cost less than it
// takes to tell which fingerprints of a file can be trusted.
func (c *Certificates) Run(ctx context.Context) { c.run(ctx, interval) }

func (c *Certificates) run(ctx context.Context, interval time.Duration) {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	done := c.current.Load().files // in use, or found unusable
	seen := done
	var warned time.Time
	for {
		if now := time.Now(); now.Sub(warned) >= warnAgain && c.warn(now) {
			warned = now
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		switch found := c.paths.read(); {
		case found == done:
			seen = found
		case found != seen:
			seen = found
		default:
			done = found
			if c.replace(found) {
				warned = time.Time{}
			}
		}
	}
}

// warn logs that the certificate has ended, or ends soon, if that is so.
func (c *Certificates) warn(now time.Time) bool {
	m := c.current.Load()
	log := c.logOf(m)
	switch left := m.own.Leaf.NotAfter.Sub(now); {
	case left <= 0:
		log.Error("certificate has expired: nobody will accept it")
	case left < expiresSoon:
		log.Warn("certificate expires soon")
	default:
		return false
	}
	return true
}

// replace puts what the files have in them in force, if it is usable.
func (c *Certificates) replace(found files) bool {
	m, err := c.parse(found)
	if err != nil {
		c.log.Error("certificates cannot be used; those before stay in force", "error", err)
		return false
	}
	c.current.Store(m)
	c.logOf(m).Info("certificates replaced")
	return true
}

// read returns what the files have in them.
func (p Paths) read() files {
	ca, err1 := os.ReadFile(p.CA)
	cert, err2 := os.ReadFile(p.Cert)
	key, err3 := os.ReadFile(p.Key)
	if err := errors.Join(err1, err2, err3); err != nil {
		return files{err: err.Error()}
	}
	return files{ca: string(ca), cert: string(cert), key: string(key)}
}

// parse checks the contents of the files.
func (c *Certificates) parse(f files) (*material, error) {
	if f.err != "" {
		return nil, errors.New(f.err)
	}
	roots, err := parseRoots(c.paths.CA, []byte(f.ca))
	if err != nil {
		return nil, err
	}
	chain, err := ParseCertificates(c.paths.Cert, []byte(f.cert))
	if err != nil {
		return nil, err
	}
	own, err := tls.X509KeyPair([]byte(f.cert), []byte(f.key))
	if err != nil {
		return nil, fmt.Errorf("%s with %s: %w", c.paths.Cert, c.paths.Key, err)
	}
	identity, err := Of(chain[0])
	switch {
	case err != nil:
		return nil, fmt.Errorf("%s: %w", c.paths.Cert, err)
	case c.role != "" && identity.Role != c.role:
		return nil, fmt.Errorf("%s is the certificate of %s, and that of a %s is needed", c.paths.Cert, identity, c.role)
	}
	return &material{files: f, roots: roots, own: own, identity: identity, server: serverConfig(own, roots)}, nil
}

// parseRoots returns the CAs in a file.
func parseRoots(path string, data []byte) (*x509.CertPool, error) {
	list, err := ParseCertificates(path, data)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	for _, c := range list {
		if !c.IsCA {
			return nil, fmt.Errorf("%s: the certificate of %s is not that of a CA", path, subject(c))
		}
		roots.AddCert(c)
	}
	return roots, nil
}

// ParseCertificates returns all certificates of a PEM file, at least one. Nothing is
// passed over: half a file has fewer certificates, and they would do without the rest.
func ParseCertificates(path string, data []byte) ([]*x509.Certificate, error) {
	var list []*x509.Certificate
	for rest := data; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("%s has a %s where a CERTIFICATE is expected", path, block.Type)
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("%s: certificate %d: %w", path, len(list)+1, err)
		}
		list = append(list, c)
	}
	switch begun := bytes.Count(data, []byte("-----BEGIN")); {
	case begun != len(list):
		return nil, fmt.Errorf("%s is damaged: it begins %d certificates, of which %d can be read", path, begun, len(list))
	case begun == 0:
		return nil, fmt.Errorf("%s has no certificate: want PEM, which begins with -----BEGIN CERTIFICATE-----", path)
	}
	return list, nil
}
