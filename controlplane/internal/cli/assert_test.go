package cli_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"reverseproxy/controlplane/internal/status"
)

// Two tests, of which the first fails when assets are where they are in good.
const failing = good + `tests:
- name: files
  request: {url: "/assets/a?b"}
  expect: {endpoint: assets, backendPath: /files/a}
- request: {url: /index, headers: {x-beta: "1"}}
  expect: {endpoint: beta}
`

// failure is what is said about it, after the name of the file.
const failure = `:18:43: tests[0].expect.backendPath: test "files": GET /assets/a?b: endpoint assets takes it, ` +
	`and backend http://localhost:5003/static?v=1 is sent /static/a, not /files/a`

var holding = strings.Replace(failing, "/files/a", "/static/a", 1)

func TestAFailingTestIsAProblemOfTheFile(t *testing.T) {
	file := write(t, "failing.yaml", failing)
	t.Run("validate", func(t *testing.T) {
		r := run(t, "validate", file)
		r.want(t, 1, "", file+failure+"\n")
		if r.stderr != file+failure+"\n" {
			t.Errorf("more is wrong:\n%s", r.stderr)
		}
		run(t, "validate", write(t, "holding.yaml", holding)).want(t, 0, "ok, 3 endpoints", "")
	})
	t.Run("explain still explains", func(t *testing.T) {
		run(t, "explain", "--config", file, "/assets/a?b").want(t, 0, "GET /static/a?v=1&b HTTP/1.1", "")
	})
	t.Run("start", func(t *testing.T) {
		run(t, "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", file).want(t, 1, "", file+failure)
	})
	t.Run("apply", func(t *testing.T) {
		c := start(t, good)
		c.cli(t, "apply", file).want(t, 1, "", file+failure)
		if data, err := os.ReadFile(c.file); err != nil || string(data) != good {
			t.Errorf("the watched file has become\n%s, %v", data, err)
		}
		// With tests that hold the content is the same for the data planes.
		c.cli(t, "apply", write(t, "holding.yaml", holding)).want(t, 0, "revision 1", "")
	})
	t.Run("the watched file", func(t *testing.T) {
		c := start(t, good)
		replace(t, c.file, strings.Replace(failing, "8000", "8001", 1))
		s := c.waitStatus(t, "the edit is refused", func(s status.Status) bool { return s.Config.LastLoad == "error" })
		if s.Revision != 1 || s.Config.Error != c.file+failure {
			t.Errorf("revision %d, error %s", s.Revision, s.Config.Error)
		}
		replace(t, c.file, strings.Replace(holding, "8000", "8001", 1))
		c.waitStatus(t, "the next one runs", func(s status.Status) bool { return s.Revision == 2 && s.Config.LastLoad == "ok" })
	})
}

func TestTheSamplesAreValid(t *testing.T) {
	files, err := filepath.Glob("../../../configs/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	run(t, append([]string{"validate"}, files...)...).want(t, 0, "full.yaml: ok", "")
}
