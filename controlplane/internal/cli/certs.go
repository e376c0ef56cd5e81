package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"reverseproxy/controlplane/internal/certs"
	"reverseproxy/proto/identity"
)

const (
	defaultDir = "certs"
	// defaultDays is how long a certificate is valid.
	defaultDays = 365
)

var certsCommand = &command{
	name:    "certs",
	args:    "init|issue|show",
	summary: "Make and look at the certificates for encryption between the planes",
	more:    "A fleet with encryption needs two of them: init, and issue --dataplane NAME for each data plane.",
	sub:     []*command{certsInitCommand, certsIssueCommand, certsShowCommand},
}

var certsInitCommand = &command{
	name:    "certs init",
	summary: "Make a CA, and certificates for a control plane and an operator",
	more: `
The files are ca.crt, which everybody needs, and ca.key, which makes certificates
and belongs to nobody in the fleet; and a certificate and a key for each owner.
Nothing that exists is overwritten without --force. Keys are readable for their
owner only.

Another CA for the same fleet: make it in another directory, append its ca.crt to
everybody's, issue new certificates with it, and take the old CA out of everybody's
ca.crt. Files are read again when they change; no connection is lost.

Examples:
  controlplane certs init
  controlplane certs init --dir certs-2027`,
	setUp: setUpCertsInit,
}

var certsIssueCommand = &command{
	name:    "certs issue",
	args:    "--dataplane NAME | --operator NAME | --controlplane NAME",
	summary: "Issue a certificate with the CA that certs init has made",
	more: `
The NAME of a data plane is its id in the fleet; it takes it from the certificate.
That of an operator is the author in the history, so make one for each person.
--force renews a certificate in the place of the old one: whoever uses the files
reads them again within seconds.

Examples:
  controlplane certs issue --dataplane edge-1
  controlplane certs issue --operator alice --days 30
  controlplane certs issue --controlplane main --force`,
	setUp: setUpCertsIssue,
}

var certsShowCommand = &command{
	name:    "certs show",
	args:    "FILE...",
	summary: "Print whose certificates files hold, until when, and what is wrong with them",
	more: `
What can be checked among the files is: which CA has issued what, and which key
belongs to which certificate. The exit status is 1 when something is wrong, and in
the last week of a certificate.

Examples:
  controlplane certs show certs/*
  controlplane certs show -o json certs/ca.crt certs/dataplane-edge-1.crt`,
	setUp: setUpCertsShow,
}

// issueFlags are those of what makes certificates.
type issueFlags struct {
	dir   string
	days  int
	force bool
}

func (i *issueFlags) flags(f *pflag.FlagSet) {
	f.StringVar(&i.dir, "dir", defaultDir, "`directory` with the CA and what it issues")
	f.IntVar(&i.days, "days", defaultDays, "`number` of days for which certificates are valid; those of the CA are 3650")
	f.BoolVar(&i.force, "force", false, "replace files that exist")
}

func (i *issueFlags) check() error {
	if i.days <= 0 {
		return usagef("--days must be more than zero")
	}
	return nil
}

func setUpCertsInit(env *Env, flags *pflag.FlagSet) func(context.Context, []string) error {
	var i issueFlags
	i.flags(flags)
	plane := flags.String("controlplane", "main", "`name` of the control plane")
	operator := flags.String("operator", "admin", "`name` of the operator")
	return func(_ context.Context, args []string) error {
		if len(args) > 0 {
			return usagef("no arguments are expected, but there are: %s", strings.Join(args, " "))
		}
		whose := []identity.Identity{{Role: identity.ControlPlane, Name: *plane}, {Role: identity.Operator, Name: *operator}}
		for n, flag := range []string{"--controlplane", "--operator"} {
			if err := whose[n].Check(); err != nil {
				return usagef("%s: %v", flag, err)
			}
		}
		if err := i.check(); err != nil {
			return err
		}
		until, list, err := certs.Dir(i.dir).Init(whose, time.Now(), i.days, i.force)
		if err != nil {
			return err
		}
		ca := list[0].Paths.CA
		fmt.Fprintf(env.Stdout, "%s: a CA, until %s; its key is beside it, and makes certificates: keep it to yourself\n", ca, day(until))
		for _, issued := range list {
			sayIssued(env, issued)
		}
		fmt.Fprintf(env.Stdout, "\nStart the control plane with\n  controlplane --listen 0.0.0.0:18000 %s CONFIG\n", tlsArguments(list[0].Paths))
		fmt.Fprintf(env.Stdout, "ask and change it with\n%sand make a certificate for each data plane with\n  controlplane certs issue%s --dataplane NAME\n",
			operatorUsage(list[1].Paths), dirArgument(i.dir))
		return nil
	}
}

func setUpCertsIssue(env *Env, flags *pflag.FlagSet) func(context.Context, []string) error {
	var i issueFlags
	dataPlane := flags.String("dataplane", "", "`id` of the data plane that it is for")
	operator := flags.String("operator", "", "`name` of the person or script that it is for")
	plane := flags.String("controlplane", "", "`name` of the control plane that it is for")
	i.flags(flags)
	return func(_ context.Context, args []string) error {
		if len(args) > 0 {
			return usagef("no arguments are expected, but there are: %s", strings.Join(args, " "))
		}
		var whose []identity.Identity
		for _, who := range []struct {
			flag, name string
			role       identity.Role
		}{{"dataplane", *dataPlane, identity.DataPlane}, {"operator", *operator, identity.Operator}, {"controlplane", *plane, identity.ControlPlane}} {
			if flags.Changed(who.flag) {
				whose = append(whose, identity.Identity{Role: who.role, Name: who.name})
			}
		}
		if len(whose) != 1 {
			return usagef("one of --dataplane NAME, --operator NAME and --controlplane NAME is expected")
		}
		if err := whose[0].Check(); err != nil {
			return usagef("%v", err)
		}
		if err := i.check(); err != nil {
			return err
		}
		issued, err := certs.Dir(i.dir).Issue(whose[0], time.Now(), i.days, i.force)
		if err != nil {
			return err
		}
		sayIssued(env, issued)
		sayUsage(env, issued)
		return nil
	}
}

// sayIssued prints what has been made.
func sayIssued(env *Env, i certs.Issued) {
	fmt.Fprintf(env.Stdout, "%s: the certificate of %s, until %s; its key is beside it\n", i.Paths.Cert, i.Who, day(i.Until))
}

// sayUsage prints what to do with it.
func sayUsage(env *Env, i certs.Issued) {
	switch i.Who.Role {
	case identity.DataPlane:
		fmt.Fprintf(env.Stdout, "\nStart the data plane with these two files and %s:\n  dataplane --controlplane HOST:18000 %s\n", i.Paths.CA, tlsArguments(i.Paths))
	case identity.ControlPlane:
		fmt.Fprintf(env.Stdout, "\nStart the control plane with\n  controlplane --listen 0.0.0.0:18000 %s CONFIG\n", tlsArguments(i.Paths))
	case identity.Operator:
		fmt.Fprintf(env.Stdout, "\nAsk and change the control plane with\n%s", operatorUsage(i.Paths))
	}
}

// operatorUsage is how the command line is used with files.
func operatorUsage(p identity.Paths) string {
	return fmt.Sprintf("  controlplane status --server HOST:18000 %s\nor, once for all commands,\n"+
		"  export CONTROLPLANE_SERVER=HOST:18000 CONTROLPLANE_TLS_CA=%s CONTROLPLANE_TLS_CERT=%s CONTROLPLANE_TLS_KEY=%s\n",
		tlsArguments(p), quoted(p.CA), quoted(p.Cert), quoted(p.Key))
}

// tlsArguments are the flags for files.
func tlsArguments(p identity.Paths) string {
	return fmt.Sprintf("--tls-ca %s --tls-cert %s --tls-key %s", quoted(p.CA), quoted(p.Cert), quoted(p.Key))
}

// dirArgument is the flag for the directory, unless it goes without saying.
func dirArgument(dir string) string {
	if dir == defaultDir {
		return ""
	}
	return " --dir " + quoted(dir)
}

var unquoted = regexp.MustCompile(`^[A-Za-z0-9_./:@%+=,-]+$`)

// quoted writes a text for a shell.
func quoted(text string) string {
	if unquoted.MatchString(text) {
		return text
	}
	return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'"
}

func setUpCertsShow(env *Env, flags *pflag.FlagSet) func(context.Context, []string) error {
	output := outputFormat("table")
	flags.VarP(&output, "output", "o", "for people or for scripts")
	return func(_ context.Context, args []string) error {
		if len(args) == 0 {
			return usagef("FILE is missing: the paths of certificates and keys")
		}
		list := certs.Show(args, time.Now())
		if output == "json" {
			e := json.NewEncoder(env.Stdout)
			e.SetEscapeHTML(false)
			e.SetIndent("", "  ")
			if err := e.Encode(list); err != nil {
				return err
			}
		} else {
			printCertificates(newPage(env), list)
		}
		for _, d := range list {
			if len(d.Problems) > 0 {
				return errReported
			}
		}
		return nil
	}
}

// printCertificates prints a row for each.
func printCertificates(p *page, list []certs.Description) {
	rows := make([][]cell, 0, len(list))
	for _, d := range list {
		until := "-"
		if !d.NotAfter.IsZero() {
			until = day(d.NotAfter)
		}
		rows = append(rows, []cell{
			{text: d.File}, {text: orDash(d.Role)}, {text: orDash(d.Name)}, {text: until}, {text: orDash(d.Issuer), color: faint},
			{text: strings.Join(d.Problems, "; "), color: red},
		})
	}
	p.table([]string{"FILE", "ROLE", "NAME", "UNTIL", "ISSUER", "PROBLEMS"}, rows)
}

// orDash returns a text, or a dash for none.
func orDash(text string) string {
	if text == "" {
		return "-"
	}
	return text
}

func day(t time.Time) string { return t.UTC().Format(time.DateOnly) }
