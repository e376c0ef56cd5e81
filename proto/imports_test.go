// Package proto_test says which packages may know what. The compiler enforces
// the internal folders; the rest of the architecture is enforced here. It lives
// in proto because that is the only code both planes share.
package proto_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

const module = "reverseproxy"

// pkg is what `go list` says about a package. Test files are left out: a test
// may use real sockets, files and clocks.
type pkg struct {
	ImportPath string
	Dir        string
	GoFiles    []string
	Imports    []string // direct
	Deps       []string // transitive
}

// rule forbids imports to some packages.
type rule struct {
	name   string
	reason string
	// in are the packages the rule speaks about, as paths below the module; a
	// path that ends in "/..." includes everything below it.
	in []string
	// except are those of them that may.
	except []string
	// deny are import paths; "/..." as above.
	deny []string
	// allow are import paths taken out of deny again.
	allow []string
	// transitive: the import may not be reached by any way, either.
	transitive bool
}

// pure are the packages that compute and do nothing else.
var pure = []string{
	"controlplane/internal/config",
	"controlplane/internal/compile",
	"controlplane/internal/places",
	"controlplane/internal/plan",
	"proto/routetable",
	"dataplane/internal/http1",
	"dataplane/internal/table",
	"dataplane/internal/accesslog",
	"dataplane/internal/proxyprotocol",
}

var rules = []rule{
	{
		name:       "control plane without data plane",
		reason:     "the planes are upgraded apart: what both need is in proto",
		in:         []string{"controlplane/..."},
		deny:       []string{module + "/dataplane/..."},
		transitive: true,
	},
	{
		name:       "data plane without control plane",
		reason:     "the planes are upgraded apart: what both need is in proto",
		in:         []string{"dataplane/..."},
		deny:       []string{module + "/controlplane/..."},
		transitive: true,
	},
	{
		name:       "proto knows no plane",
		reason:     "both planes depend on it",
		in:         []string{"proto/..."},
		deny:       []string{module + "/controlplane/...", module + "/dataplane/..."},
		transitive: true,
	},
	{
		name:   "YAML in config only",
		reason: "one package knows the file format and can be given another parser",
		in:     []string{"..."},
		except: []string{"controlplane/internal/config"},
		deny:   []string{"gopkg.in/yaml.v3", "go.yaml.in/yaml/..."},
	},
	{
		name:       "no YAML in the data plane",
		reason:     "a data plane is given checked tables, never text",
		in:         []string{"dataplane/internal/subscribe", "dataplane/internal/table", "dataplane/internal/proxy", "dataplane/internal/http1"},
		deny:       []string{"gopkg.in/yaml.v3", module + "/controlplane/..."},
		transitive: true,
	},
	{
		name:   "protobuf stops at table",
		reason: "wire messages become our own checked types in one place; the request path never sees one",
		in:     []string{"dataplane/..."},
		// activate hands a table from one to the other.
		except: []string{"dataplane/internal/subscribe", "dataplane/internal/activate/...", "dataplane/internal/table"},
		deny:   []string{module + "/proto/routetable/v1", module + "/proto/fleet/...", "google.golang.org/protobuf/..."},
	},
	{
		name:   "gRPC in subscribe only",
		reason: "the data plane could be fed another way",
		in:     []string{"dataplane/..."},
		except: []string{"dataplane/internal/subscribe"},
		deny:   []string{"google.golang.org/grpc/..."},
	},
	{
		name:   "TLS in identity only",
		reason: "one place decides who is believed",
		in:     []string{"..."},
		except: []string{"proto/identity"},
		deny:   []string{"crypto/tls"},
	},
	{
		name:   "pure packages",
		reason: "bytes or values in, values out: no sockets, files, processes or loggers, so that every behaviour is a plain test",
		in:     pure,
		deny: []string{
			"net/...", "os/...", "io/fs", "io/ioutil", "syscall/...", "log/...", "golang.org/x/sys/...", "golang.org/x/net/...",
			"google.golang.org/grpc/...", "github.com/prometheus/...",
		},
		allow: []string{"net/netip", "net/url"},
	},
	{
		name:   "http1 stands alone",
		reason: "the codec is used by whatever moves bytes, and fuzzed alone",
		in:     []string{"dataplane/internal/http1"},
		deny:   []string{module + "/..."},
	},
	{
		name:   "the session knows no file descriptors",
		reason: "it runs behind the Driver interface, with any driver",
		in:     []string{"dataplane/internal/proxy"},
		deny:   []string{"net/...", "os/...", "syscall/...", "golang.org/x/sys/...", module + "/dataplane/internal/loop/..."},
		allow:  []string{"net/netip", "net/url"},
	},
}

func TestImports(t *testing.T) {
	pkgs := list(t)
	for _, r := range rules {
		t.Run(r.name, func(t *testing.T) {
			for _, path := range slices.Concat(r.in, r.except) {
				if !slices.ContainsFunc(pkgs, func(p pkg) bool { return matches(p.ImportPath, module+"/"+path) }) {
					t.Errorf("the rule names %s, which does not exist", path)
				}
			}
			for _, p := range pkgs {
				if !below(p.ImportPath, r.in) || below(p.ImportPath, r.except) {
					continue
				}
				imports := p.Imports
				if r.transitive {
					imports = p.Deps
				}
				for _, imp := range imports {
					if slices.ContainsFunc(r.deny, func(d string) bool { return matches(imp, d) }) && !slices.Contains(r.allow, imp) {
						t.Errorf("%s imports %s: %s", p.ImportPath, imp, r.reason)
					}
				}
			}
		})
	}
}

// Package time is needed for durations; what reads or waits for a clock is not.
func TestPurePackagesReadNoClock(t *testing.T) {
	clocks := []string{"Now", "Since", "Until", "Sleep", "After", "AfterFunc", "Tick", "NewTimer", "NewTicker"}
	for _, p := range list(t) {
		if !below(p.ImportPath, pure) {
			continue
		}
		for _, file := range p.GoFiles {
			fset := token.NewFileSet()
			f, err := parser.ParseFile(fset, filepath.Join(p.Dir, file), nil, parser.SkipObjectResolution)
			if err != nil {
				t.Fatal(err)
			}
			ast.Inspect(f, func(n ast.Node) bool {
				if s, ok := n.(*ast.SelectorExpr); ok && slices.Contains(clocks, s.Sel.Name) {
					if x, ok := s.X.(*ast.Ident); ok && x.Name == "time" {
						t.Errorf("%s: time.%s in a pure package: take the time as a value", fset.Position(s.Pos()), s.Sel.Name)
					}
				}
				return true
			})
		}
	}
}

// main parses flags, makes the logger, calls run and sets the exit status.
func TestMainIsShort(t *testing.T) {
	const most = 100
	for _, plane := range []string{"controlplane", "dataplane"} {
		text, err := os.ReadFile(filepath.Join("..", plane, "main.go"))
		if err != nil {
			t.Fatal(err)
		}
		if lines := bytes.Count(text, []byte("\n")); lines >= most {
			t.Errorf("%s/main.go has %d lines, want fewer than %d: move what is not start-up into a package", plane, lines, most)
		}
	}
}

// list returns the packages of the module.
func list(t *testing.T) []pkg {
	t.Helper()
	pkgs, err := listOnce()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	return pkgs
}

var listOnce = sync.OnceValues(func() ([]pkg, error) {
	cmd := exec.Command("go", "list", "-json=ImportPath,Dir,GoFiles,Imports,Deps", module+"/...")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, err
	}
	var pkgs []pkg
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p pkg
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return pkgs, nil
		} else if err != nil {
			return nil, err
		}
		pkgs = append(pkgs, p)
	}
})

// below reports whether an import path is one of paths below the module.
func below(importPath string, paths []string) bool {
	return slices.ContainsFunc(paths, func(p string) bool { return matches(importPath, module+"/"+p) })
}

// matches reports whether an import path is pattern, or below it when it ends
// in "/...".
func matches(importPath, pattern string) bool {
	prefix, tree := strings.CutSuffix(pattern, "/...")
	return importPath == prefix || tree && strings.HasPrefix(importPath, prefix+"/")
}
