package accesslog_test

import (
	"bytes"
	"encoding/json"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"reverseproxy/dataplane/internal/accesslog"
)

var moment = time.Date(2026, 2, 3, 4, 5, 6, 789_999_999, time.UTC).UnixNano()

// sample is a line that has everything.
func sample() *accesslog.Line {
	return &accesslog.Line{
		Time: moment, Client: []byte("192.0.2.1"),
		Method: []byte("GET"), Host: []byte("shop.example.com"), Target: []byte("/a%20b?c=d"), Minor: 1,
		Referer: []byte("http://e.example/"), UserAgent: []byte("curl/8.0"), RequestID: []byte("id-1"),
		Status: 200, BytesIn: 123, BytesOut: 4567, BodyOut: 4321,
		Duration: 1234567 * time.Nanosecond, Backend: 12 * time.Second,
		Endpoint: "shop", URL: "http://10.0.0.1:80/x", Attempts: 2, Version: "abc",
	}
}

// unparsed is a line about something that was no request.
func unparsed() *accesslog.Line {
	return &accesslog.Line{Time: moment, Client: []byte("2001:db8::1"), Status: 400, BytesIn: 7, BytesOut: 130, BodyOut: 31,
		Backend: -1, Endpoint: "none", Version: "abc", ByProxy: true}
}

// render returns what one line becomes.
func render(f accesslog.Format, l *accesslog.Line) string {
	return renderIn(accesslog.New(1).Shard(0), f, l)
}

func renderIn(s *accesslog.Shard, f accesslog.Format, l *accesslog.Line) string {
	s.Add("p", f, l)
	_, lines := s.Next()
	s.Done(len(lines))
	return string(lines)
}

func TestLines(t *testing.T) {
	failed := sample()
	failed.Status, failed.ByProxy, failed.Error, failed.Backend, failed.Minor = 502, true, "connect_failed", -1, 0
	failed.Referer, failed.UserAgent, failed.RequestID = nil, nil, nil
	tests := []struct {
		name   string
		format accesslog.Format
		line   *accesslog.Line
		want   string
	}{
		{"JSON", accesslog.JSON, sample(), `{"time":"2026-02-03T04:05:06.789Z","client":"192.0.2.1","method":"GET","host":"shop.example.com","target":"/a%20b?c=d",` +
			`"protocol":"HTTP/1.1","status":200,"bytesIn":123,"bytesOut":4567,"durationSeconds":0.001234,"backendSeconds":12.000000,` +
			`"endpoint":"shop","backend":"http://10.0.0.1:80/x","attempts":2,"byProxy":false,"error":"","requestId":"id-1","version":"abc",` +
			`"referer":"http://e.example/","userAgent":"curl/8.0"}`},
		{"JSON, failed", accesslog.JSON, failed, `{"time":"2026-02-03T04:05:06.789Z","client":"192.0.2.1","method":"GET","host":"shop.example.com","target":"/a%20b?c=d",` +
			`"protocol":"HTTP/1.0","status":502,"bytesIn":123,"bytesOut":4567,"durationSeconds":0.001234,"backendSeconds":null,` +
			`"endpoint":"shop","backend":"http://10.0.0.1:80/x","attempts":2,"byProxy":true,"error":"connect_failed","requestId":"","version":"abc",` +
			`"referer":"","userAgent":""}`},
		{"JSON, no request", accesslog.JSON, unparsed(), `{"time":"2026-02-03T04:05:06.789Z","client":"2001:db8::1","method":"","host":"","target":"",` +
			`"protocol":"","status":400,"bytesIn":7,"bytesOut":130,"durationSeconds":0.000000,"backendSeconds":null,` +
			`"endpoint":"none","backend":"","attempts":0,"byProxy":true,"error":"","requestId":"","version":"abc","referer":"","userAgent":""}`},
		{"common", accesslog.Common, sample(), `192.0.2.1 - - [03/Feb/2026:04:05:06 +0000] "GET /a%20b?c=d HTTP/1.1" 200 4321`},
		{"common, no request", accesslog.Common, unparsed(), `2001:db8::1 - - [03/Feb/2026:04:05:06 +0000] "-" 400 31`},
		{"combined", accesslog.Combined, sample(), `192.0.2.1 - - [03/Feb/2026:04:05:06 +0000] "GET /a%20b?c=d HTTP/1.1" 200 4321 "http://e.example/" "curl/8.0"`},
		{"combined, nothing known", accesslog.Combined, failed, `192.0.2.1 - - [03/Feb/2026:04:05:06 +0000] "GET /a%20b?c=d HTTP/1.0" 502 4321 "-" "-"`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want+"\n", render(tt.format, tt.line)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestEscaping(t *testing.T) {
	tests := []struct{ name, value, json, clf string }{
		{"new line", "a\r\n1.2.3.4 - -", `a\u000d\u000a1.2.3.4 - -`, `a\x0D\x0A1.2.3.4 - -`},
		{"quotes", `a" "b\" c`, `a\" \"b\\\" c`, `a\x22 \x22b\x5C\x22 c`},
		{"NUL, tab, escape, DEL", "\x00\t\x1b[31m\x7f", `\u0000\t\u001b[31m\u007f`, `\x00\x09\x1B[31m\x7F`},
		{"after 8 plain bytes", "01234567\n89012345\"6", `01234567\u000a89012345\"6`, `01234567\x0A89012345\x226`},
		{"umlaut", "grün", `gr\u00fcn`, `gr\xC3\xBCn`},
		{"beyond the basic plane", "a😀b", `a\ud83d\ude00b`, `a\xF0\x9F\x98\x80b`},
		{"control and direction characters", "\u0085\u009b\u2028\u202e", `\u0085\u009b\u2028\u202e`, `\xC2\x85\xC2\x9B\xE2\x80\xA8\xE2\x80\xAE`},
		{"not UTF-8", "a\xff\xc3(\xf0\x9f\x98", `a\ufffd\ufffd(\ufffd\ufffd\ufffd`, `a\xFF\xC3(\xF0\x9F\x98`},
		{"an encoded surrogate", "\xed\xa0\x80", `\ufffd\ufffd\ufffd`, `\xED\xA0\x80`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			l := sample()
			l.UserAgent = []byte(tt.value)
			if got := render(accesslog.JSON, l); !strings.HasSuffix(got, `"userAgent":"`+tt.json+"\"}\n") {
				t.Errorf("JSON: %s", got)
			}
			if got := render(accesslog.Combined, l); !strings.HasSuffix(got, ` "`+tt.clf+"\"\n") {
				t.Errorf("combined: %s", got)
			}
		})
	}
}

func TestLongValuesAreCut(t *testing.T) {
	l := sample()
	l.Target = bytes.Repeat([]byte("/"), accesslog.MaxValue+1)
	l.UserAgent = bytes.Repeat([]byte("u"), accesslog.MaxValue)
	want := strings.Repeat("/", accesslog.MaxValue)
	if got := render(accesslog.JSON, l); !strings.Contains(got, `"`+want+`..."`) || !strings.Contains(got, strings.Repeat("u", accesslog.MaxValue)+`"}`) {
		t.Errorf("JSON of %d bytes", len(got))
	}
	if got := render(accesslog.Combined, l); !strings.Contains(got, `GET `+want+`... HTTP/1.1`) {
		t.Errorf("combined of %d bytes", len(got))
	}
}

func TestTimes(t *testing.T) {
	s := accesslog.New(1).Shard(0)
	for _, at := range []time.Time{
		time.Date(1970, 1, 1, 0, 0, 0, 1e6, time.UTC), time.Date(2024, 2, 28, 23, 59, 59, 999e6, time.UTC), time.Date(2024, 2, 29, 0, 0, 0, 0, time.UTC),
		time.Date(2024, 2, 28, 12, 34, 56, 7e6, time.UTC), time.Date(2100, 12, 31, 23, 0, 0, 90e6, time.UTC),
	} {
		l := sample()
		l.Time = at.UnixNano()
		s.Add("p", accesslog.JSON, l)
		s.Add("p", accesslog.Common, l)
		_, lines := s.Next()
		for _, want := range []string{at.Format(`"time":"2006-01-02T15:04:05.000Z"`), at.Format("[02/Jan/2006:15:04:05 -0700]")} {
			if !strings.Contains(string(lines), want) {
				t.Errorf("want %s in %s", want, lines)
			}
		}
		s.Done(len(lines))
	}
}

var combined = regexp.MustCompile(`^([^ "\\]|\\x[0-9A-F]{2})* - - \[\d\d/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d:\d\d \+0000\] "(-|(?P<method>(?:[^"\\]|\\x[0-9A-F]{2})*) (?P<target>(?:[^"\\]|\\x[0-9A-F]{2})*) HTTP/1\.[01])" (\d+) (\d+) "(?P<referer>(?:[^"\\]|\\x[0-9A-F]{2})*)" "(?P<agent>(?:[^"\\]|\\x[0-9A-F]{2})*)"\n$`)

// Whatever is in a request, its line is one line of printable ASCII that a reader
// takes apart into the same values.
func FuzzLine(f *testing.F) {
	f.Add([]byte("GET"), []byte("/"), []byte("h"), []byte("r"), []byte("u\x00\x1b\"\\\r\n\xff\u2028😀"), []byte("id"), "name", uint64(1), int64(1))
	f.Add([]byte("\"\\"), []byte("\", \"status\": 200}"), []byte("\xc3\x28"), []byte("-"), []byte(strings.Repeat("x", 9000)), []byte(""), "\xed\xa0\x80", uint64(1<<63), int64(-1))
	s := accesslog.New(1).Shard(0)
	f.Fuzz(func(t *testing.T, method, target, host, referer, agent, id []byte, name string, n uint64, at int64) {
		l := &accesslog.Line{
			Time: at, Client: []byte("192.0.2.1"), Method: method, Target: target, Host: host, Referer: referer, UserAgent: agent, RequestID: id,
			Status: int(n % 1000), BytesIn: n, BytesOut: n, BodyOut: n, Duration: time.Duration(n), Backend: time.Duration(at), Endpoint: name, URL: name, Version: name,
		}
		for _, format := range []accesslog.Format{accesslog.JSON, accesslog.Common, accesslog.Combined} {
			got := renderIn(s, format, l)
			if i := strings.IndexFunc(strings.TrimSuffix(got, "\n"), func(r rune) bool { return r < ' ' || r > '~' }); i >= 0 || !strings.HasSuffix(got, "\n") {
				t.Fatalf("not one line of printable ASCII: %q", got)
			}
			switch format {
			case accesslog.JSON:
				checkJSON(t, got, l)
			case accesslog.Combined:
				checkCombined(t, got, l)
			}
		}
	})
}

func checkJSON(t *testing.T, line string, l *accesslog.Line) {
	var got map[string]any
	if err := json.Unmarshal([]byte(line), &got); err != nil {
		t.Fatalf("%v: %s", err, line)
	}
	for key, value := range map[string][]byte{
		"method": l.Method, "target": l.Target, "host": l.Host, "referer": l.Referer, "userAgent": l.UserAgent, "requestId": l.RequestID,
		"endpoint": []byte(l.Endpoint), "backend": []byte(l.URL), "version": []byte(l.Version), "client": l.Client,
	} {
		if want := valid(cut(value)); got[key] != want {
			t.Fatalf("%s is %q, want %q in %s", key, got[key], want, line)
		}
	}
	if len(got) != 20 {
		t.Fatalf("%d keys in %s", len(got), line)
	}
}

func checkCombined(t *testing.T, line string, l *accesslog.Line) {
	match := combined.FindStringSubmatch(line)
	if match == nil {
		t.Fatalf("not the combined format: %s", line)
	}
	for name, value := range map[string][]byte{"method": l.Method, "target": l.Target, "referer": l.Referer, "agent": l.UserAgent} {
		// A separator within what has no quotes of its own cannot be told. The
		// parser of requests lets none through.
		if len(l.Method) == 0 && (name == "method" || name == "target") || bytes.ContainsAny(l.Method, " ") || bytes.ContainsAny(l.Target, " ") {
			continue
		}
		want := cut(value)
		if want == "" && (name == "referer" || name == "agent") {
			want = "-"
		}
		if got := unescape(match[combined.SubexpIndex(name)]); got != want {
			t.Fatalf("%s is %q, want %q in %s", name, got, want, line)
		}
	}
}

func cut(v []byte) string {
	if len(v) > accesslog.MaxValue {
		return string(v[:accesslog.MaxValue]) + "..."
	}
	return string(v)
}

// valid replaces each byte that is not UTF-8, one by one.
func valid(s string) string {
	var b strings.Builder
	for len(s) > 0 {
		r, n := utf8.DecodeRuneInString(s)
		b.WriteRune(r)
		s = s[n:]
	}
	return b.String()
}

var escaped = regexp.MustCompile(`\\x..`)

func unescape(s string) string {
	return escaped.ReplaceAllStringFunc(s, func(e string) string {
		n, _ := strconv.ParseUint(e[2:], 16, 8)
		return string([]byte{byte(n)})
	})
}
