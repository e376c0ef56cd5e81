package certs

import (
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"
	"unicode"

	"reverseproxy/proto/identity"
)

// expiresSoon is how long before its end a certificate counts as a problem.
const expiresSoon = 7 * 24 * time.Hour

// Description is what there is to know about one certificate or key.
type Description struct {
	File string `json:"file"`
	// Role is that of an identity, or "CA" or "key"; empty: there is none.
	Role string `json:"role"`
	// Name is that of the identity, of the CA, or of the file with a key's certificate.
	Name      string    `json:"name"`
	Issuer    string    `json:"issuer,omitempty"`
	NotBefore time.Time `json:"notBefore,omitzero"`
	NotAfter  time.Time `json:"notAfter,omitzero"`
	// Problems are for people; never null.
	Problems []string `json:"problems"`
}

// content is one file.
type content struct {
	path string
	// certificates are those in it; none in that of a key.
	certificates []*x509.Certificate
	key          crypto.Signer
	err          error
}

// Show describes all certificates and keys in files, in their order. Whatever can be
// checked among them is: which CA has issued what, and which key belongs to which. A
// file that cannot be read is described by that problem.
func Show(files []string, now time.Time) []Description {
	contents := make([]content, 0, len(files))
	for _, path := range files {
		contents = append(contents, read(path))
	}
	list := []Description{}
	for _, f := range contents {
		switch {
		case f.err != nil:
			list = append(list, Description{File: f.path, Problems: []string{f.err.Error()}})
		case f.key != nil:
			list = append(list, describeKey(f, contents))
		}
		for _, c := range f.certificates {
			list = append(list, describe(f.path, c, contents, now))
		}
	}
	return list
}

// read reads a file with certificates or a key.
func read(path string) content {
	f := content{path: path}
	data, err := os.ReadFile(path)
	if err != nil {
		f.err = err
		return f
	}
	if block, _ := pem.Decode(data); block != nil && strings.HasSuffix(block.Type, "PRIVATE KEY") {
		f.key, f.err = parseKey(data)
		return f
	}
	f.certificates, f.err = identity.ParseCertificates(path, data)
	return f
}

// describe describes a certificate.
func describe(path string, c *x509.Certificate, all []content, now time.Time) Description {
	d := Description{File: path, Issuer: printable(c.Issuer.CommonName), NotBefore: c.NotBefore.UTC(), NotAfter: c.NotAfter.UTC(), Problems: []string{}}
	problem := func(format string, args ...any) { d.Problems = append(d.Problems, fmt.Sprintf(format, args...)) }
	who, err := identity.Of(c)
	switch {
	case c.IsCA:
		d.Role, d.Name = "CA", printable(c.Subject.CommonName)
	case err != nil:
		d.Name = printable(c.Subject.CommonName)
		problem("%v", err)
	default:
		d.Role, d.Name = string(who.Role), who.Name
		if !slices.Contains(c.ExtKeyUsage, usageOf(who.Role)) && !slices.Contains(c.ExtKeyUsage, x509.ExtKeyUsageAny) && len(c.ExtKeyUsage) > 0 {
			problem("its extended key usage is not that of a %s", who.Role)
		}
	}
	switch {
	case now.After(c.NotAfter):
		problem("it has expired")
	case now.Before(c.NotBefore):
		problem("it is not valid before %s", c.NotBefore.UTC().Format(time.RFC3339))
	case c.NotAfter.Sub(now) < expiresSoon:
		problem("it expires in %d hours", int(c.NotAfter.Sub(now).Hours()))
	}
	if text := origin(c, all); text != "" {
		problem("%s", text)
	}
	return d
}

// printable is a name that anybody may have made up, fit for a terminal.
func printable(name string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return '?'
		}
		return r
	}, name)
}

// origin says what is wrong about a certificate's issuer, as far as CAs are among the
// files.
func origin(c *x509.Certificate, all []content) string {
	var cas bool
	for _, f := range all {
		for _, ca := range f.certificates {
			if !ca.IsCA {
				continue
			}
			cas = true
			if c.CheckSignatureFrom(ca) == nil {
				return ""
			}
		}
	}
	if cas {
		return "no CA in these files has issued it"
	}
	return ""
}

// describeKey describes a private key.
func describeKey(f content, all []content) Description {
	d := Description{File: f.path, Role: "key", Problems: []string{}}
	if info, err := os.Stat(f.path); err == nil && info.Mode().Perm()&0o077 != 0 {
		d.Problems = append(d.Problems, fmt.Sprintf("others can read it: mode %04o, want %04o", info.Mode().Perm(), keyMode))
	}
	var certificates int
	for _, other := range all {
		for _, c := range other.certificates {
			certificates++
			if belong(f.key, c) {
				d.Name = other.path
				return d
			}
		}
	}
	if certificates > 0 {
		d.Problems = append(d.Problems, "it belongs to no certificate in these files")
	}
	return d
}
