package main

import (
	"bytes"
	"io"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"reverseproxy/dataplane/internal/loop"
	"reverseproxy/proto/identity"
)

func TestParse(t *testing.T) {
	defaults := func(change func(*settings)) *settings {
		s := &settings{
			controlPlanes: []string{"127.0.0.1:18000"}, admin: "127.0.0.1:19000", labels: map[string]string{},
			drainTimeout: 30 * time.Second, logFormat: "text", driver: loop.Drivers()[0],
		}
		change(s)
		return s
	}
	tests := []struct {
		name string
		args string
		want *settings
	}{
		{"defaults", "", defaults(func(*settings) {})},
		{"several control planes", "--controlplane localhost:1 --controlplane [::1]:2", defaults(func(s *settings) {
			s.controlPlanes = []string{"localhost:1", "[::1]:2"}
		})},
		{"TLS", "--tls-ca a --tls-cert b --tls-key c --controlplane cp.example.com:1", defaults(func(s *settings) {
			s.tls, s.controlPlanes = identity.Paths{CA: "a", Cert: "b", Key: "c"}, []string{"cp.example.com:1"}
		})},
		{"insecure", "--insecure --controlplane cp.example.com:1", defaults(func(s *settings) {
			s.insecure, s.controlPlanes = true, []string{"cp.example.com:1"}
		})},
		{"labels", "--label zone=a --label note=a=b --label empty=", defaults(func(s *settings) {
			s.labels = map[string]string{"zone": "a", "note": "a=b", "empty": ""}
		})},
		{"all others", "--admin :0 --id edge/1 --address 127.0.0.1 --port 8000 --threads 3 --driver portable --state-dir /s --drain-timeout 2s --log-format json --log-level debug",
			defaults(func(s *settings) {
				s.admin, s.id, s.address, s.port, s.threads, s.driver, s.stateDir = ":0", "edge/1", "127.0.0.1", 8000, 3, "portable", "/s"
				s.drainTimeout, s.logFormat, s.logLevel = 2*time.Second, "json", slog.LevelDebug
			})},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := parse(strings.Fields(tt.args), io.Discard)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got, cmp.AllowUnexported(settings{})); diff != "" {
				t.Errorf("settings (-want +got):\n%s", diff)
			}
		})
	}
}

func TestWrongUsage(t *testing.T) {
	tests := []struct {
		name, args string
		want       []string // all of them in the message
	}{
		{"unknown flag", "--controlplan x", []string{"unknown flag"}},
		{"argument", "config.yaml", []string{`"config.yaml"`, "control plane"}},
		{"control plane without port", "--controlplane localhost", []string{"want host:port"}},
		{"control plane with port 0", "--controlplane localhost:0", []string{"1 to 65535"}},
		{"control plane without host", "--controlplane :18000", []string{"host is missing"}},
		{"control plane elsewhere", "--controlplane 192.0.2.1:18000", []string{"192.0.2.1:18000", "--insecure"}},
		{"half of TLS", "--tls-ca a --tls-key b", []string{"no --tls-cert"}},
		{"TLS and insecure", "--tls-ca a --tls-cert b --tls-key c --insecure", []string{"--insecure is for a stream without encryption"}},
		{"control plane by name", "--controlplane cp.example.com:18000", []string{"--insecure"}},
		{"admin without port", "--admin localhost", []string{"--admin"}},
		{"admin port out of range", "--admin :70000", []string{"--admin"}},
		{"admin on the proxy port", "--admin 127.0.0.1:8000 --port 8000", []string{"--admin", "--port", "8000"}},
		{"address", "--address example.com", []string{"IP address"}},
		{"port", "--port 65536", []string{"port"}},
		{"threads", "--threads -1", []string{"--threads"}},
		{"driver", "--driver io_uring", []string{"--driver", "portable"}},
		{"label without value", "--label zone", []string{"key=value"}},
		{"label twice", "--label a=1 --label a=2", []string{"twice"}},
		{"drain time", "--drain-timeout -1s", []string{"--drain-timeout"}},
		{"log format", "--log-format xml", []string{"text or json"}},
		{"log level", "--log-level loud", []string{"debug, info, warn or error"}},
		{"everything at once", "--address x --threads -1", []string{"--address", "--threads"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var out, errOut bytes.Buffer
			if code := run(strings.Fields(tt.args), &out, &errOut); code != 2 {
				t.Errorf("exit status %d, want 2", code)
			}
			for _, want := range tt.want {
				if !strings.Contains(errOut.String(), want) {
					t.Errorf("message %q does not contain %q", errOut.String(), want)
				}
			}
			if out.Len() > 0 {
				t.Errorf("standard output: %q", out.String())
			}
		})
	}
}

func TestHelpAndVersion(t *testing.T) {
	for _, tt := range []struct{ arg, want string }{
		{"--help", "--drain-timeout time"},
		{"-h", "Usage: dataplane"},
		{"--version", "dataplane "},
	} {
		var out, errOut bytes.Buffer
		if code := run([]string{tt.arg}, &out, &errOut); code != 0 || errOut.Len() > 0 || !strings.Contains(out.String(), tt.want) {
			t.Errorf("%s: exit status %d, output %q, errors %q; want 0 and %q", tt.arg, code, out.String(), errOut.String(), tt.want)
		}
	}
}

func TestStateDirIsOneElementBelowTheBase(t *testing.T) {
	t.Setenv("XDG_STATE_HOME", "/state")
	for _, id := range []string{"host:19000", "a/b", "..", ".", "/etc", "a\\b"} {
		dir, err := new(settings).stateDirOf(id)
		if err != nil {
			t.Fatal(err)
		}
		if base := filepath.Base(filepath.Dir(dir)); base != "dataplane" {
			t.Errorf("id %q: directory %q is not below dataplane", id, dir)
		}
	}
	if dir, _ := (&settings{stateDir: "/x/y"}).stateDirOf("id"); dir != "/x/y" {
		t.Errorf("an explicit directory became %q", dir)
	}
}
