package config_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"

	"reverseproxy/controlplane/internal/assert"
	"reverseproxy/controlplane/internal/compile"
	"reverseproxy/controlplane/internal/config"
	"reverseproxy/proto/routetable"
)

// FuzzLoad: no file makes Load panic; every problem has a place in the file; what
// is valid compiles, always to the same table, and its tests hold or fail at a place.
func FuzzLoad(f *testing.F) {
	f.Add([]byte(minimal))
	for _, pattern := range []string{"testdata/*.yaml", "../compile/testdata/*.yaml", "../../../configs/*.yaml"} {
		files, err := filepath.Glob(pattern)
		if err != nil || len(files) == 0 {
			f.Fatalf("%s: %d files, %v", pattern, len(files), err)
		}
		for _, file := range files {
			data, err := os.ReadFile(file)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(data)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := config.Load("f", data)
		if err != nil {
			checkPlaces(t, data, err)
			return
		}
		table, err := compile.Compile(c)
		if err != nil {
			t.Fatalf("a valid file does not compile: %v", err)
		}
		if err := routetable.Validate(table); err != nil {
			t.Fatalf("a valid file makes an invalid table: %v", err)
		}
		if err := assert.Check("f", c.Tests, table); err != nil {
			checkPlaces(t, data, err)
		}
		again, err := config.Load("f", data)
		if err != nil {
			t.Fatalf("the second time: %v", err)
		}
		if diff := cmp.Diff(again, c); diff != "" {
			t.Fatalf("the second time (-got +first):\n%s", diff)
		}
		second, err := compile.Compile(again)
		if err != nil || !proto.Equal(table, second) || routetable.Version(table) != routetable.Version(second) {
			t.Fatalf("the second table differs: %v", err)
		}
	})
}
