package http1_test

import (
	"strings"
	"testing"

	"reverseproxy/dataplane/internal/http1"
)

// cookieOf returns a cookie of a request with these Cookie fields.
func cookieOf(t *testing.T, name string, values ...string) (string, bool) {
	t.Helper()
	head := "GET / HTTP/1.1\r\nHost: a\r\n"
	for _, v := range values {
		head += "cookie:" + v + "\r\n"
	}
	var r http1.Request
	var s http1.Scan
	if n, err := r.Parse([]byte(head+"X-Cookie: Sid=no\r\n\r\n"), &s, http1.Limits{}); n == 0 {
		t.Fatalf("%q is not parsed: %v", values, err)
	}
	value, ok := r.Cookie(name)
	return string(value.Of(r.Raw)), ok
}

func TestCookie(t *testing.T) {
	for _, tt := range []struct {
		name   string
		fields []string
		want   string // "-": there is none
	}{
		{"no field", nil, "-"},
		{"alone", []string{" Sid=abc"}, "abc"},
		{"among others", []string{"a=b; Sid=abc; c=d"}, "abc"},
		{"last", []string{"a=b;Sid=abc"}, "abc"},
		{"space around", []string{"a=b ; \tSid = abc \t; c=d"}, "abc"},
		{"the first of several", []string{"Sid=1; Sid=2"}, "1"},
		{"in a second field", []string{"a=b", "Sid=abc"}, "abc"},
		{"the first field counts", []string{"Sid=1", "Sid=2"}, "1"},
		{"a case of its own", []string{"sid=1; SID=2"}, "-"},
		{"a longer name", []string{"xSid=1; Sidx=2; Sid2=3"}, "-"},
		{"an empty value", []string{"Sid=; Sid=2"}, ""},
		{"a value with =", []string{"Sid=a=b=="}, "a=b=="},
		{"quotes stay", []string{`Sid="a b"`}, `"a b"`},
		{"no pair", []string{"Sid; a; =Sid; ;;"}, "-"},
		{"a name within a value", []string{"a=Sid=1"}, "-"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, ok := cookieOf(t, "Sid", tt.fields...)
			if !ok {
				got = "-"
			}
			if got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

// A plain second opinion: split at ";", then at the first "=".
func FuzzCookie(f *testing.F) {
	f.Add("Sid=abc; a=b")
	f.Add(" a ; Sid = \"x\";;=")
	f.Add("Sid==;Sid")
	f.Fuzz(func(t *testing.T, field string) {
		if strings.ContainsFunc(field, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }) {
			return
		}
		want, found := "", false
		for pair := range strings.SplitSeq(field, ";") {
			name, value, ok := strings.Cut(pair, "=")
			if ok && strings.Trim(name, " \t") == "Sid" {
				want, found = strings.Trim(value, " \t"), true
				break
			}
		}
		if got, ok := cookieOf(t, "Sid", field); got != want || ok != found {
			t.Errorf("%q: got %q, %t, want %q, %t", field, got, ok, want, found)
		}
	})
}

func TestValue(t *testing.T) {
	var r http1.Request
	var s http1.Scan
	if n, _ := r.Parse([]byte("GET / HTTP/1.1\r\nHost: a\r\nX-User:  u1 \r\nx-user: u2\r\nX-Empty:\r\n\r\n"), &s, http1.Limits{}); n == 0 {
		t.Fatal("not parsed")
	}
	for name, want := range map[string]string{"x-user": "u1", "x-empty": "", "host": "a"} {
		if v, ok := r.Value(name); !ok || string(v.Of(r.Raw)) != want {
			t.Errorf("%s is %q, %t", name, v.Of(r.Raw), ok)
		}
	}
	if _, ok := r.Value("x-use"); ok {
		t.Error("there is a field of another name")
	}
}
