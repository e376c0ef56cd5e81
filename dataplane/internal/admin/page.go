package admin

import (
	"bytes"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/expfmt"
)

// Page makes the metrics page for the proxy port, where anybody may ask for it:
// one page is made at a time, however many ask. Methods may be called from
// several goroutines.
type Page struct {
	metrics prometheus.Gatherer

	mu    sync.Mutex
	began time.Time // when body was begun
	body  []byte
}

// NewPage returns a page of the metrics.
func NewPage(metrics prometheus.Gatherer) *Page { return &Page{metrics: metrics} }

var pageFormat = expfmt.NewFormat(expfmt.TypeTextPlain)

// Get returns a page that is not older than the call. The caller must not change
// it.
func (p *Page) Get() (contentType string, body []byte) {
	asked := time.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	// Those who wait while a page is made share the next one.
	if !p.began.After(asked) {
		p.began = time.Now()
		p.body = p.make()
	}
	return string(pageFormat), p.body
}

// make shows what can be shown: the admin port tells and logs what cannot.
func (p *Page) make() []byte {
	families, _ := p.metrics.Gather()
	var b bytes.Buffer
	e := expfmt.NewEncoder(&b, pageFormat)
	for _, f := range families {
		_ = e.Encode(f) // a buffer takes everything; a family without samples is left out
	}
	return b.Bytes()
}
