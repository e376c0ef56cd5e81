package routetable_test

import (
	"math/rand/v2"
	"regexp"
	"strings"
	"testing"

	"reverseproxy/proto/routetable"
	routetablev1 "reverseproxy/proto/routetable/v1"
)

func toPath(path string) *routetablev1.Rewrite {
	return &routetablev1.Rewrite{To: &routetablev1.Rewrite_Path{Path: path}}
}

func toPrefix(path string) *routetablev1.Rewrite {
	return &routetablev1.Rewrite{To: &routetablev1.Rewrite_Prefix{Prefix: path}}
}

func toRegex(match, replace string) *routetablev1.Rewrite {
	return &routetablev1.Rewrite{To: &routetablev1.Rewrite_Regex{Regex: &routetablev1.Regex{Match: match, Replace: replace}}}
}

func TestRewrite(t *testing.T) {
	tests := []struct {
		name    string
		from    string
		rewrite *routetablev1.Rewrite
		url     string
		path    string
		want    string // empty: ErrPath
	}{
		{"path", "/a", toPath("/x/y"), "http://h", "/a", "/x/y"},
		{"path and that of the URL", "/a", toPath("/x"), "http://h/base", "/a", "/base/x"},
		{"path and that of the URL, one slash", "/a", toPath("/x"), "http://h/base/", "/a", "/base/x"},
		{"path of a prefix", "/a/*", toPath("/x"), "http://h", "/a/b/c", "/x"},
		{"path of the root", "/*", toPath("/"), "http://h/base", "/a", "/base/"},
		{"prefix", "/a/*", toPrefix("/x"), "http://h", "/a/b%2Fc", "/x/b%2Fc"},
		{"prefix alone", "/a/*", toPrefix("/x"), "http://h", "/a", "/x"},
		{"prefix away", "/a/*", toPrefix("/"), "http://h", "/a/b", "/b"},
		{"prefix away, alone", "/a/*", toPrefix("/"), "http://h", "/a", "/"},
		{"prefix away, two slashes", "/a/*", toPrefix("/"), "http://h", "/a//b", "//b"},
		{"prefix with a slash at its end", "/a/*", toPrefix("/x/"), "http://h", "/a/b", "/x/b"},
		{"prefix of two", "/a/b/*", toPrefix("/x"), "http://h/base", "/a/b/c/", "/base/x/c/"},
		{"prefix of the root", "/*", toPrefix("/x"), "http://h", "/a", "/x/a"},
		{"prefix, dots", "/a/*", toPrefix("/x"), "http://h", "/b/../a/./c", "/x/c"},
		{"prefix, encoded", "/a/*", toPrefix("/x"), "http://h", "/%61/%7e", "/x/%7e"},
		{"query", "/a/*", toPrefix("/x"), "http://h/base?v=1", "/a/b?q", "/base/x/b?v=1&q"},
		{"no path", "/*", toPrefix("/x"), "http://h", "", "/x/"},

		{"regex", "/*", toRegex("^/old/(.*)$", "/new/$1"), "http://h", "/old/a/b", "/new/a/b"},
		{"regex and the path of the URL", "/*", toRegex("^/old/(.*)$", "/new/$1"), "http://h/base", "/old/a", "/base/new/a"},
		{"no match", "/*", toRegex("^/old/(.*)$", "/new/$1"), "http://h", "/%7eother/../a%2f", "/%7eother/../a%2f"},
		{"no match and the path of the URL", "/*", toRegex("^/old/(.*)$", "/new/$1"), "http://h/base", "/%7eother/./a", "/base/%7eother/a"},
		{"groups by number and name", "/*", toRegex("^/(?P<year>[0-9]+)-([a-z]+)/", "/${2}/${year}$$"), "http://h", "/2024-x/y", "/x/2024$y"},
		{"digits behind a group", "/*", toRegex("^/(a)", "/${1}0"), "http://h", "/ab", "/a0b"},
		{"all matches", "/*", toRegex("a", "bb"), "http://h", "/aXa", "/bbXbb"},
		{"empty matches", "/*", toRegex("x*", "-"), "http://h", "/a", ""},
		{"optional group", "/*", toRegex("^/(a)?(b)?", "/$2$1"), "http://h", "/b", "/b"},
		{"normal form is matched", "/*", toRegex("^/~a/(.)", "/x$1"), "http://h", "/%7Ea/./b", "/xb"},
		{"encoded slash is none", "/*", toRegex("^/([^/]*)$", "/x/$1"), "http://h", "/a%2fb", "/x/a%2Fb"},
		{"must be encoded", "/*", toRegex("^/a", "/ä b%"), "http://h", "/ac", "/%C3%A4%20b%25c"},
		{"a cut escape is encoded", "/*", toRegex("F", ""), "http://h", "/a%2F", "/a%252"},
		{"an escape in the replacement stays", "/*", toRegex("^/a", "/%2F"), "http://h", "/a", "/%2F"},
		{"no slash", "/*", toRegex("/", ""), "http://h", "/a", ""},
		{"nothing left", "/*", toRegex(".*", ""), "http://h", "/a", ""},
		{"climbs", "/*", toRegex("^/x/(.*)y$", "/$1"), "http://h/base", "/x/..y", ""},
		{"climbs, encoded", "/*", toRegex("Z", ""), "http://h/base", "/.%2ZE/a", ""},
		{"dots inside", "/*", toRegex("Z", ""), "http://h/base", "/a/.Z./b/.Z", "/base/b/"},
		{"too long", "/*", toRegex("a", strings.Repeat("b", 1000)), "http://h", "/" + strings.Repeat("a", 100), ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := target(t, tt.from, tt.rewrite, tt.url, tt.path)
			if tt.want == "" && err == nil || tt.want != "" && (err != nil || got != tt.want) {
				t.Errorf("got %q, %v; want %q", got, err, tt.want)
			}
		})
	}
}

// target returns what a backend is asked for.
func target(t testing.TB, from string, rewrite *routetablev1.Rewrite, url, path string) (string, error) {
	t.Helper()
	own, isPrefix, err := routetable.ParseFrom(from)
	if err != nil {
		t.Fatal(err)
	}
	e := &routetablev1.Endpoint{Path: exact(own), Rewrite: rewrite}
	if isPrefix {
		e.Path = prefix(own)
	}
	if _, err := routetable.NewRewrite(rewrite, isPrefix); err != nil {
		t.Fatal(err)
	}
	r := &routetable.Request{Method: "GET"}
	r.Path, r.Query, r.HasQuery = strings.Cut(path, "?")
	return routetable.Target(e, &routetablev1.Backend{Url: url}, r)
}

func TestBadRewrites(t *testing.T) {
	tests := []struct {
		name    string
		prefix  bool
		rewrite *routetablev1.Rewrite
		want    string
	}{
		{"nothing", true, &routetablev1.Rewrite{}, "is not set; one of path, prefix and regex must be"},
		{"prefix of an exact path", false, toPrefix("/x"), "replaces a prefix, but the endpoint has none: its path is exact; use path"},
		{"path", false, toPath("x"), `"x" is not a valid path; it must start with a slash`},
		{"path not in normal form", false, toPath("/a/../b"), `"/a/../b" is not in normal form; write "/b"`},
		{"path with a query", false, toPath("/a?b"), `"/a?b" is not a valid path`},
		{"prefix", true, toPrefix("/.."), `"/.." is not a valid path`},
		{"no regex", true, toRegex("", "/"), "is empty; it must be a regular expression such as ^/old/(.*)$"},
		{"regex", true, toRegex("(", "/"), "\"(\" is not a regular expression of RE2: missing closing ): `(`"},
		{"look-ahead", true, toRegex("a(?=b)", "/"), "\"a(?=b)\" is not a regular expression of RE2: invalid or unsupported Perl syntax: `(?=`"},
		{"long regex", true, toRegex(strings.Repeat("a", 1025), "/"), `"aaa`},
		{"repetition", true, toRegex("a{1001}", "/"), `"a{1001}" is not a regular expression of RE2: invalid repeat count`},
		{"no such group", true, toRegex("^/(a)", "/$2"), `"/$2": there is no group 2; the regular expression has 1`},
		{"no such name", true, toRegex("^/(a)", "/${b}"), `"/${b}": there is no group called "b"`},
		{"name without braces", true, toRegex("^/(?P<b>a)", "/$b"), `"/$b" has a $ that neither a number nor { follows`},
		{"open", true, toRegex("^/(a)", "/${1"), `"/${1" has a ${ without a }`},
		{"dollar", true, toRegex("^/(a)", "/$"), `"/$" has a $ that neither`},
		{"query", true, toRegex("^/(a)", "/a?b"), `"/a?b" has a query or a fragment; only the path is rewritten`},
		{"no slash", true, toRegex("^/a", "b"), `"b" does not begin with a slash, and it takes the place of the beginning of the path`},
		{"long", true, toRegex("a", strings.Repeat("b", 1025)), `"bbb`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := routetable.NewRewrite(tt.rewrite, tt.prefix); err == nil || !strings.HasPrefix(err.Error(), tt.want) {
				t.Errorf("got %v, want %s", err, tt.want)
			}
		})
	}
}

// The rewrite of a regular expression against the one of the standard library, and
// every result against what a path must be.
func TestRegexRewritesAgreeWithReplaceAll(t *testing.T) {
	random := rand.New(rand.NewPCG(7, 8))
	pick := func(list ...string) string { return list[random.IntN(len(list))] }
	good, bad := 0, 0
	for range 20_000 {
		match := pick("a", "^/a(.*)$", "/(b|c)/", "([a-c])([./])", "%2F", ".", "^(/[^/]*)", "x*", "Z", "(a)|(b)")
		replace := pick("/$0", "$0", "", "/", "..", "%", "%2E", " ", "ä", "$$", "/x$0", "$0$0")
		path := ""
		for range 1 + random.IntN(6) {
			path += "/" + pick("a", "b", "c", "aZ", ".Z.", "%2F", "%C3%A4", "", "ab.c", "%2ZE")
		}
		normal, err := routetable.NormalizePath(path)
		if err != nil {
			continue
		}
		if strings.HasPrefix(match, "^") && !strings.HasPrefix(replace, "/") && !strings.HasPrefix(replace, "$0") {
			continue // refused
		}
		got, err := target(t, "/*", toRegex(match, replace), "http://h", path)
		compiled := regexp.MustCompile(match)
		want := compiled.ReplaceAllString(normal, strings.ReplaceAll(replace, "$0", "${0}"))
		if !compiled.MatchString(normal) {
			want = path
		}
		if wanted, valid := plain(want); (err == nil) != valid || valid && compiled.MatchString(normal) && got != wanted {
			t.Fatalf("%s of %s by %s: got %q, %v; want %q, %t", match, path, replace, got, err, wanted, valid)
		}
		if err != nil {
			bad++
			continue
		}
		good++
		if _, err := routetable.NormalizePath(got); err != nil || got[0] != '/' {
			t.Fatalf("%s of %s by %s is no path: %q", match, path, replace, got)
		}
	}
	t.Logf("%d paths, %d refused", good, bad)
	if good < 1000 || bad < 1000 {
		t.Errorf("%d paths, %d refused: too few", good, bad)
	}
}

// plain encodes what a path does not have and takes its dot segments out, simply.
func plain(path string) (string, bool) {
	if !strings.HasPrefix(path, "/") {
		return "", false
	}
	var b strings.Builder
	for i := range len(path) {
		c := path[i]
		escape := c == '%' && regexp.MustCompile(`^%[0-9A-Fa-f]{2}`).MatchString(path[i:])
		if c <= ' ' || c >= 0x7f || c == '?' || c == '#' || c == '%' && !escape {
			b.WriteString("%" + strings.ToUpper(string("0123456789abcdef"[c>>4])+string("0123456789abcdef"[c&15])))
			continue
		}
		b.WriteByte(c)
	}
	var out []string
	segments := strings.Split(b.String(), "/")[1:]
	for i, s := range segments {
		dots := regexp.MustCompile(`(?i)%2e`).ReplaceAllString(s, ".")
		switch dots {
		case "..":
			if len(out) == 0 {
				return "", false
			}
			out = out[:len(out)-1]
		case ".":
		default:
			out = append(out, s)
			continue
		}
		if i == len(segments)-1 {
			out = append(out, "")
		}
	}
	return "/" + strings.Join(out, "/"), true
}
