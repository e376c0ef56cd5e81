package web_test

import (
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strings"
	"testing"

	"reverseproxy/controlplane/internal/web"
)

// get asks for a path of the page.
func get(t *testing.T, method, path string, header ...string) *httptest.ResponseRecorder {
	t.Helper()
	mux := http.NewServeMux()
	web.Register(mux)
	r := httptest.NewRequest(method, path, nil)
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	web.Protect(mux).ServeHTTP(w, r)
	return w
}

// Each file is there under the type without which a browser would not use it, and
// names nothing that is not there.
func TestTheFiles(t *testing.T) {
	entries, err := os.ReadDir("static")
	if err != nil {
		t.Fatal(err)
	}
	mediaTypes := map[string]string{"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
	link := regexp.MustCompile(`(?:src|href)="(/[^"]*)"`)
	imported := regexp.MustCompile(`from "\./([^"]*)"`)
	for _, e := range entries {
		path := "/page/" + e.Name()
		if e.Name() == "index.html" {
			path = "/"
		}
		w := get(t, "GET", path)
		want := mediaTypes[e.Name()[strings.LastIndex(e.Name(), ".")+1:]]
		if got := w.Header().Get("Content-Type"); w.Code != http.StatusOK || want == "" || !strings.HasPrefix(got, want) {
			t.Errorf("%s: %d, type %q, want %q", path, w.Code, got, want)
		}
		body := w.Body.String()
		var named []string
		for _, m := range link.FindAllStringSubmatch(body, -1) {
			if m[1] == "/metrics" || m[1] == "/healthz" || m[1] == "/readyz" || strings.HasPrefix(m[1], "/api/") {
				continue // the admin server's
			}
			named = append(named, m[1])
		}
		for _, m := range imported.FindAllStringSubmatch(body, -1) {
			named = append(named, "/page/"+m[1])
		}
		for _, n := range named {
			if w := get(t, "GET", n); w.Code != http.StatusOK {
				t.Errorf("%s names %s, which is answered %d", path, n, w.Code)
			}
		}
	}
	if w := get(t, "GET", "/page/index.html"); w.Code != http.StatusNotFound {
		t.Errorf("the page has a second address: %d", w.Code)
	}
}

// What the policy forbids does not even stand there: a browser would stop it, and the
// page would not work.
func TestNothingInlineAndNothingFromElsewhere(t *testing.T) {
	entries, err := os.ReadDir("static")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		text, err := os.ReadFile("static/" + e.Name())
		if err != nil {
			t.Fatal(err)
		}
		for _, forbidden := range []string{
			`<script>`, `<style`, `\sstyle=`, `\son[a-z]+="`, `javascript:`, `innerHTML`, `outerHTML`, `insertAdjacentHTML`,
			`document\.write`, `eval\(`, `new Function`, `https?://[^w]`, `"//`, `url\(["h/]`, `@import`,
		} {
			if found := regexp.MustCompile(forbidden).Find(text); found != nil {
				t.Errorf("%s has %q", e.Name(), found)
			}
		}
	}
}

func TestTheHeaderFields(t *testing.T) {
	for _, path := range []string{"/", "/page/main.js", "/nowhere"} {
		h := get(t, "GET", path).Header()
		policy := h.Get("Content-Security-Policy")
		for _, directive := range []string{
			"default-src 'none'", "script-src 'self'", "style-src 'self'", "connect-src 'self'", "img-src 'self' data:", "base-uri 'none'",
			"form-action 'none'", "frame-ancestors 'none'", "require-trusted-types-for 'script'",
		} {
			if !strings.Contains("; "+policy+";", "; "+directive+";") {
				t.Errorf("%s: the policy %q lacks %s", path, policy, directive)
			}
		}
		if strings.Contains(policy, "unsafe") || strings.Contains(policy, "*") {
			t.Errorf("%s: the policy %q allows too much", path, policy)
		}
		for name, want := range map[string]string{
			"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "Cross-Origin-Resource-Policy": "same-origin",
		} {
			if got := h.Get(name); got != want {
				t.Errorf("%s: %s is %q, want %q", path, name, got, want)
			}
		}
	}
}

func TestAFileIsSentOnce(t *testing.T) {
	first := get(t, "GET", "/page/main.js")
	tag := first.Header().Get("ETag")
	if tag == "" || first.Header().Get("Cache-Control") != "no-cache" {
		t.Fatalf("header %v, want a tag, and that a browser asks each time", first.Header())
	}
	if w := get(t, "GET", "/page/main.js", "If-None-Match", tag); w.Code != http.StatusNotModified || w.Body.Len() != 0 {
		t.Errorf("with the newest tag: %d with %d bytes, want 304", w.Code, w.Body.Len())
	}
	if w := get(t, "GET", "/page/main.js", "If-None-Match", `"another"`); w.Code != http.StatusOK || w.Body.Len() == 0 {
		t.Errorf("with another tag: %d with %d bytes", w.Code, w.Body.Len())
	}
	if w := get(t, "HEAD", "/"); w.Code != http.StatusOK || w.Body.Len() != 0 || w.Header().Get("Content-Length") == "" {
		t.Errorf("HEAD: %d with %d bytes, header %v", w.Code, w.Body.Len(), w.Header())
	}
}

func TestReadOnly(t *testing.T) {
	for _, method := range []string{"POST", "PUT", "DELETE", "PATCH"} {
		for _, path := range []string{"/", "/page/main.js"} {
			if w := get(t, method, path); w.Code != http.StatusMethodNotAllowed || w.Header().Get("Allow") != "GET, HEAD" {
				t.Errorf("%s %s: %d, Allow %q", method, path, w.Code, w.Header().Get("Allow"))
			}
		}
	}
}
