// Package web is the page that shows the fleet to people: files that the program
// carries, and the header fields that keep a browser from running anything else.
// What the page shows it reads from the admin server as JSON; it changes nothing.
package web

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"io/fs"
	"net/http"
	"path"
	"strings"
	"time"
)

//go:embed static
var embedded embed.FS

// policy is strict because ids, labels and errors come from whoever connects: a
// browser runs and loads what this server serves as a file, and nothing else. With
// trusted types even the page's own scripts cannot turn a text into HTML.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'; trusted-types 'none'; require-trusted-types-for 'script'"

// Protect sets the fields that tell a browser how little it may do with any answer.
func Protect(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", policy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		next.ServeHTTP(w, r)
	})
}

// types are the media types of the files. The system's table is not asked: a
// browser that must not guess refuses a script of another type.
var types = map[string]string{
	".html": "text/html; charset=utf-8",
	".css":  "text/css; charset=utf-8",
	".js":   "text/javascript; charset=utf-8",
	".svg":  "image/svg+xml",
}

// Register adds the page at / and its files below /page/.
func Register(mux *http.ServeMux) {
	err := fs.WalkDir(embedded, "static", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		body, err := embedded.ReadFile(name)
		if err != nil {
			return err
		}
		pattern := "GET /page/" + strings.TrimPrefix(name, "static/")
		if name == "static/index.html" {
			pattern = "GET /{$}"
		}
		mux.Handle(pattern, file(types[path.Ext(name)], body))
		return nil
	})
	if err != nil {
		panic(fmt.Sprintf("web: files in the program can always be read: %v", err))
	}
}

// file answers with a file. A browser asks each time whether its copy is still the
// newest, so that a new program never runs with an old script.
func file(mediaType string, body []byte) http.Handler {
	sum := sha256.Sum256(body)
	tag := `"` + hex.EncodeToString(sum[:8]) + `"`
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Type", mediaType)
		h.Set("Cache-Control", "no-cache")
		h.Set("ETag", tag)
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(body))
	})
}
