package routetable_test

import (
	"strings"
	"testing"

	"reverseproxy/proto/routetable"
)

func TestNormalizeHost(t *testing.T) {
	tests := map[string]string{
		"":                       "",
		"shop.example.com":       "shop.example.com",
		"Shop.EXAMPLE.com":       "shop.example.com",
		"shop.example.com:8000":  "shop.example.com",
		"shop.example.com.":      "shop.example.com",
		"shop.example.com.:8000": "shop.example.com",
		"shop.example.com..":     "shop.example.com.",
		"shop.example.com:":      "shop.example.com",
		"shop.example.com:http":  "shop.example.com:http",
		"127.0.0.1:80":           "127.0.0.1",
		"127.0.0.1":              "127.0.0.1",
		"[2001:DB8::1]:80":       "[2001:db8::1]",
		"[2001:db8::1]":          "[2001:db8::1]",
		"8000":                   "8000",
		":8000":                  "",
		".":                      "",
		"\u212a":                 "\u212a", // the Kelvin sign is no k
		strings.Repeat("a", 254): "",
	}
	for in, want := range tests {
		if got := routetable.NormalizeHost(in); got != want {
			t.Errorf("%q became %q, want %q", in, got, want)
		}
	}
}

func TestCheckHost(t *testing.T) {
	for _, good := range []string{
		"localhost", "shop.example.com", "*.example.com", "*.localhost", "a-b.c", "xn--bcher-kva.example", "10.0.0.1", "[::1]", "_x.y",
		strings.Repeat("a.", 126) + "a",
	} {
		if err := routetable.CheckHost(good); err != nil {
			t.Errorf("%q: %v", good, err)
		}
	}
	for bad, want := range map[string]string{
		"":                              "is empty",
		"*.":                            "is empty",
		"*":                             "write *.example.com",
		"*a.b":                          "write *.example.com",
		"*.*.b":                         "write *.example.com",
		"a.":                            "ends in a dot",
		".":                             "ends in a dot",
		"A.b":                           `write "a.b"`,
		"*.A.b":                         `write "*.a.b"`,
		"a:80":                          "without a port",
		"::1":                           "without brackets",
		"[::1]:80":                      "without a port",
		"[::1":                          "[addr]",
		"[::1%eth0]":                    "not a valid IPv6",
		"[1.2.3.4]":                     "not a valid IPv6",
		"[0:0::1]":                      `write "[::1]"`,
		"*.[::1]":                       "a wildcard needs a host name",
		"a..b":                          "empty label",
		".a":                            "empty label",
		"-a.b":                          "hyphen",
		"a-.b":                          "hyphen",
		"a b":                           `contains ' '`,
		"http://a":                      "port",
		"a/b":                           `contains '/'`,
		"bücher.example":                "xn--",
		strings.Repeat("a", 64):         "more than 63",
		strings.Repeat("a.", 127):       "ends in a dot",
		strings.Repeat("aa.", 85):       "ends in a dot",
		strings.Repeat("a.", 127) + "a": "at most 253",
	} {
		if err := routetable.CheckHost(bad); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", bad, err, want)
		}
	}
}
