package admin_test

import (
	"cmp"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/codes"
	grpcstatus "google.golang.org/grpc/status"

	"reverseproxy/controlplane/internal/admin"
	"reverseproxy/controlplane/internal/status"
	"reverseproxy/controlplane/internal/traffic"
	routetablev1 "reverseproxy/proto/routetable/v1"
)

// played is a fleet whose revision counts how often it was asked.
type played struct {
	asked  uint64
	planes int
	slow   time.Duration
}

func (p *played) Status() status.Status {
	time.Sleep(p.slow)
	p.asked++
	s := status.Status{Revision: p.asked}
	for i := range p.planes {
		s.DataPlanes = append(s.DataPlanes, status.DataPlane{ID: fmt.Sprint("data plane ", i), State: "applied"})
	}
	return s
}

func (p *played) Endpoints(name string) ([]status.Endpoint, error) {
	if name == "unknown" {
		return nil, errors.New("there is no endpoint unknown")
	}
	return []status.Endpoint{{Name: "shop", Backends: []status.Backend{{URL: "http://shop:80"}}}}, nil
}

func (p *played) Look() *status.Look {
	table := &routetablev1.RouteTable{}
	for _, name := range []string{"blog", "shop"} {
		table.Endpoints = append(table.Endpoints, &routetablev1.Endpoint{
			Name: name, Hosts: []string{name + ".example.com"}, Path: &routetablev1.Endpoint_Exact{Exact: "/"},
		})
	}
	return status.NewLook(table, traffic.Rates{}, traffic.Series{})
}

func (p *played) Rollout() *status.Rollout {
	if p.planes == 0 {
		return nil
	}
	return &status.Rollout{Revision: 7, Phase: "baking"}
}

func (p *played) History(context.Context) (status.History, error) {
	return status.History{Revisions: []status.Revision{{Revision: 7}}}, nil
}

func (p *played) Diff(_ context.Context, from, to uint64) (status.Diff, error) {
	switch from {
	case 8:
		return status.Diff{}, grpcstatus.Error(codes.NotFound, "there is no revision 8")
	case 9:
		return status.Diff{}, grpcstatus.Error(codes.DataLoss, "its checksum is wrong")
	}
	return status.Diff{From: from, To: cmp.Or(to, 7)}, nil
}

// get asks the admin server, with pairs of header fields.
func get(t *testing.T, h http.Handler, method, path string, header ...string) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequest(method, path, nil)
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func server(p *played) http.Handler {
	return admin.NewServer(prometheus.NewRegistry(), p, func() bool { return true }, slog.New(slog.DiscardHandler)).Handler
}

func TestWhoDoesNotSayOtherwiseIsToldTheNewest(t *testing.T) {
	h := server(&played{})
	for n := 1; n <= 3; n++ {
		if body := get(t, h, "GET", "/api/v1/status").Body.String(); !strings.Contains(body, fmt.Sprintf(`"revision": %d,`, n)) {
			t.Errorf("answer %d: %s", n, body)
		}
	}
}

// Any number of pages cost what one costs.
func TestReadersShareAnAnswerThatIsNewEnough(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &played{}
		h := server(p)
		ask := func(want uint64, age string) {
			t.Helper()
			w := get(t, h, "GET", "/api/v1/status", "Cache-Control", "max-age=1")
			if p.asked != want || w.Header().Get("Age") != age {
				t.Errorf("the fleet was asked %d times, age %s; want %d, age %s", p.asked, w.Header().Get("Age"), want, age)
			}
		}
		ask(1, "0")
		ask(1, "0")
		time.Sleep(999 * time.Millisecond)
		ask(1, "0")
		time.Sleep(time.Millisecond)
		ask(2, "0")
		for i, directive := range []string{"", "no-cache", "max-age=0", "max-age=x", "max-age=-1", "max-age=99999999999"} {
			get(t, h, "GET", "/api/v1/status", "Cache-Control", directive)
			if p.asked != uint64(3+i) {
				t.Errorf("%q is given an old answer", directive)
			}
		}
		// One that is expensive is made less often.
		p.slow = 200 * time.Millisecond
		get(t, h, "GET", "/api/v1/status")
		time.Sleep(3999 * time.Millisecond)
		ask(9, "3")
		time.Sleep(time.Millisecond)
		ask(10, "0")
	})
}

func TestAnAnswerThatIsKnownIsNotSentAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := server(&played{planes: 100})
		tag := get(t, h, "GET", "/api/v1/status").Header().Get("ETag")
		again := []string{"If-None-Match", tag, "Cache-Control", "max-age=1"}
		if w := get(t, h, "GET", "/api/v1/status", again...); w.Code != http.StatusNotModified || w.Body.Len() != 0 {
			t.Errorf("%d with %d bytes, want 304", w.Code, w.Body.Len())
		}
		time.Sleep(time.Second)
		if w := get(t, h, "GET", "/api/v1/status", again...); w.Code != http.StatusOK || w.Header().Get("ETag") == tag {
			t.Errorf("%d, tag %s after a change", w.Code, w.Header().Get("ETag"))
		}
	})
}

func TestALargeAnswerIsCompressed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := server(&played{planes: 1000})
		plain := get(t, h, "GET", "/api/v1/status")
		zipped := get(t, h, "GET", "/api/v1/status", "Accept-Encoding", "gzip, br", "Cache-Control", "max-age=1")
		if zipped.Header().Get("Content-Encoding") != "gzip" || zipped.Header().Get("Vary") != "Accept-Encoding" || zipped.Body.Len() > plain.Body.Len()/10 {
			t.Errorf("%d bytes of %d, header %v", zipped.Body.Len(), plain.Body.Len(), zipped.Header())
		}
		z, err := gzip.NewReader(zipped.Body)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(z); err != nil || string(got) != plain.Body.String() {
			t.Errorf("compressed it is another document: %v", err)
		}
	})
	if w := get(t, server(&played{}), "GET", "/api/v1/status", "Accept-Encoding", "gzip"); w.Header().Get("Content-Encoding") != "" {
		t.Error("a small answer is compressed")
	}
}

func TestQuestions(t *testing.T) {
	h := server(&played{})
	for path, want := range map[string]struct {
		code  int
		part  string
		lacks string
	}{
		"/api/v1/status":                         {200, `"unhealthyBackends"`, "shop"},
		"/api/v1/status?endpoint=shop":           {200, `"name": "shop"`, "blog"},
		"/api/v1/status?endpoints=all":           {200, `"name": "shop"`, "rates"},
		"/api/v1/status?endpoint=unknown":        {404, "no endpoint unknown", ""},
		"/api/v1/status?endpoints=several":       {400, "endpoint=NAME", ""},
		"/api/v1/endpoints":                      {200, `"matching":2,`, "backends"},
		"/api/v1/endpoints?search=SHOP":          {200, `"name":"shop"`, "blog"},
		"/api/v1/endpoints?search=blog.example":  {200, `"name":"blog"`, "shop"},
		"/api/v1/endpoints?limit=0":              {200, `"matching":2,"endpoints":[]`, "shop"},
		"/api/v1/endpoints?limit=1":              {200, `"name":"blog"`, "shop"},
		"/api/v1/endpoints?limit=-1":             {400, "from 0 to 1000", ""},
		"/api/v1/endpoints?limit=1001":           {400, "from 0 to 1000", ""},
		"/api/v1/endpoints?limit=few":            {400, "from 0 to 1000", ""},
		"/api/v1/endpoints?endpoint=shop":        {200, `"url":"http://shop:80"`, "blog"},
		"/api/v1/endpoints?endpoint=unknown":     {404, "no endpoint unknown", ""},
		"/api/v1/endpoints?endpoint=shop&limit=": {200, `"url":"http://shop:80"`, "blog"},
		"/api/v1/rollout":                        {200, "null\n", ""},
		"/api/v1/history":                        {200, `"revision": 7`, ""},
		"/api/v1/diff?from=3&to=5":               {200, `"to": 5`, ""},
		"/api/v1/diff?from=3":                    {200, `"to": 7`, ""},
		"/api/v1/diff?from=8":                    {404, "there is no revision 8\n", "NotFound"},
		"/api/v1/diff?from=9":                    {500, "its checksum is wrong\n", "DataLoss"},
		"/api/v1/diff":                           {400, "from is the number", ""},
		"/api/v1/diff?from=0":                    {400, "from is the number", ""},
		"/api/v1/diff?from=-1":                   {400, "from is the number", ""},
		"/api/v1/diff?from=1&to=x":               {400, "to is the number", ""},
	} {
		w := get(t, h, "GET", path)
		if w.Code != want.code || !strings.Contains(w.Body.String(), want.part) || want.lacks != "" && strings.Contains(w.Body.String(), want.lacks) {
			t.Errorf("%s: %d %q, want %d with %q, without %q", path, w.Code, w.Body, want.code, want.part, want.lacks)
		}
	}
}

func TestTheRollout(t *testing.T) {
	if w := get(t, server(&played{planes: 1}), "GET", "/api/v1/rollout"); !strings.Contains(w.Body.String(), `"phase": "baking"`) {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

func TestReadOnly(t *testing.T) {
	h := server(&played{})
	for _, path := range []string{"/", "/api/v1/status", "/api/v1/endpoints", "/api/v1/rollout", "/api/v1/history", "/api/v1/diff", "/metrics", "/healthz", "/readyz"} {
		w := get(t, h, "POST", path)
		if w.Code != http.StatusMethodNotAllowed || w.Header().Get("Allow") != "GET, HEAD" || w.Header().Get("Content-Security-Policy") == "" {
			t.Errorf("POST %s: %d, header %v", path, w.Code, w.Header())
		}
	}
}
