package identity

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// verifyError says why a control plane's certificate was refused.
type verifyError struct{ text string }

func (e *verifyError) Error() string { return e.text }

var (
	errPlaintextServer = errors.New("what listens there speaks without encryption: start the control plane with --tls-ca, --tls-cert and --tls-key, " +
		"or speak to it without them")
	errPlaintextClient = errors.New("the client speaks without encryption, or not gRPC: give it --tls-ca, --tls-cert and --tls-key")
	errClosed          = errors.New("it closes the connection before it says anything, as a control plane with encryption does: " +
		"give --tls-ca, --tls-cert and --tls-key")
)

// explainToClient returns the error of a connection to a control plane in plain
// words; nil when it is one of the network. Without certificates it is about
// plaintext.
func (c *Certificates) explainToClient(err error) error {
	if c == nil {
		if errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) {
			return errClosed
		}
		return nil
	}
	var refused *verifyError
	var record tls.RecordHeaderError
	switch {
	case errors.As(err, &refused):
		return refused
	case errors.As(err, &record):
		return errPlaintextServer
	}
	if alert, ok := alertOf(err); ok {
		return fmt.Errorf("the control plane refuses %s: %s", c.describeOwn(), alert)
	}
	return nil
}

// explainToServer returns the error of a connection that was accepted in plain words.
func (c *Certificates) explainToServer(err error) error {
	var verification *tls.CertificateVerificationError
	var record tls.RecordHeaderError
	switch {
	case errors.As(err, &verification):
		return errors.New(c.explainVerification(verification.UnverifiedCertificates[0], verification.Err))
	case errors.As(err, &record):
		return errPlaintextClient
	}
	if alert, ok := alertOf(err); ok {
		return fmt.Errorf("the client refuses %s: %s", c.describeOwn(), alert)
	}
	return err
}

// alertOf returns what the other side has said before it gave up.
func alertOf(err error) (string, bool) {
	var op *net.OpError
	if !errors.As(err, &op) || op.Op != "remote error" {
		return "", false
	}
	return strings.TrimPrefix(op.Err.Error(), "tls: "), true
}

// describeOwn describes this side's certificate for when it is refused.
func (c *Certificates) describeOwn() string {
	m := c.current.Load()
	leaf := m.own.Leaf
	state := "until"
	if time.Now().After(leaf.NotAfter) {
		state = "expired on"
	}
	return fmt.Sprintf("the certificate in %s (%s, from %s, %s %s)", c.paths.Cert, m.identity, leaf.Issuer.CommonName, state, day(leaf.NotAfter))
}

// explainVerification says why the other side's certificate is not accepted.
func (c *Certificates) explainVerification(leaf *x509.Certificate, err error) string {
	who := "the certificate of " + subject(leaf)
	var invalid x509.CertificateInvalidError
	var unknown x509.UnknownAuthorityError
	switch {
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired && time.Now().Before(leaf.NotBefore):
		return who + " is not valid before " + day(leaf.NotBefore) + "; are the clocks right?"
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return who + " expired on " + day(leaf.NotAfter) + "; issue a new one"
	case errors.As(err, &invalid) && invalid.Reason == x509.IncompatibleUsage:
		return who + " is not meant for this side of a connection"
	case errors.As(err, &unknown):
		return fmt.Sprintf("%s is from %q, which is none of the CAs in %s", who, leaf.Issuer.CommonName, c.paths.CA)
	}
	return who + ": " + err.Error()
}

// subject returns whose a certificate is, for people.
func subject(c *x509.Certificate) string {
	if i, err := Of(c); err == nil {
		return i.String()
	}
	return strconv.Quote(c.Subject.CommonName)
}

func day(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 UTC") }
