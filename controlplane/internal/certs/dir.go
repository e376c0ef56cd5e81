package certs

import (
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"reverseproxy/controlplane/internal/source"
	"reverseproxy/proto/identity"
)

// Dir is where a CA and what it has issued are kept.
type Dir string

const (
	keyMode         fs.FileMode = 0o600
	certificateMode fs.FileMode = 0o644
	dirMode         fs.FileMode = 0o700
)

// caCert and caKey are the CA's files.
func (d Dir) caCert() string { return filepath.Join(string(d), "ca.crt") }
func (d Dir) caKey() string  { return filepath.Join(string(d), "ca.key") }

// paths are the files for somebody. Whatever the name is, it is one element of a path.
func (d Dir) paths(who identity.Identity) identity.Paths {
	base := filepath.Join(string(d), string(who.Role)+"-"+url.PathEscape(who.Name))
	return identity.Paths{CA: d.caCert(), Cert: base + ".crt", Key: base + ".key"}
}

// Issued is what has been made for somebody.
type Issued struct {
	Who   identity.Identity
	Paths identity.Paths
	Until time.Time
}

// file is one to be written.
type file struct {
	path string
	mode fs.FileMode
	data []byte
}

// Init makes a CA, and a certificate for each of those given. Unless force is set it
// changes nothing when one of the files is there already: with another CA the
// certificates of the old one are worth nothing.
func (d Dir) Init(whose []identity.Identity, now time.Time, days int, force bool) (until time.Time, list []Issued, err error) {
	ca, p, err := newAuthority(now)
	if err != nil {
		return until, nil, err
	}
	files := []file{{d.caKey(), keyMode, p.key}, {d.caCert(), certificateMode, p.cert}}
	for _, who := range whose {
		i, more, err := d.issue(ca, who, now, days)
		if err != nil {
			return until, nil, err
		}
		list, files = append(list, i), append(files, more...)
	}
	return p.certificate.NotAfter, list, d.write(files, force)
}

// Issue makes a certificate for somebody with the CA that is there.
func (d Dir) Issue(who identity.Identity, now time.Time, days int, force bool) (Issued, error) {
	ca, err := d.authority()
	if err != nil {
		return Issued{}, err
	}
	i, files, err := d.issue(ca, who, now, days)
	if err != nil {
		return Issued{}, err
	}
	return i, d.write(files, force)
}

func (d Dir) issue(ca *authority, who identity.Identity, now time.Time, days int) (Issued, []file, error) {
	p, err := ca.issue(who, now, days)
	if err != nil {
		return Issued{}, nil, err
	}
	at := d.paths(who)
	return Issued{who, at, p.certificate.NotAfter}, []file{{at.Key, keyMode, p.key}, {at.Cert, certificateMode, p.cert}}, nil
}

// authority reads the CA. While an old CA is still trusted ca.crt has several
// certificates; the key says which one issues.
func (d Dir) authority() (*authority, error) {
	data, err := os.ReadFile(d.caKey())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("there is no %s: controlplane certs init --dir %s makes a CA", d.caKey(), d)
	} else if err != nil {
		return nil, err
	}
	key, err := parseKey(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", d.caKey(), err)
	}
	if data, err = os.ReadFile(d.caCert()); err != nil {
		return nil, err
	}
	list, err := identity.ParseCertificates(d.caCert(), data)
	if err != nil {
		return nil, err
	}
	for _, c := range list {
		if c.IsCA && belong(key, c) {
			return &authority{c, key}, nil
		}
	}
	return nil, fmt.Errorf("%s has no certificate of a CA that belongs to the key in %s", d.caCert(), d.caKey())
}

// write writes all files, or none when one is there and force is not set.
func (d Dir) write(files []file, force bool) error {
	var there []string
	for _, f := range files {
		switch _, err := os.Lstat(f.path); {
		case err == nil:
			there = append(there, f.path)
		case !errors.Is(err, fs.ErrNotExist):
			return err
		}
	}
	if len(there) > 0 && !force {
		return fmt.Errorf("there is already: %s; --force replaces it", strings.Join(there, ", "))
	}
	if err := os.MkdirAll(string(d), dirMode); err != nil {
		return err
	}
	for _, f := range files {
		if err := f.write(); err != nil {
			return err
		}
	}
	return nil
}

// write writes the file. It is made empty first where there is none: source.Replace
// keeps the mode, so that a key is at no time readable for others.
func (f file) write() error {
	empty, err := os.OpenFile(f.path, os.O_WRONLY|os.O_CREATE, f.mode)
	if err != nil {
		return err
	}
	if err := errors.Join(empty.Chmod(f.mode), empty.Close()); err != nil {
		return err
	}
	return source.Replace(f.path, f.data)
}
