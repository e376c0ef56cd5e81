package loop_test

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestDifferential: random exchanges of another HTTP implementation, at both
// ends, give the same through the proxy as without it. Some backends break off;
// then both must fail.
func TestDifferential(t *testing.T) { onEachDriver(t, testDifferential) }

func testDifferential(t *testing.T, driver string) {
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		in := sha256.New()
		q := r.URL.Query()
		number := func(name string) int { n, _ := strconv.Atoi(q.Get(name)); return n }
		if number("early") == 0 {
			if _, err := io.Copy(in, r.Body); err != nil {
				panic(http.ErrAbortHandler)
			}
		}
		w.Header().Set("X-Request", fmt.Sprintf("%s %s %x %s", r.Method, r.URL, in.Sum(nil), r.Trailer.Get("T")))
		size := number("size")
		if number("length") == 1 {
			w.Header().Set("Content-Length", strconv.Itoa(size))
		} else {
			w.Header().Set("Trailer", "End")
		}
		w.WriteHeader(number("status"))
		data := body(size)
		half := len(data) / 2
		_, _ = io.WriteString(w, data[:half])
		if number("flush") == 1 {
			_ = http.NewResponseController(w).Flush()
		}
		if number("cut") == 1 {
			panic(http.ErrAbortHandler)
		}
		_, _ = io.WriteString(w, data[half:])
		w.Header().Set("End", "x")
	}))
	defer backend.Close()
	r := start(t, driver, endpoint("/*", backend.URL))

	type result struct {
		Status    int
		Request   string
		Length    int64
		Sum       string
		End       string
		Failed    bool
		Truncated bool
	}
	ask := func(client *http.Client, base, method, query string, send []byte, chunked bool) result {
		var content io.Reader = bytes.NewReader(send)
		if chunked {
			content = struct{ io.Reader }{content}
		}
		request, err := http.NewRequestWithContext(t.Context(), method, base+"/x?"+query, content)
		if err != nil {
			t.Error(err)
			return result{}
		}
		if chunked {
			request.Trailer = http.Header{"T": {"y"}}
		}
		response, err := client.Do(request)
		if err != nil {
			return result{Failed: true}
		}
		defer func() { _ = response.Body.Close() }()
		out := sha256.New()
		n, err := io.Copy(out, response.Body)
		if err != nil {
			return result{Status: response.StatusCode, Truncated: true}
		}
		return result{
			Status: response.StatusCode, Request: response.Header.Get("X-Request"),
			Length: n, Sum: fmt.Sprintf("%x", out.Sum(nil)), End: response.Trailer.Get("End"),
		}
	}
	var all sync.WaitGroup
	for worker := range uint64(8) {
		all.Go(func() {
			random := rand.New(rand.NewPCG(worker, 3))
			transport := &http.Transport{DisableCompression: true}
			defer transport.CloseIdleConnections()
			client := &http.Client{Transport: transport}
			direct := &http.Client{Transport: &http.Transport{DisableCompression: true, DisableKeepAlives: true}}
			for i := range 60 {
				pick := func(of ...string) string { return of[random.IntN(len(of))] }
				method := pick("GET", "HEAD", "POST", "PUT", "DELETE", "FROB")
				size := random.IntN(3) * random.IntN(200_000)
				status := pick("200", "200", "404", "500", "204", "304")
				cut := 0
				if size > 10 && random.IntN(10) == 0 {
					// With a body: a backend that closes after a complete response,
					// without saying so, may take the next POST with it.
					cut, method, status = 1, "GET", "200"
				}
				query := fmt.Sprintf("status=%s&size=%d&length=%d&flush=%d&cut=%d", status, size, random.IntN(2), max(cut, random.IntN(2)), cut)
				send := []byte(body(random.IntN(3) * random.IntN(200_000)))
				chunked := random.IntN(2) == 0
				if strings.Contains("GET HEAD", method) {
					send, chunked = nil, false
				}
				want := ask(direct, backend.URL, method, query, send, chunked)
				got := ask(client, "http://"+r.addr, method, query, send, chunked)
				if want.Failed && got.Status == http.StatusBadGateway {
					continue // a connection broken off before the response
				}
				if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("worker %d, request %d: %s %s, %d bytes, chunked %t (-direct +proxy):\n%s", worker, i, method, query, len(send), chunked, diff)
				}
			}
		})
	}
	all.Wait()
}
