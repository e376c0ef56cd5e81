package config

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const fullFile = "../../../configs/full.yaml"

// TestFullFile checks that configs/full.yaml is valid and documents every key of
// the schema exactly once, with its default and a comment.
func TestFullFile(t *testing.T) {
	data, err := os.ReadFile(fullFile)
	if err != nil {
		t.Fatal(err)
	}
	c, err := Load("full.yaml", data)
	if err != nil {
		t.Fatal(err)
	}
	want := builtin()
	want.Port, want.Endpoints, want.Tests = c.Port, c.Endpoints, c.Tests
	if diff := cmp.Diff(c, &want); diff != "" {
		t.Errorf("full.yaml against the defaults (-got +want):\n%s", diff)
	}
	for _, e := range c.Endpoints[:1] { // the others show what cannot be beside it
		if e.Timeouts != want.Defaults.Timeouts || e.PreserveHost == nil || *e.PreserveHost != want.Defaults.PreserveHost ||
			e.MaxRequests == nil || *e.MaxRequests != want.Defaults.MaxRequests || !cmp.Equal(e.Queue, want.Defaults.Queue) ||
			e.RateLimit == nil || *e.RateLimit != want.Defaults.RateLimit ||
			e.Panic != want.Defaults.Panic || e.LoadBalancing == nil || *e.LoadBalancing != want.Defaults.LoadBalancing || !cmp.Equal(e.Retry, want.Defaults.Retry) {
			t.Errorf("endpoint %s of full.yaml does not show the defaults", e.Name)
		}
	}

	root, problem := parse(data)
	if problem != nil {
		t.Fatal(problem)
	}
	lines := strings.Split(string(data), "\n")
	seen := map[string]int{}
	var walk func(n node, s *schema)
	walk = func(n node, s *schema) {
		if n.kind() == list {
			for i := range n.length() {
				walk(n.item(i), s)
			}
			return
		}
		if n.kind() == scalar || len(s.keys) == 0 {
			return
		}
		for i := range n.pairs() {
			key, value := n.pair(i)
			k := s.find(key.text())
			seen[k.path]++
			line := key.position().Line
			if seen[k.path] == 1 && !strings.Contains(lines[line-1], "#") && !strings.HasPrefix(strings.TrimSpace(lines[line-2]), "#") {
				t.Errorf("full.yaml:%d: %s has no comment", line, k.path)
			}
			if text := value.text(); k.def != "" && text != strings.Trim(k.def, `"`) {
				t.Errorf("full.yaml:%d: %s is %s; its default is %s", line, k.path, text, k.def)
			}
			walk(value, k)
		}
	}
	walk(root, fileSchema)
	for _, path := range allPaths(fileSchema) {
		// What excludes one another is shown apart, for which these are needed again.
		again := slices.Contains([]string{
			"endpoints[].from", "endpoints[].pool", "endpoints[].rewrite", "tests[].request", "tests[].request.url", "tests[].expect",
		}, path)
		if n := seen[path]; n == 0 || n > 1 && !again {
			t.Errorf("full.yaml has %s %d times, want once", path, n)
		}
	}
}

func allPaths(s *schema) []string {
	var paths []string
	for _, k := range s.keys {
		paths = append(append(paths, k.path), allPaths(k)...)
	}
	return paths
}

// TestEveryKeyIsRead gives each key of the schema a value of a wrong type; a key
// that no code reads would pass silently or panic.
func TestEveryKeyIsRead(t *testing.T) {
	for _, path := range allPaths(fileSchema) {
		t.Run(path, func(t *testing.T) {
			file := `!wrong ""`
			segments := strings.Split(path, ".")
			slices.Reverse(segments)
			for _, s := range segments {
				if name, isList := strings.CutSuffix(s, "[]"); isList {
					file = "{" + name + ": [" + file + "]}"
				} else {
					file = "{" + s + ": " + file + "}"
				}
			}
			_, err := Load("f", []byte(file))
			if err == nil || !strings.Contains(err.Error(), segments[0]+": the YAML tag") {
				t.Errorf("%s\ngives %v", file, err)
			}
		})
	}
}

func TestDistance(t *testing.T) {
	tests := []struct {
		a, b string
		want int
	}{
		{"", "", 0}, {"from", "from", 0}, {"form", "from", 1}, {"fro", "from", 1}, {"fromm", "from", 1}, {"frog", "from", 1},
		{"", "from", 4}, {"host", "pool", 3}, {"wieght", "weight", 1}, {"ab", "ba", 1},
		{strings.Repeat("x", 41), "from", 40},
	}
	for _, tt := range tests {
		if got := distance(tt.a, tt.b); got != tt.want {
			t.Errorf("distance(%q, %q) = %d, want %d", tt.a, tt.b, got, tt.want)
		}
		if got := distance(tt.b, tt.a); got != tt.want {
			t.Errorf("distance(%q, %q) = %d, want %d", tt.b, tt.a, got, tt.want)
		}
	}
}
