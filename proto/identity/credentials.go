package identity

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"sync/atomic"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
)

// serverConfig is for the control plane's side of a connection. Sessions are not
// resumed: a resumed one would be that of a certificate verified earlier.
func serverConfig(own tls.Certificate, roots *x509.CertPool) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13, SessionTicketsDisabled: true,
		Certificates: []tls.Certificate{own}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: roots,
	}
}

// Server returns the credentials of a gRPC server. It tells refused, which may be
// called from several goroutines, of each connection with which there is no agreement.
func (c *Certificates) Server(refused func(from net.Addr, err error)) credentials.TransportCredentials {
	return &server{
		TransportCredentials: credentials.NewTLS(&tls.Config{
			MinVersion: tls.VersionTLS13, SessionTicketsDisabled: true,
			GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return c.current.Load().server, nil },
		}),
		certificates: c, refused: refused,
	}
}

type server struct {
	credentials.TransportCredentials
	certificates *Certificates
	refused      func(net.Addr, error)
}

// ServerHandshake implements credentials.TransportCredentials.
func (s *server) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	conn, info, err := s.TransportCredentials.ServerHandshake(raw)
	if err != nil && !left(err) {
		err = s.certificates.explainToServer(err)
		s.refused(raw.RemoteAddr(), err)
	}
	return conn, info, err
}

// left reports whether a client is gone without a word, or says nothing: whoever only
// looks whether somebody listens is not refused.
func left(err error) bool {
	_, said := alertOf(err)
	var network *net.OpError
	return !said && (errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.As(err, &network))
}

// Clone implements credentials.TransportCredentials.
func (s *server) Clone() credentials.TransportCredentials { return s }

// Client are the credentials of one gRPC client of a control plane. It says in plain
// words why a connection cannot be used; gRPC hands on nothing but texts.
type Client struct {
	credentials.TransportCredentials
	certificates *Certificates // nil: plaintext
	trouble      atomic.Pointer[error]
}

// NewClient returns credentials with the certificates; nil is plaintext.
func NewClient(c *Certificates) *Client {
	if c == nil {
		return &Client{TransportCredentials: insecure.NewCredentials()}
	}
	return &Client{
		TransportCredentials: credentials.NewTLS(&tls.Config{
			MinVersion: tls.VersionTLS13,
			GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
				return &c.current.Load().own, nil
			},
			// The usual verification would compare host names; VerifyConnection does all
			// of it but that.
			InsecureSkipVerify: true,
			VerifyConnection:   c.verifyControlPlane,
		}),
		certificates: c,
	}
}

// Trouble returns why the last connection could not be used, when both sides could
// be heard but did not agree; otherwise nil.
func (c *Client) Trouble() error {
	if t := c.trouble.Load(); t != nil {
		return *t
	}
	return nil
}

// explain returns a better error if there is one, and keeps it.
func (c *Client) explain(err error) error {
	better := c.certificates.explainToClient(err)
	if better == nil {
		c.trouble.Store(nil)
		return err
	}
	c.trouble.Store(&better)
	return better
}

// ClientHandshake implements credentials.TransportCredentials.
func (c *Client) ClientHandshake(ctx context.Context, authority string, raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	conn, info, err := c.TransportCredentials.ClientHandshake(ctx, authority, raw)
	if err != nil {
		return nil, nil, c.explain(err)
	}
	return &greeted{Conn: conn, client: c}, info, nil
}

// Clone implements credentials.TransportCredentials.
func (c *Client) Clone() credentials.TransportCredentials { return c }

// verifyControlPlane verifies the certificate of whom a client has reached.
func (c *Certificates) verifyControlPlane(s tls.ConnectionState) error {
	between := x509.NewCertPool()
	for _, c := range s.PeerCertificates[1:] {
		between.AddCert(c)
	}
	leaf := s.PeerCertificates[0]
	_, err := leaf.Verify(x509.VerifyOptions{
		Roots: c.current.Load().roots, Intermediates: between, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	})
	if err != nil {
		return &verifyError{c.explainVerification(leaf, err)}
	}
	who, err := Of(leaf)
	switch {
	case err != nil:
		return &verifyError{"the certificate of what listens there is not that of a control plane: " + err.Error()}
	case who.Role != ControlPlane:
		return &verifyError{"what listens there has the certificate of " + who.String() + ", and not that of a control plane"}
	}
	return nil
}

// greeted is a client's connection. Until the control plane has said something, its
// errors are explained: with TLS 1.3 that is when a refusal by the control plane
// arrives, and without TLS a control plane that wants it closes the connection.
type greeted struct {
	net.Conn
	client *Client
	heard  atomic.Bool
}

// Read implements net.Conn.
func (g *greeted) Read(p []byte) (int, error) {
	n, err := g.Conn.Read(p)
	switch {
	case n > 0 && !g.heard.Load():
		g.heard.Store(true)
		g.client.trouble.Store(nil)
	case err != nil && !g.heard.Load():
		err = g.client.explain(err)
	}
	return n, err
}

// Write implements net.Conn. When it fails at the beginning, the other side has
// closed the connection, and may have said why before.
func (g *greeted) Write(p []byte) (int, error) {
	n, err := g.Conn.Write(p)
	if err != nil && !g.heard.Load() {
		var unwanted [1]byte
		if _, readErr := g.Conn.Read(unwanted[:]); readErr != nil {
			err = g.client.explain(readErr)
		}
	}
	return n, err
}
