package cli_test

import (
	"strings"
	"testing"

	"reverseproxy/controlplane/internal/cli"
	"reverseproxy/proto/identity"
	"reverseproxy/proto/identity/identitytest"
)

// tlsFlags are those for three files.
func tlsFlags(p identity.Paths) []string {
	return []string{"--tls-ca", p.CA, "--tls-cert", p.Cert, "--tls-key", p.Key}
}

func TestTLS(t *testing.T) {
	ca := identitytest.NewCA(t, "the CA")
	main := ca.Files(t, identity.Identity{Role: identity.ControlPlane, Name: "main"}, nil)
	alice := ca.Files(t, identity.Identity{Role: identity.Operator, Name: "alice"}, nil)
	edge := ca.Files(t, identity.Identity{Role: identity.DataPlane, Name: "edge-1"}, nil)
	stranger := identitytest.NewCA(t, "another CA").Files(t, identity.Identity{Role: identity.Operator, Name: "alice"}, nil)
	c := start(t, good, tlsFlags(main)...)
	plain := start(t, good)
	in := func(p identity.Paths) map[string]string {
		return map[string]string{"CONTROLPLANE_TLS_CA": p.CA, "CONTROLPLANE_TLS_CERT": p.Cert, "CONTROLPLANE_TLS_KEY": p.Key}
	}
	next := write(t, "next.yaml", strings.Replace(good, "8000", "8001", 1))
	for _, test := range []struct {
		name           string
		env            map[string]string
		args           []string
		code           int
		stdout, stderr string
	}{
		{"status", nil, append([]string{"status", "--server", c.server}, tlsFlags(alice)...), 0, "revision 1", ""},
		{"by the environment", in(alice), []string{"status", "--server", c.server}, 0, "revision 1", ""},
		{"all by the environment", map[string]string{"CONTROLPLANE_SERVER": plain.server}, []string{"status"}, 0, "revision 1", ""},
		{"flags before the environment", in(stranger), append([]string{"status", "--server", c.server}, tlsFlags(alice)...), 0, "revision 1", ""},
		{"--insecure before the environment", in(alice), []string{"status", "--insecure", "--server", plain.server}, 0, "revision 1", ""},
		{"--insecure and flags", nil, append([]string{"status", "--insecure"}, tlsFlags(alice)...), 2, "", "--insecure is for gRPC without encryption"},
		{"half of the flags", nil, []string{"status", "--tls-ca", alice.CA}, 2, "", "no --tls-cert and no --tls-key"},
		{"half of those of serve", nil, []string{"serve", "--tls-key", "x", "x.yaml"}, 2, "", "no --tls-ca and no --tls-cert"},
		{"beyond this machine", in(alice), []string{"status", "--server", "192.0.2.1:x"}, 2, "", "not a number"},
		{"no such file", nil, []string{"status", "--tls-ca", alice.CA, "--tls-cert", alice.Cert, "--tls-key", "nowhere"}, 1, "", "certificates: open nowhere: no such file"},
		{
			"apply as a data plane", in(edge), []string{"apply", "--server", c.server, next}, 1, "",
			"is for operators, and this is the certificate of data plane edge-1",
		},
		{
			"a CA that is not trusted", in(stranger), []string{"status", "--server", c.server}, 1, "",
			"control plane at " + c.server + `: the certificate of control plane main is from "the CA", which is none of the CAs in `,
		},
		{
			"waiting for what does not come", in(stranger), []string{"status", "--server", c.server, "--wait", "--timeout", "10m"}, 1, "",
			`the certificate of control plane main is from "the CA", which is none of the CAs in `,
		},
		{
			"an unknown CA", nil, []string{"status", "--server", c.server, "--tls-ca", alice.CA, "--tls-cert", stranger.Cert, "--tls-key", stranger.Key}, 1, "",
			"control plane at " + c.server + ": the control plane refuses the certificate in " + stranger.Cert,
		},
		{
			"plaintext", nil, []string{"status", "--server", c.server}, 1, "",
			"control plane at " + c.server + ": it closes the connection before it says anything, as a control plane with encryption does: give --tls-ca",
		},
		{
			"TLS to plaintext", in(alice), []string{"status", "--server", plain.server}, 1, "",
			"control plane at " + plain.server + ": what listens there speaks without encryption",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			var stdout, stderr buffer
			env := cli.Env{Stdin: strings.NewReader(""), Stdout: &stdout, Stderr: &stderr, Build: "test", Getenv: func(name string) string { return test.env[name] }}
			r := result{cli.Run(t.Context(), env, test.args), stdout.String(), stderr.String()}
			r.want(t, test.code, test.stdout, test.stderr)
			if r.code == 1 && strings.Count(r.stderr, "\n") != 1 {
				t.Errorf("not one line:\n%s", r.stderr)
			}
		})
	}
	if got := c.status(t).Revision; got != 1 {
		t.Errorf("revision %d: a refused change was made", got)
	}
}
