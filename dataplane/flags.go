package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/spf13/pflag"

	"reverseproxy/dataplane/internal/loop"
	"reverseproxy/dataplane/internal/subscribe"
	"reverseproxy/proto/identity"
)

// settings are the command line, checked.
type settings struct {
	controlPlanes []string
	tls           identity.Paths
	insecure      bool
	admin         string
	id            string // empty: see idOf
	labels        map[string]string
	address       string
	port          uint16
	threads       int
	driver        string
	dnsServer     string // empty: the system's
	stateDir      string // empty: see stateDirOf
	drainTimeout  time.Duration
	noSample      bool
	logFormat     string
	logLevel      slog.Level
	version       bool
}

// parse reads the command line. The usage text goes to out when it is asked for,
// with pflag.ErrHelp.
func parse(args []string, out io.Writer) (*settings, error) {
	s := new(settings)
	f := pflag.NewFlagSet("dataplane", pflag.ContinueOnError)
	f.SortFlags = false
	f.SetOutput(io.Discard) // errors are ours to print
	f.StringArrayVar(&s.controlPlanes, "controlplane", []string{"127.0.0.1:18000"}, "`host:port` of a control plane; repeatable, tried in a random order")
	f.StringVar(&s.tls.CA, "tls-ca", "", "PEM `file` with the CAs that control planes are trusted by; the three go together,\nand controlplane certs makes them")
	f.StringVar(&s.tls.Cert, "tls-cert", "", "PEM `file` with this data plane's certificate")
	f.StringVar(&s.tls.Key, "tls-key", "", "PEM `file` with its private key")
	f.BoolVar(&s.insecure, "insecure", false, "speak to control planes on other machines without encryption")
	f.StringVar(&s.admin, "admin", "127.0.0.1:19000", "`host:port` for /metrics, /healthz, /readyz and /config; port 0 is any free one")
	f.StringVar(&s.id, "id", "", "name of this data plane in the fleet (default that in --tls-cert, else <hostname>:<admin port>)")
	labels := f.StringArray("label", nil, "`key=value` shown in the fleet's status; repeatable")
	f.StringVar(&s.address, "address", "", "IP `address` the proxy binds (default all)")
	f.Uint16Var(&s.port, "port", 0, "`port` of the proxy, in place of the configuration's")
	f.IntVar(&s.threads, "threads", 0, "`number` of threads that forward requests (default the CPUs it may use)")
	f.StringVar(&s.driver, "driver", loop.Drivers()[0], "how bytes are moved: "+strings.Join(loop.Drivers(), " or "))
	f.StringVar(&s.dnsServer, "dns-server", "", "`ip:port` of the DNS server for the names of backends (default the system's)")
	f.StringVar(&s.stateDir, "state-dir", "", "`directory` that keeps the newest route table (default /var/lib/reverseproxy/dataplane/<id> as root,\nelse $XDG_STATE_HOME/reverseproxy/dataplane/<id>)")
	f.DurationVar(&s.drainTimeout, "drain-timeout", 30*time.Second, "`time` that requests in flight get after SIGTERM")
	f.BoolVar(&s.noSample, "no-sample", false, "tell the control plane only how many requests there are, not the method, host and path of some")
	f.StringVar(&s.logFormat, "log-format", "text", "text or json")
	level := f.String("log-level", "info", "debug, info, warn or error")
	f.BoolVar(&s.version, "version", false, "print the version and exit")
	f.BoolP("help", "h", false, "print this text and exit")
	if err := f.Parse(args); err != nil {
		return nil, err
	}
	if help, _ := f.GetBool("help"); help {
		fmt.Fprintf(out, "Usage: dataplane [flags]\n\nForwards HTTP by the route table of a control plane.\n\nFlags:\n%s", f.FlagUsages())
		return nil, pflag.ErrHelp
	}
	errs := []error{s.check(f.Args())}
	var err error
	if s.labels, err = parseLabels(*labels); err != nil {
		errs = append(errs, err)
	}
	if err := s.logLevel.UnmarshalText([]byte(*level)); err != nil {
		errs = append(errs, fmt.Errorf("--log-level %q: want debug, info, warn or error", *level))
	}
	return s, errors.Join(errs...)
}

// check returns everything that is wrong with the values as such.
func (s *settings) check(args []string) error {
	var errs []error
	bad := func(format string, a ...any) { errs = append(errs, fmt.Errorf(format, a...)) }
	if len(args) > 0 {
		bad("unexpected argument %q: the configuration is given to the control plane", args[0])
	}
	for _, a := range s.controlPlanes {
		if err := subscribe.CheckAddress(a, s.insecure || s.tls.Given()); err != nil {
			errs = append(errs, err)
		}
	}
	if err := s.tls.Check(); err != nil {
		errs = append(errs, err)
	}
	if s.insecure && s.tls.Given() {
		bad("--insecure is for a stream without encryption, and goes without --tls-ca, --tls-cert and --tls-key")
	}
	if _, port, err := net.SplitHostPort(s.admin); err != nil {
		bad("--admin %q: want host:port", s.admin)
	} else if n, err := strconv.ParseUint(port, 10, 16); err != nil {
		bad("--admin %q: the port is not a number from 0 to 65535", s.admin)
	} else if n != 0 && uint16(n) == s.port {
		bad("--admin and --port are both port %d: the admin server and the proxy need one each", n)
	}
	if s.id != "" && !plain(s.id, 200) {
		bad("--id %q: want at most 200 bytes of text without control characters", s.id)
	}
	if _, err := netip.ParseAddr(s.address); s.address != "" && err != nil {
		bad("--address %q: want an IP address", s.address)
	}
	if s.threads < 0 || s.threads > 1024 {
		bad("--threads %d: want 1 to 1024, or 0 for the CPUs it may use", s.threads)
	}
	if !slices.Contains(loop.Drivers(), s.driver) {
		bad("--driver %q: want %s", s.driver, strings.Join(loop.Drivers(), " or "))
	}
	if a, err := netip.ParseAddrPort(s.dnsServer); s.dnsServer != "" && (err != nil || a.Port() == 0) {
		bad("--dns-server %q: want ip:port", s.dnsServer)
	}
	if s.drainTimeout < 0 {
		bad("--drain-timeout %v: want a time that is not negative", s.drainTimeout)
	}
	if s.logFormat != "text" && s.logFormat != "json" {
		bad("--log-format %q: want text or json", s.logFormat)
	}
	return errors.Join(errs...)
}

func parseLabels(pairs []string) (map[string]string, error) {
	labels := make(map[string]string, len(pairs))
	var errs []error
	for _, p := range pairs {
		k, v, ok := strings.Cut(p, "=")
		_, twice := labels[k]
		switch {
		case !ok || k == "" || !plain(k, 63) || strings.ContainsFunc(k, unicode.IsSpace) || v != "" && !plain(v, 255):
			errs = append(errs, fmt.Errorf("--label %q: want key=value, a key of at most 63 bytes without spaces and a value of at most 255", p))
		case twice:
			errs = append(errs, fmt.Errorf("--label %q: the key is given twice", p))
		default:
			labels[k] = v
		}
	}
	return labels, errors.Join(errs...)
}

// plain reports whether s is text fit for a status line.
func plain(s string, size int) bool {
	return s != "" && len(s) <= size && utf8.ValidString(s) && !strings.ContainsFunc(s, unicode.IsControl)
}

func (s *settings) logger(w io.Writer) *slog.Logger {
	o := &slog.HandlerOptions{Level: s.logLevel}
	if s.logFormat == "json" {
		return slog.New(slog.NewJSONHandler(w, o))
	}
	return slog.New(slog.NewTextHandler(w, o))
}

// idOf returns the id: the one that is given, or that in the certificate, if there is
// one, or else one that is made up.
func (s *settings) idOf(adminPort uint16, certificates *identity.Certificates) (string, error) {
	switch {
	case s.id != "":
		return s.id, nil
	case certificates != nil:
		return certificates.Identity().Name, nil
	}
	host, err := os.Hostname()
	if err != nil {
		return "", fmt.Errorf("make up an id (give --id): %w", err)
	}
	return fmt.Sprintf("%s:%d", host, adminPort), nil
}

// stateDirOf returns where the data plane with this id keeps its state.
func (s *settings) stateDirOf(id string) (string, error) {
	if s.stateDir != "" {
		return s.stateDir, nil
	}
	// One path element whatever the id is; "." and ".." are not escaped.
	name := url.PathEscape(id)
	if strings.Trim(name, ".") == "" {
		name = "_" + name
	}
	if os.Geteuid() == 0 {
		return filepath.Join("/var/lib/reverseproxy/dataplane", name), nil
	}
	base := os.Getenv("XDG_STATE_HOME")
	if !filepath.IsAbs(base) {
		home, err := os.UserHomeDir()
		if err != nil {
			return "", fmt.Errorf("find a directory for state (give --state-dir): %w", err)
		}
		base = filepath.Join(home, ".local", "state")
	}
	return filepath.Join(base, "reverseproxy", "dataplane", name), nil
}

// version is set by the linker for a release.
var version string

// build returns what is known about this program's version.
func build() string {
	if version != "" {
		return version
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	b := info.Main.Version
	if b == "" || b == "(devel)" {
		b = "devel"
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				b += "-" + s.Value[:min(12, len(s.Value))]
			}
		}
	}
	return b
}
