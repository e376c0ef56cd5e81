package diff_test

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"reverseproxy/controlplane/internal/diff"
)

func TestUnified(t *testing.T) {
	for _, test := range []struct{ name, before, after, want string }{
		{"equal", "a\nb\n", "a\nb\n", ""},
		{"a line", "a\nb\nc\n", "a\nx\nc\n", "--- 1\n+++ 2\n@@ -1,3 +1,3 @@\n a\n-b\n+x\n c\n"},
		{"from nothing", "", "a\n", "--- 1\n+++ 2\n@@ -0,0 +1 @@\n+a\n"},
		{"no line break at the end", "a", "a\n", "--- 1\n+++ 2\n@@ -1 +1 @@\n-a\n\\ No newline at end of file\n+a\n"},
		{"not UTF-8", "\xff\n", "\xfe\n", "--- 1\n+++ 2\n@@ -1 +1 @@\n-\xff\n+\xfe\n"},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := diff.Unified("1", "2", []byte(test.before), []byte(test.after))
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(got, test.want); d != "" {
				t.Errorf("-got +want:\n%s", d)
			}
		})
	}
}

func BenchmarkUnified(b *testing.B) {
	text := func(weight int) []byte {
		var t []byte
		for i := range 100_000 {
			t = fmt.Appendf(t, "- {from: /e/%d, pool: [{url: \"http://10.0.0.1:1\", weight: %d}]}\n", i, weight)
		}
		return t
	}
	before, all := text(1), text(2)
	one := bytes.Replace(before, []byte("/e/50000,"), []byte("/e/x,"), 1)
	for name, after := range map[string][]byte{"changed=1": one, "changed=all": all} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if got, err := diff.Unified("1", "2", before, after); got == "" || err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
