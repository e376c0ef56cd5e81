package routetable_test

import (
	"errors"
	"net/url"
	"strings"
	"testing"

	"reverseproxy/proto/routetable"
)

func TestNormalizePath(t *testing.T) {
	const bad = "bad"
	tests := []struct{ name, raw, want string }{
		{"root", "/", "/"},
		{"plain", "/a/b.c", "/a/b.c"},
		{"case kept", "/A", "/A"},
		{"empty segments", "//a///b//", "//a///b//"},
		{"unreserved decoded", "/%61%2D%2e%5F%7e%41%39", "/a-._~A9"},
		{"other escapes in upper case", "/%e2%82%ac%3f", "/%E2%82%AC%3F"},
		{"slash stays apart", "/a%2fb", "/a%2Fb"},
		{"escaped percent", "/%252e", "/%252e"},
		{"sub-delimiters as sent", "/a!$&'()*+,;=:@|[]^{}\"<>\\`", "/a!$&'()*+,;=:@|[]^{}\"<>\\`"},
		{"dot", "/./a/./b", "/a/b"},
		{"dot at end", "/a/.", "/a/"},
		{"dots", "/a/b/../c", "/a/c"},
		{"dots at end", "/a/b/..", "/a/"},
		{"to the root", "/a/..", "/"},
		{"RFC 3986 5.2.4", "/a/b/c/./../../g", "/a/g"},
		{"dots remove an empty segment", "/a//../b", "/a/b"},
		{"encoded dots", "/a/%2e%2E/%2e/b/.%2e/%2e./c", bad},
		{"encoded dots inside", "/a/b/%2e%2E/%2e/c", "/a/c"},
		{"not dots", "/.../..a/a../.a/%2e%2e%2e", "/.../..a/a../.a/..."},
		{"slash in dots", "/a/..%2fb", "/a/..%2Fb"},
		{"above the root", "/..", bad},
		{"above the root inside", "/a/../../b", bad},
		{"above the root after dot", "/./..", bad},
		{"empty", "", bad},
		{"asterisk", "*", bad},
		{"relative", "a", bad},
		{"short escape", "/%", bad},
		{"shorter escape", "/%2", bad},
		{"no escape", "/%2g", bad},
		{"no escape in dots", "/%2e%2/a", bad},
		{"space", "/a b", bad},
		{"control", "/a\x00", bad},
		{"delete", "/a\x7f", bad},
		{"not ASCII", "/é", bad},
		{"query", "/a?b", bad},
		{"fragment", "/a#b", bad},
		{"bad in removed segment", "/a /../b", bad},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got, err := routetable.NormalizePath(test.raw)
			if test.want == bad {
				if !errors.Is(err, routetable.ErrPath) {
					t.Errorf("%q became %q, %v; want ErrPath", test.raw, got, err)
				}
				return
			}
			if err != nil || got != test.want {
				t.Errorf("%q became %q, %v; want %q", test.raw, got, err, test.want)
			}
		})
	}
}

func TestAppendNormalPathKeepsWhatIsThere(t *testing.T) {
	for _, raw := range []string{"/a/../b", "/..", "/a/../..", "/%zz"} {
		got, err := routetable.AppendNormalPath([]byte("/x/y"), raw)
		want := "/x/y"
		if err == nil {
			want = "/x/y/b"
		}
		if string(got) != want {
			t.Errorf("%q: got %q, want %q", raw, got, want)
		}
	}
}

func TestParseFrom(t *testing.T) {
	tests := []struct {
		from, path string
		prefix     bool
		err        string
	}{
		{from: "/", path: "/"},
		{from: "/index", path: "/index"},
		{from: "/index/", path: "/index/"},
		{from: "/assets/*", path: "/assets", prefix: true},
		{from: "/*", path: "", prefix: true},
		{from: "/a//b/*", path: "/a//b", prefix: true},
		{from: "", err: "is empty"},
		{from: "index", err: "does not start with a slash"},
		{from: "*", err: "does not start with a slash"},
		{from: "/a?b=1", err: "has a query"},
		{from: "/a#b", err: "has a query or a fragment"},
		{from: "/a*", err: "has a *"},
		{from: "/*/a", err: "has a *"},
		{from: "/*/*", err: "has a *"},
		{from: "/a//*", err: `write "/a/*"`},
		{from: "/a/../b/*", err: `write "/b/*"`},
		{from: "/%7euser", err: `write "/~user"`},
		{from: "/a b", err: "must be percent-encoded"},
	}
	for _, test := range tests {
		t.Run(test.from, func(t *testing.T) {
			path, prefix, err := routetable.ParseFrom(test.from)
			if test.err != "" {
				if err == nil || !strings.Contains(err.Error(), test.err) {
					t.Errorf("error is %v, want %q", err, test.err)
				}
				return
			}
			if path != test.path || prefix != test.prefix || err != nil {
				t.Errorf("got %q, %v, %v; want %q, %v", path, prefix, err, test.path, test.prefix)
			}
			if got := routetable.From(path, prefix); got != test.from {
				t.Errorf("From makes it %q", got)
			}
		})
	}
}

// plainNormalize is NormalizePath written for clarity: split, decode, remove.
func plainNormalize(raw string) (string, bool) {
	if !strings.HasPrefix(raw, "/") {
		return "", false
	}
	for i := range len(raw) {
		if c := raw[i]; c <= ' ' || c > '~' || c == '?' || c == '#' {
			return "", false
		}
	}
	if _, err := url.PathUnescape(raw); err != nil {
		return "", false
	}
	var b strings.Builder
	for i := 0; i < len(raw); i++ {
		if raw[i] != '%' {
			b.WriteByte(raw[i])
			continue
		}
		c, _ := url.PathUnescape(raw[i : i+3])
		if strings.Contains("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~", c) {
			b.WriteString(c)
		} else {
			b.WriteString(strings.ToUpper(raw[i : i+3]))
		}
		i += 2
	}
	var out []string
	segments := strings.Split(b.String()[1:], "/")
	for i, s := range segments {
		if s == ".." {
			if len(out) == 0 {
				return "", false
			}
			out = out[:len(out)-1]
		}
		if s != "." && s != ".." {
			out = append(out, s)
		} else if i == len(segments)-1 {
			out = append(out, "")
		}
	}
	return "/" + strings.Join(out, "/"), true
}

func FuzzNormalizePath(f *testing.F) {
	for _, seed := range []string{
		"/", "/a/b", "/a/../b", "/%2e%2E/a", "//..//", "/a/%2e", "/%252e%25", "/a%2fb/./", "/%", "/..", "", "*", "/a/..%2f..", "/\xff", "/a//../..",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		got, err := routetable.NormalizePath(raw)
		want, ok := plainNormalize(raw)
		if ok != (err == nil) || got != want {
			t.Fatalf("%q became %q, %v; the plain reference says %q, %v", raw, got, err, want, ok)
		}
		if routetable.IsNormalPath(raw) != (err == nil && got == raw) {
			t.Fatalf("IsNormalPath(%q) disagrees with %q, %v", raw, got, err)
		}
		if appended, err := routetable.AppendNormalPath([]byte("/up"), []byte(raw)); string(appended) != "/up"+got || (err == nil) != ok {
			t.Fatalf("AppendNormalPath of %q is %q, %v", raw, appended, err)
		}
		if err != nil {
			return
		}
		if again, err := routetable.NormalizePath(got); again != got || err != nil {
			t.Fatalf("%q is not stable: %q, %v", got, again, err)
		}
	})
}

func BenchmarkIsNormalPath(b *testing.B) {
	path := []byte("/service/000001/index.html")
	for b.Loop() {
		if !routetable.IsNormalPath(path) {
			b.Fatal("not normal")
		}
	}
}
