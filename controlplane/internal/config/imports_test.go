package config_test

import (
	"go/parser"
	"go/token"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// TestImports keeps the two packages pure, so that validate, explain, serve and
// every test get the same answer from the same bytes, and keeps the YAML library,
// which is archived and may have to be replaced, in one file.
func TestImports(t *testing.T) {
	forbidden := map[string]string{
		"os": "files", "io/fs": "files", "net": "sockets", "net/http": "sockets", "log": "loggers", "log/slog": "loggers",
		"math/rand": "chance", "math/rand/v2": "chance", "crypto/rand": "chance", "google.golang.org/grpc": "sockets",
	}
	const yaml, yamlFile = "gopkg.in/yaml.v3", "nodes.go"
	for _, dir := range []string{".", "../compile"} {
		files, err := filepath.Glob(filepath.Join(dir, "*.go"))
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: %d files, %v", dir, len(files), err)
		}
		for _, file := range files {
			if strings.HasSuffix(file, "_test.go") {
				continue
			}
			parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ImportsOnly)
			if err != nil {
				t.Fatal(err)
			}
			for _, spec := range parsed.Imports {
				path, err := strconv.Unquote(spec.Path.Value)
				if err != nil {
					t.Fatal(err)
				}
				if why := forbidden[path]; why != "" {
					t.Errorf("%s imports %s: no %s in here", file, path, why)
				}
				if path == yaml && filepath.Base(file) != yamlFile {
					t.Errorf("%s imports %s: only %s knows YAML", file, path, yamlFile)
				}
			}
		}
	}
}
