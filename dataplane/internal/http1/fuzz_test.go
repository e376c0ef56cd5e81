package http1_test

import (
	"strings"
	"testing"

	"reverseproxy/dataplane/internal/http1"
)

// readPoints turns a fuzz argument into lengths at which reads end.
func readPoints(splits uint64, n int) []int {
	var lengths []int
	for at := 0; at < n; splits = splits>>6 | splits<<58 {
		at += int(splits&63) + 1
		lengths = append(lengths, min(at, n))
	}
	return lengths
}

// checkHead checks what must hold for every input: the result does not depend on
// the reads, and an accepted head can be read one way only.
func checkHead(t *testing.T, kind message, in string, splits uint64) outcome {
	t.Helper()
	lim := http1.Limits{HeadBytes: 4096, Fields: 20, TargetBytes: 200}
	whole := parseWhole(kind, in, lim)
	if in != "" {
		if diff := diffOutcome(whole, parseReads(kind, in, lim, readPoints(splits, len(in))...)); diff != "" {
			t.Fatalf("(-in one read +in pieces)\n%s", diff)
		}
	}
	if whole.N == 0 {
		return whole
	}
	h := whole.Message.head()
	checkSpans(t, h)
	if whole.N > lim.HeadBytes || len(h.Fields) > lim.Fields {
		t.Errorf("over the limits: %d bytes, %d fields", whole.N, len(h.Fields))
	}
	raw := string(h.Raw)
	if !strings.HasSuffix(in[:whole.N], raw) || strings.Trim(in[:whole.N-len(raw)], "\r\n") != "" {
		t.Errorf("Raw is %q", raw)
	}
	// A plain second opinion on the rules that smuggling is made of.
	lines := strings.Split(raw, "\r\n")
	lengths, codings := 0, 0
	for i, line := range lines {
		if strings.ContainsFunc(line, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }) {
			t.Errorf("control character in line %q", line)
		}
		if i == 0 || i >= len(lines)-2 {
			continue
		}
		name, value, _ := strings.Cut(line, ":")
		if name == "" || strings.ContainsAny(name, " \t") {
			t.Errorf("line %q", line)
		}
		switch value = strings.Trim(value, " \t"); strings.ToLower(name) {
		case "content-length":
			lengths++
			if value == "" || strings.Trim(value, "0123456789") != "" {
				t.Errorf("line %q", line)
			}
		case "transfer-encoding":
			codings++
			if !strings.EqualFold(value, "chunked") {
				t.Errorf("line %q", line)
			}
		}
	}
	if lengths+codings > 1 {
		t.Errorf("%d Content-Length and %d Transfer-Encoding", lengths, codings)
	}
	return whole
}

func FuzzRequest(f *testing.F) {
	for _, seed := range []string{
		browserRequest,
		"\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\nrest",
		"POST /a?b=c HTTP/1.1\r\nHost: a:80\r\nContent-Length: 5\r\n\r\nhello",
		"POST / HTTP/1.1\r\nhost:\t[::1]:80 \r\nTransfer-Encoding: chunked\r\nTrailer: X\r\n\r\n0\r\n\r\n",
		"GET http://b/c?d HTTP/1.1\r\nHost: a\r\nConnection: close, x\r\nX: y\r\n\r\n",
		"OPTIONS * HTTP/1.0\r\nMax-Forwards: 10\r\nConnection: keep-alive\r\n\r\n",
		"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nTE: trailers\r\nContent-Length: 1\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: a\r\nA: b\r\n c\r\n\r\n",
		"GET / HTTP/1.1\nHost: a\n\n",
		"GET / HTTP/1.1\r\nHost: a\r\nA : b\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: a\r\nA: b\rc\r\n\r\n",
		"GET / HTTP/2.0\r\nHost: a\r\n\r\n",
	} {
		f.Add([]byte(seed), uint64(0x0123456789abcdef))
	}
	f.Fuzz(func(t *testing.T, in []byte, splits uint64) {
		o := checkHead(t, &request{}, string(in), splits)
		if o.N == 0 {
			return
		}
		compareRequest(t, &o.Message.(*request).Request)
	})
}

func FuzzResponse(f *testing.F) {
	for _, seed := range []string{
		smallResponse,
		"HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X\r\n\r\n0\r\n\r\n",
		"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n\r\n",
		"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n",
		"HTTP/1.1 304 Not Modified\r\nContent-Length: 10\r\n\r\n",
		"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
		"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
		"HTTP/1.1 200 OK\nContent-Length: 1\n\n",
		"HTTP/1.1 200 OK\r\nA: b\r\n c: d\r\n\r\n",
		"HTTP/1.1 200 OK\r\nConnection: close, x\r\nX: y\r\n\r\n",
	} {
		for _, to := range []http1.Method{http1.GET, http1.HEAD, http1.CONNECT} {
			f.Add([]byte(seed), uint64(0x0123456789abcdef), uint8(to))
		}
	}
	f.Fuzz(func(t *testing.T, in []byte, splits uint64, to uint8) {
		method, known := methodNames[http1.Method(to)]
		if !known {
			return
		}
		o := checkHead(t, &response{To: http1.Method(to)}, string(in), splits)
		if o.N == 0 {
			return
		}
		compareResponse(t, &o.Message.(*response).Response, method)
	})
}

func FuzzBody(f *testing.F) {
	for _, seed := range []string{
		"5\r\nhello\r\n0\r\n\r\nGET / HTTP/1.1\r\n",
		"a;b=c;d=\"e\\\"f\"\r\n0123456789\r\n1\r\nx\r\n0\r\n\r\n",
		"0\r\nX-Sum: 1\r\nY: z\r\n\r\n",
		"0\r\nContent-Length: 1\r\n\r\n",
		"5 \r\nhello\r\n0\r\n\r\n",
		"5\nhello\n0\n\n",
		"ffffffffffffffff\r\n",
		"000000000000001\r\nx\r\n00\r\n\r\n",
		"1;" + strings.Repeat("a", 100) + "\r\nx\r\n0\r\n\r\n",
	} {
		f.Add([]byte(seed), uint64(0x0123456789abcdef), uint16(7))
	}
	f.Fuzz(func(t *testing.T, in []byte, splits uint64, length uint16) {
		p := string(in)
		payload, n, done, err := follow(t, http1.Chunked, 0, p, len(p))
		payload2, n2, done2, err2 := follow(t, http1.Chunked, 0, p, readPoints(splits, len(p))...)
		if payload != payload2 || n != n2 || done != done2 || err != err2 {
			t.Fatalf("in one read: %q, %d, %v, %v; in pieces: %q, %d, %v, %v", payload, n, done, err, payload2, n2, done2, err2)
		}
		if done {
			checkDecoded(t, p, payload, n)
		}
		if err == nil && !done && n != len(p) {
			t.Errorf("took %d of %d bytes", n, len(p))
		}
		// The other framings.
		body, n, done, err := follow(t, http1.Length, int64(length), p, readPoints(splits, len(p))...)
		if want := min(int(length), len(p)); n != want || body != p[:want] || done != (want == int(length)) || err != nil {
			t.Errorf("length %d of %d: %d, %v, %v", length, len(p), n, done, err)
		}
	})
}
