package proxyprotocol_test

import (
	"encoding/binary"
	"net/netip"
	"strings"
	"testing"

	"reverseproxy/dataplane/internal/proxyprotocol"
)

// v2 makes a header of version 2.
func v2(command, family byte, content string) string {
	head := append([]byte("\r\n\r\n\x00\r\nQUIT\n"), command, family)
	return string(binary.BigEndian.AppendUint16(head, uint16(len(content)))) + content
}

const (
	four = "\xc0\x00\x02\x01\xc0\x00\x02\x02\xdc\x04\x01\xbb" // 192.0.2.1, 192.0.2.2 and their ports
	one6 = " \x01\r\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01"
	six  = one6 + one6 + "\xdc\x04\x01\xbb"
	old4 = "\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\xff\xff\xc0\x00\x02\x01"
	tlv  = "\x04\x00\x03abc" // an extension

	longest = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"
)

var good = []struct{ name, header, source string }{
	{"TCP4", "PROXY TCP4 192.0.2.1 192.0.2.2 56324 443\r\n", "192.0.2.1"},
	{"TCP6", "PROXY TCP6 2001:db8::1 2001:db8::2 1 65535\r\n", "2001:db8::1"},
	{"IPv4 as IPv6", "PROXY TCP6 ::ffff:192.0.2.1 ::1 0 0\r\n", "192.0.2.1"},
	{"longest", "PROXY TCP6 " + longest + " " + longest + " 65535 65535\r\n", longest},
	{"UNKNOWN", "PROXY UNKNOWN\r\n", ""},
	{"UNKNOWN with more", "PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n", ""},
	{"2, TCP4", v2(0x21, 0x11, four), "192.0.2.1"},
	{"2, TCP6", v2(0x21, 0x21, six), "2001:db8::1"},
	{"2, IPv4 as IPv6", v2(0x21, 0x21, old4+old4+"\x00\x01\x00\x02"), "192.0.2.1"},
	{"2, TCP4, extensions", v2(0x21, 0x11, four+tlv+tlv), "192.0.2.1"},
	{"2, LOCAL", v2(0x20, 0x00, ""), ""},
	{"2, LOCAL with addresses", v2(0x20, 0x11, four), ""},
	{"2, LOCAL with cut addresses", v2(0x20, 0x11, "abc"), ""},
	{"2, unspecified", v2(0x21, 0x00, tlv), ""},
	{"2, UDP", v2(0x21, 0x12, four), ""},
	{"2, Unix", v2(0x21, 0x31, strings.Repeat("/", 216)), ""},
	{"2, as long as may be", v2(0x21, 0x11, four+strings.Repeat("x", proxyprotocol.MaxBytes-16-len(four))), "192.0.2.1"},
}

func TestGood(t *testing.T) {
	for _, tt := range good {
		t.Run(tt.name, func(t *testing.T) {
			for _, rest := range []string{"", "GET / HTTP/1.1\r\n", "\r\n", "\x00"} {
				source, n, err := proxyprotocol.Parse([]byte(tt.header + rest))
				if err != nil || n != len(tt.header) {
					t.Fatalf("length %d, error %v", n, err)
				}
				got := ""
				if source.IsValid() {
					got = source.String()
				}
				if got != tt.source {
					t.Errorf("source is %q, want %q", got, tt.source)
				}
			}
			for i := range tt.header {
				if source, n, err := proxyprotocol.Parse([]byte(tt.header[:i])); n != 0 || err != nil || source.IsValid() {
					t.Errorf("of %d bytes: %v, %d, %v", i, source, n, err)
				}
			}
		})
	}
}

func TestBad(t *testing.T) {
	tests := []struct{ name, header string }{
		{"HTTP", "GET / HTTP/1.1\r\n"},
		{"POST", "P" + "OST"},
		{"TLS", "\x16\x03\x01"},
		{"line feed", "\n"},
		{"lower case", "proxy TCP4 192.0.2.1 192.0.2.2 1 2\r\n"},
		{"tab", "PROXY\tTCP4"},
		{"no carriage return", "PROXY TCP4 192.0.2.1 192.0.2.2 1 2\n"},
		{"nothing", "PROXY \r\n"},
		{"unknown protocol", "PROXY UDP4 192.0.2.1 192.0.2.2 1 2\r\n"},
		{"unknown, lower case", "PROXY unknown\r\n"},
		{"no addresses", "PROXY TCP4\r\n"},
		{"no ports", "PROXY TCP4 192.0.2.1 192.0.2.2\r\n"},
		{"one port", "PROXY TCP4 192.0.2.1 192.0.2.2 1\r\n"},
		{"a word more", "PROXY TCP4 192.0.2.1 192.0.2.2 1 2 3\r\n"},
		{"two spaces", "PROXY TCP4 192.0.2.1  192.0.2.2 1 2\r\n"},
		{"space at the end", "PROXY TCP4 192.0.2.1 192.0.2.2 1 2 \r\n"},
		{"port too large", "PROXY TCP4 192.0.2.1 192.0.2.2 65536 2\r\n"},
		{"port much too large", "PROXY TCP4 192.0.2.1 192.0.2.2 1 99999999999999999999\r\n"},
		{"port with zeros", "PROXY TCP4 192.0.2.1 192.0.2.2 01 2\r\n"},
		{"port with a sign", "PROXY TCP4 192.0.2.1 192.0.2.2 +1 2\r\n"},
		{"address with zeros", "PROXY TCP4 192.0.2.001 192.0.2.2 1 2\r\n"},
		{"short address", "PROXY TCP4 192.0.2 192.0.2.2 1 2\r\n"},
		{"other family", "PROXY TCP4 2001:db8::1 2001:db8::2 1 2\r\n"},
		{"other family of the second", "PROXY TCP6 2001:db8::1 192.0.2.2 1 2\r\n"},
		{"brackets", "PROXY TCP6 [2001:db8::1] ::2 1 2\r\n"},
		{"zone", "PROXY TCP6 fe80::1%eth0 ::2 1 2\r\n"},
		{"endless", "PROXY UNKNOWN " + strings.Repeat("x", 93)},
		{"too long", "PROXY UNKNOWN " + strings.Repeat("x", 92) + "\r\n"},
		{"2, other signature", "\r\n\r\n\x00\r\nQUIT\r"},
		{"2, version 1", v2(0x11, 0x11, four)},
		{"2, version 3", v2(0x31, 0x11, four)},
		{"2, unknown command", v2(0x22, 0x11, four)},
		{"2, unknown family", v2(0x21, 0x41, four)},
		{"2, unknown protocol", v2(0x21, 0x13, four)},
		{"2, cut off", v2(0x21, 0x11, four[1:])},
		{"2, cut off, IPv6", v2(0x21, 0x21, six[1:])},
		{"2, no addresses", v2(0x21, 0x11, "")},
		{"2, too long", v2(0x21, 0x11, four+strings.Repeat("x", proxyprotocol.MaxBytes-15-len(four)))},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, n, err := proxyprotocol.Parse([]byte(tt.header))
			if err == nil || n != 0 {
				t.Fatalf("length %d, error %v", n, err)
			}
			// Split at every byte, it ends the same way, and never looks whole before.
			for i := range len(tt.header) {
				_, n, early := proxyprotocol.Parse([]byte(tt.header[:i]))
				if n != 0 {
					t.Errorf("whole with %d bytes", i)
				}
				if early != nil && early != err {
					t.Errorf("with %d bytes the error is %v, with all %v", i, early, err)
				}
			}
		})
	}
}

func FuzzParse(f *testing.F) {
	for _, tt := range good {
		f.Add([]byte(tt.header))
	}
	f.Fuzz(func(t *testing.T, p []byte) {
		source, n, err := proxyprotocol.Parse(p)
		if n < 0 || n > len(p) || n > proxyprotocol.MaxBytes || err != nil && n != 0 {
			t.Fatalf("length %d of %d, error %v", n, len(p), err)
		}
		if source != (netip.Addr{}) && (n == 0 || source.Is4In6() || source.Zone() != "") {
			t.Fatalf("source %v with length %d", source, n)
		}
		if n == 0 && err == nil && len(p) >= proxyprotocol.MaxBytes {
			t.Fatal("wants more bytes than a header has")
		}
		// The bytes behind the header mean nothing, and those before decide at the
		// same one.
		whole := p
		if n > 0 {
			whole = p[:n]
		}
		again, m, same := proxyprotocol.Parse(whole)
		if again != source || m != n || same != err {
			t.Fatalf("%v, %d, %v became %v, %d, %v", source, n, err, again, m, same)
		}
		for i := range min(n, 300) {
			if _, m, err := proxyprotocol.Parse(p[:i]); m != 0 || err != nil {
				t.Fatalf("of %d bytes: %d, %v", i, m, err)
			}
		}
	})
}
