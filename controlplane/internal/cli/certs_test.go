package cli_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"reverseproxy/controlplane/internal/certs"
	"reverseproxy/proto/identity"
)

// maskedCerts replaces what differs from run to run.
func maskedCerts(s string) string {
	s = regexp.MustCompile(`\d{4}-\d\d-\d\d`).ReplaceAllString(s, "2030-01-01")
	return regexp.MustCompile(`CA [0-9a-f]{8}`).ReplaceAllString(s, "CA 12345678")
}

// Two commands make what a fleet needs, and say how it is used.
func TestCerts(t *testing.T) {
	t.Chdir(t.TempDir())
	r := run(t, "certs", "init")
	r.want(t, 0, "", "")
	golden(t, "certs-init.txt", maskedCerts(r.stdout))
	for name, args := range map[string][]string{
		"dataplane": {"--dataplane", "host:19000"}, "operator": {"--operator", "Alice B."}, "controlplane": {"--controlplane", "second"},
	} {
		r = run(t, append([]string{"certs", "issue", "--days", "30"}, args...)...)
		r.want(t, 0, "", "")
		golden(t, "certs-issue-"+name+".txt", maskedCerts(r.stdout))
	}
	all, err := filepath.Glob("certs/*")
	if err != nil {
		t.Fatal(err)
	}
	r = run(t, append([]string{"certs", "show"}, all...)...)
	r.want(t, 0, "", "")
	golden(t, "certs-show.txt", maskedCerts(r.stdout))

	r = run(t, "certs", "show", "-o", "json", "certs/dataplane-host:19000.crt")
	r.want(t, 0, `"problems": []`, "")
	var list []certs.Description
	if err := json.Unmarshal([]byte(r.stdout), &list); err != nil || len(list) != 1 || list[0].Role != "dataplane" || list[0].Name != "host:19000" {
		t.Errorf("%v: %+v", err, list)
	}

	run(t, "certs", "init").want(t, 1, "", "there is already: certs/ca.key, certs/ca.crt, ")
	run(t, "certs", "issue", "--dataplane", "host:19000").want(t, 1, "", "--force replaces it")
	run(t, "certs", "issue", "--dataplane", "host:19000", "--force").want(t, 0, "certs/dataplane-host:19000.crt", "")
	run(t, "certs", "init", "--dir", "an other").want(t, 0, "controlplane certs issue --dir 'an other' --dataplane NAME", "")
	run(t, "certs", "issue", "--dir", "nowhere", "--operator", "x").want(t, 1, "", "controlplane certs init --dir nowhere makes a CA")
	run(t, "certs", "show", "certs/ca.crt", "an other/operator-admin.crt").want(t, 1, "no CA in these files has issued it", "")
	if err := os.WriteFile("text", []byte("hello"), 0o644); err != nil {
		t.Fatal(err)
	}
	run(t, "certs", "show", "text", "nowhere").want(t, 1, "text has no certificate", "")

	// And they are accepted by each other.
	in := func(name string) identity.Paths {
		return identity.Paths{CA: "certs/ca.crt", Cert: "certs/" + name + ".crt", Key: "certs/" + name + ".key"}
	}
	c := start(t, good, tlsFlags(in("controlplane-main"))...)
	c.cli(t, append([]string{"status"}, tlsFlags(in("operator-Alice%20B."))...)...).want(t, 0, "revision 1", "")
	c.cli(t, append([]string{"status"}, tlsFlags(in("dataplane-host:19000"))...)...).want(t, 1, "", "is for operators")
}

func TestCertsUsage(t *testing.T) {
	t.Chdir(t.TempDir())
	for _, test := range []struct {
		args           string
		code           int
		stdout, stderr string
	}{
		{"certs", 2, "", "the commands are certs init, certs issue, certs show"},
		{"certs make", 2, "", "the commands are certs init, certs issue, certs show"},
		{"certs --help", 0, "controlplane certs issue [flags] --dataplane NAME", ""},
		{"help certs", 0, "controlplane certs show [flags] FILE...", ""},
		{"help certs init", 0, "--operator", ""},
		{"certs init --help", 0, "Nothing that exists is overwritten", ""},
		{"certs show -h", 0, "certs show certs/*", ""},
		{"certs init x", 2, "", "no arguments"},
		{"certs init --days 0", 2, "", "--days must be more than zero"},
		{"certs init --controlplane=", 2, "", `--controlplane: name ""`},
		{"certs issue", 2, "", "one of --dataplane NAME, --operator NAME and --controlplane NAME"},
		{"certs issue --dataplane a --operator b", 2, "", "one of --dataplane NAME"},
		{"certs issue --dataplane=", 2, "", `name ""`},
		{"certs issue --dataplane a b", 2, "", "no arguments"},
		{"certs issue --operator a --days -1", 2, "", "--days"},
		{"certs show", 2, "", "FILE is missing"},
		{"certs show -o xml x", 2, "", "neither table nor json"},
	} {
		t.Run(test.args, func(t *testing.T) {
			run(t, strings.Fields(test.args)...).want(t, test.code, test.stdout, test.stderr)
		})
	}
	if entries, err := os.ReadDir("."); err != nil || len(entries) > 0 {
		t.Errorf("wrong usage made %v, %v", entries, err)
	}
}
