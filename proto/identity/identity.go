package identity

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"unicode"
	"unicode/utf8"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
)

// Role is what somebody is in the fleet.
type Role string

// The roles, as in the URI.
const (
	DataPlane    Role = "dataplane"
	ControlPlane Role = "controlplane"
	Operator     Role = "operator"
)

// String returns the role in the words of the documents.
func (r Role) String() string {
	switch r {
	case DataPlane:
		return "data plane"
	case ControlPlane:
		return "control plane"
	}
	return string(r)
}

// Identity is who somebody is. A value from Of or FromContext is valid.
type Identity struct {
	Role Role
	Name string
}

// String is for people.
func (i Identity) String() string { return i.Role.String() + " " + i.Name }

const (
	scheme = "reverseproxy"
	// maxName is in bytes, and that of a data plane's id.
	maxName = 200
)

// URI returns the form that is in certificates.
func (i Identity) URI() *url.URL {
	return &url.URL{Scheme: scheme, Host: string(i.Role), Path: "/" + i.Name}
}

// Check returns an error when nobody can be called that.
func (i Identity) Check() error {
	switch i.Role {
	case DataPlane, ControlPlane, Operator:
	default:
		return fmt.Errorf("role %q is none of dataplane, controlplane, operator", string(i.Role))
	}
	if i.Name == "" || len(i.Name) > maxName || !utf8.ValidString(i.Name) || strings.ContainsFunc(i.Name, unicode.IsControl) {
		return fmt.Errorf("name %q: want 1 to %d bytes of text without control characters", i.Name, maxName)
	}
	return nil
}

// Of returns the identity in a certificate.
func Of(c *x509.Certificate) (Identity, error) {
	var found []Identity
	for _, u := range c.URIs {
		if u.Scheme != scheme {
			continue // other systems may use the same certificate
		}
		name, ok := strings.CutPrefix(u.Path, "/")
		if !ok || u.User != nil || u.Port() != "" || u.RawQuery != "" || u.ForceQuery || u.Fragment != "" {
			return Identity{}, fmt.Errorf("%s is not %s://ROLE/NAME", u, scheme)
		}
		i := Identity{Role(u.Host), name}
		if err := i.Check(); err != nil {
			return Identity{}, fmt.Errorf("%s: %w", u, err)
		}
		found = append(found, i)
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return Identity{}, errors.New("no alternative name is a URI that begins with " + scheme + "://, so it says nothing about who has it")
	}
	return Identity{}, fmt.Errorf("it has several identities: %s and %s", found[0].URI(), found[1].URI())
}

// FromContext returns who is at the other end of a call, by its verified
// certificate; false: the connection has no TLS, or the certificate no identity.
func FromContext(ctx context.Context) (Identity, bool) {
	i, err := Caller(ctx)
	return i, err == nil
}

// Caller is FromContext with the reason why it is not known.
func Caller(ctx context.Context) (Identity, error) {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return Identity{}, errNoTLS
	}
	info, ok := p.AuthInfo.(credentials.TLSInfo)
	if !ok || len(info.State.PeerCertificates) == 0 {
		return Identity{}, errNoTLS
	}
	return Of(info.State.PeerCertificates[0])
}

var errNoTLS = errors.New("there is none, the connection is not encrypted")
