package admin

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io"
	"time"

	"reverseproxy/dataplane/internal/activate"
	"reverseproxy/dataplane/internal/health"
)

// configView is the answer of /config. Everything but endpoints is absent before
// the first route table.
type configView struct {
	Version   string         `json:"version,omitempty"`
	Revision  uint64         `json:"revision,omitempty"`
	Source    string         `json:"source,omitempty"`
	Port      uint16         `json:"port,omitempty"`    // as in the route table
	Address   string         `json:"address,omitempty"` // the proxy really listens on
	AppliedAt *time.Time     `json:"appliedAt,omitempty"`
	Endpoints []endpointView `json:"endpoints"` // empty; written one by one
}

type endpointView struct {
	Name   string        `json:"name"`
	Pool   []backendView `json:"pool"`
	Answer string        `json:"answer,omitempty"` // of an endpoint without a pool
}

type backendView struct {
	URL    string `json:"url"`
	Weight uint32 `json:"weight"`
	// Addresses of a backend that has a health check or a name.
	Addresses []addressView `json:"addresses,omitempty"`
}

type addressView struct {
	Address string    `json:"address"`
	Healthy bool      `json:"healthy"`
	Ejected bool      `json:"ejected"`
	Reason  string    `json:"reason,omitempty"` // why it is not healthy, or ejected
	Since   time.Time `json:"since"`
}

// writeConfig writes what is in force, nil for nothing. A large table is never
// in memory as a whole, neither described nor as text.
func writeConfig(out io.Writer, f *activate.InForce, h *health.Manager) error {
	v := configView{Endpoints: []endpointView{}}
	if f != nil {
		at := f.AppliedAt.UTC()
		v.Version, v.Revision, v.Source = f.Table.Version, f.Revision, string(f.Source)
		v.Port, v.Address, v.AppliedAt = f.Table.Port, f.Address, &at
	}
	var text bytes.Buffer
	encoder := func(prefix string) *json.Encoder {
		e := json.NewEncoder(&text)
		e.SetIndent(prefix, "  ")
		e.SetEscapeHTML(false)
		return e
	}
	if err := encoder("").Encode(v); err != nil {
		return err
	}
	w := bufio.NewWriter(out)
	if f == nil || f.Table.Len() == 0 {
		_, _ = w.Write(text.Bytes())
		return w.Flush()
	}
	const end = "]\n}\n" // of an object that ends in an empty list
	_, _ = w.Write(bytes.TrimSuffix(text.Bytes(), []byte(end)))
	between := ""
	each := encoder("    ")
	for name, d := range f.Table.Describe() {
		e := endpointView{Name: name, Pool: make([]backendView, 0, len(d.Pool)), Answer: d.Answer}
		for _, b := range d.Pool {
			e.Pool = append(e.Pool, backendView{URL: b.URL, Weight: b.Weight})
		}
		e.addresses(h)
		text.Reset()
		if err := each.Encode(e); err != nil {
			return err
		}
		_, _ = w.WriteString(between + "\n    ")
		if _, err := w.Write(bytes.TrimSuffix(text.Bytes(), []byte("\n"))); err != nil {
			return err
		}
		between = ","
	}
	_, _ = w.WriteString("\n  " + end)
	return w.Flush()
}

// addresses adds what is known about the addresses of the backends.
func (e *endpointView) addresses(h *health.Manager) {
	if h == nil {
		return
	}
	for _, m := range h.Members(e.Name) {
		for i := range e.Pool {
			if b := &e.Pool[i]; b.URL == m.URL {
				b.Addresses = append(b.Addresses, addressView{m.Address, m.Healthy, m.Ejected, m.Reason, m.Since.UTC()})
			}
		}
	}
}
