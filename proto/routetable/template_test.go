package routetable_test

import (
	"strings"
	"testing"

	"reverseproxy/proto/routetable"
)

func values() *routetable.Values {
	return &routetable.Values{
		Client: []byte("192.0.2.1"), Endpoint: "shop", Host: []byte("Shop.example:8000"), Method: []byte("GET"), Path: []byte("/a%2Fb"),
		Query: []byte("x=1"), HasQuery: true, RequestID: []byte("id-1"), Scheme: "http",
	}
}

func TestTemplate(t *testing.T) {
	for text, want := range map[string]string{
		"":                           "",
		"plain":                      "plain",
		"$$":                         "$",
		"$${client}":                 "${client}",
		"$$$$5":                      "$$5",
		"}{":                         "}{",
		"${client}":                  "192.0.2.1",
		"a${client}b${client}c":      "a192.0.2.1b192.0.2.1c",
		"${scheme}://${host}${path}": "http://Shop.example/a%2Fb",
		"${method} ${path}?${query}": "GET /a%2Fb?x=1",
		"${query}?":                  "x=1?",
		"${endpoint}/${requestId}":   "shop/id-1",
		"$${${query}}":               "${x=1}",
	} {
		tpl, err := routetable.ParseTemplate(text)
		if err != nil {
			t.Errorf("%q: %v", text, err)
			continue
		}
		if got := string(tpl.Append([]byte("<"), values())); got != "<"+want {
			t.Errorf("%q gives %q, want %q", text, got, want)
		}
	}
}

// Where there is no query, no question mark is left of "?${query}".
func TestTemplateWithoutQuery(t *testing.T) {
	for text, want := range map[string]string{
		"${path}?${query}": "/a%2Fb", "?${query}": "", "a?b?${query}c": "a?bc", "${query}": "", "?a${query}": "?a", "??${query}": "?",
	} {
		tpl, err := routetable.ParseTemplate(text)
		if err != nil {
			t.Fatal(err)
		}
		v := values()
		v.Query, v.HasQuery = nil, false
		if got := string(tpl.Append(nil, v)); got != want {
			t.Errorf("%q gives %q, want %q", text, got, want)
		}
		v.HasQuery = true // an empty one
		if got := string(tpl.Append(nil, v)); got != want && got != strings.Replace(text, "${query}", "", 1) && text != "${path}?${query}" {
			t.Errorf("%q gives %q with an empty query", text, got)
		}
	}
}

func TestTemplateHost(t *testing.T) {
	tpl, _ := routetable.ParseTemplate("${host}")
	for host, want := range map[string]string{
		"": "", "a": "a", "a:80": "a", "a:": "a", "[::1]": "[::1]", "[::1]:80": "[::1]", "192.0.2.1:1": "192.0.2.1", "a.": "a.",
	} {
		if got := string(tpl.Append(nil, &routetable.Values{Host: []byte(host)})); got != want {
			t.Errorf("of %q: %q, want %q", host, got, want)
		}
	}
}

func TestBadTemplates(t *testing.T) {
	for text, want := range map[string]string{
		"$":         `"$" has a $ that no { follows; write $$ for a dollar, ${name} for a variable`,
		"a$b":       `"a$b" has a $ that no { follows`,
		"$client":   `"$client" has a $ that no { follows`,
		"${client":  `"${client" has a ${ without a }; write $$ for a dollar`,
		"${}":       `"${}": there is no variable "${}"; there are ${client}, ${endpoint}, ${host}, ${method}, ${path}, ${query}, ${requestId}, ${scheme}`,
		"${Client}": `"${Client}": there is no variable "${Client}"; there are`,
		"x${ip}":    `"x${ip}": there is no variable "${ip}"`,
	} {
		if _, err := routetable.ParseTemplate(text); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestLocation(t *testing.T) {
	tests := []struct{ to, path, query, want string }{
		{"https://shop.example/", "/a", "", "https://shop.example/"},
		{"https://${host}${path}", "/a", "x=1", "https://Shop.example/a"},
		{"https://${host}:8443${path}?${query}", "/a", "x=1", "https://Shop.example:8443/a?x=1"},
		{"${scheme}://${host}", "/a", "", "http://Shop.example"},
		{"https://a.example${path}", "//evil.example/", "", "https://a.example//evil.example/"},
		{"${path}", "//evil.example/", "", "/evil.example/"},
		{"${path}", `/\evil.example/`, "", "/%5Cevil.example/"},
		{"/${path}", "///evil.example", "", "/evil.example"},
		{"/new${path}", "//x", "", "/new//x"},
		{"/a?to=${path}#${query}", "/b", `"<>|`, `/a?to=/b#%22%3C%3E%7C`},
		{"/${query}", "/b", `\\evil`, "/%5C%5Cevil"},
	}
	for _, tt := range tests {
		to, err := routetable.ParseLocation(tt.to)
		if err != nil {
			t.Errorf("%s: %v", tt.to, err)
			continue
		}
		v := values()
		v.Path, v.Query, v.HasQuery = []byte(tt.path), []byte(tt.query), tt.query != ""
		if got := string(to.AppendLocation([]byte("Location: "), v)); got != "Location: "+tt.want {
			t.Errorf("%s of %s?%s: %q, want %q", tt.to, tt.path, tt.query, got, tt.want)
		}
	}
}

func TestBadLocations(t *testing.T) {
	for to, want := range map[string]string{
		"":                               "is empty; it must begin with https:// or http:// or ${scheme}:// and a host, with a slash, or with ${path}",
		"shop.example/a":                 `"shop.example/a" is no location; it must begin with https://`,
		"ftp://a/":                       `"ftp://a/" is no location`,
		"javascript:alert(1)":            `"javascript:alert(1)" is no location`,
		"//evil":                         `"//evil" begins with two slashes, behind which clients expect a host`,
		"${host}/a":                      `"${host}/a" is no location`,
		"${query}":                       `"${query}" is no location`,
		"https://":                       `"https://" has no host`,
		"https:///a":                     `"https:///a" has no host`,
		"https://${path}":                `"https://${path}" has no host`,
		"https://${query}/":              `"https://${query}/" has a variable in its host that is not ${host}; a slash must follow the host`,
		"https://a${query}":              `"https://a${query}" has a variable in its host`,
		"https://${host}${query}${path}": `"https://${host}${query}${path}" has a variable in its host`,
		"https://a.example$$/":           `"https://a.example$$/" has a variable in its host`,
		"https://user@a.example/":        `"https://user@a.example/" has a host that is not valid`,
		"/a b":                           `"/a b" contains a space`,
		"/a\r\nX: y":                     `"/a\r\nX: y" contains a space, control`,
		"/ä":                             `"/ä" contains a space, control or non-ASCII character`,
		"/${x}":                          `"/${x}": there is no variable`,
		"/" + strings.Repeat("a", 1<<12): `"/aaa`,
	} {
		if _, err := routetable.ParseLocation(to); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%q: %v", to, err)
		}
	}
}

// Whatever a request is, a location made of it is one URL: no byte ends the line,
// and it leads nowhere but to where the template says.
func FuzzLocation(f *testing.F) {
	f.Add("${path}", "//evil.example/", "x")
	f.Add("https://a.example${path}?${query}", "/\\evil", "\"<>")
	f.Add("/${query}", "/", "/evil")
	f.Add("https://${host}:1/", "/", "")
	f.Fuzz(func(t *testing.T, text, path, query string) {
		to, err := routetable.ParseLocation(text)
		if err != nil || strings.ContainsAny(path+query, "?#") || !visible(path) || !visible(query) || path == "" || path[0] != '/' {
			return
		}
		v := values()
		v.Path, v.Query, v.HasQuery = []byte(path), []byte(query), query != ""
		got := string(to.AppendLocation(nil, v))
		if !visible(got) || strings.ContainsAny(got, "\"<>\\^`{|}") {
			t.Errorf("%q of %q and %q is %q", text, path, query, got)
		}
		if text[0] == '/' || strings.HasPrefix(text, "${path}") {
			if got[0] != '/' || strings.HasPrefix(got, "//") {
				t.Errorf("%q of %q and %q leads to another host: %q", text, path, query, got)
			}
			return
		}
		_, after, _ := strings.Cut(text, "://")
		host, _, _ := strings.Cut(strings.ReplaceAll(after, "${path}", "/"), "/")
		host, _, _ = strings.Cut(host, "?")
		host, _, _ = strings.Cut(host, "#")
		host = strings.ReplaceAll(host, "${host}", "Shop.example")
		_, after, _ = strings.Cut(got, "://")
		if rest, ok := strings.CutPrefix(after, host); !visible(host) || !strings.ContainsAny(host, "\"<>^`{|}") && (!ok || rest != "" && !strings.ContainsAny(rest[:1], "/?#")) {
			t.Errorf("%q of %q and %q leads to another host than %q: %q", text, path, query, host, got)
		}
	})
}

// visible reports whether s is what a request target consists of.
func visible(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r >= 0x7f })
}
