package proxy_test

import (
	"fmt"
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	routetablev1 "reverseproxy/proto/routetable/v1"
)

// trial is many exchanges over several connections, in which backends fail in
// every way at any moment.
type trial struct {
	*world
	random *rand.Rand

	clients  []*trialClient
	origins  []*trialOrigin
	seen     int            // of world.dialled
	reached  map[string]int // attempts that a backend has had something of, by request
	methods  map[string]string
	requests int
	tables   []*routetablev1.RouteTable // one of which is in force
}

// trialClient is a client's connection, with one request at a time.
type trialClient struct {
	*end
	id       string // of the request in progress; empty: there is none
	left     string // of it, not sent yet
	got      string // since it began
	departed bool
}

// trialOrigin is a backend's connection.
type trialOrigin struct {
	*end
	got      string // of the request in progress
	reported bool   // it counts as an attempt
	used     bool   // has answered a request
	gone     bool   // has had its EOF
}

var trialLine = regexp.MustCompile(`^[A-Z]+ /(id[0-9]+) `)

var trialHead = regexp.MustCompile(`^([A-Z]+) /(id[0-9]+) HTTP/1\.1\r\n(?s:.*?)Content-Length: ([0-9]+)(?s:.*?)\r\n\r\n`)

var trialResponse = regexp.MustCompile(`^HTTP/1\.1 ([0-9]+) (?s:.*?)Content-Length: ([0-9]+)(?s:.*?)\r\n\r\n`)

const trialAttempts = 3

// trialTables are tables of one endpoint: of the first nothing is limited, of the others
// the endpoint, its backends, or both.
func trialTables() (all []*routetablev1.RouteTable) {
	for i := range uint32(4) {
		e := retrying(3, func(r *routetablev1.Retry) { r.Attempts, r.PerTryTimeout = trialAttempts, durationpb.New(time.Second) })
		e.Timeouts.Request = durationpb.New(20 * time.Second)
		path := []*routetablev1.Header{field("X-Path", "${path}")}
		e.RequestHeaders, e.ResponseHeaders = &routetablev1.HeaderEdits{Set: path}, &routetablev1.HeaderEdits{Set: path}
		e.MaxRequests = i % 2 * 3
		for j := range e.Pool[i/2:] {
			e.Pool[j].MaxRequests = i / 2
		}
		if i > 0 {
			e.Queue = &routetablev1.Queue{Size: 3, Timeout: durationpb.New(time.Second)}
		}
		all = append(all, wire(e))
	}
	return all
}

func newTrial(t *testing.T, seed uint64) *trial {
	tables := trialTables()
	tr := &trial{
		world: newWorldOf(t, tables[seed%4]), random: rand.New(rand.NewPCG(seed, 11)), reached: map[string]int{}, methods: map[string]string{}, tables: tables,
	}
	for range 4 {
		tr.clients = append(tr.clients, &trialClient{end: tr.accept()})
	}
	return tr
}

// TestRetryRandomly: whatever fails, each request has exactly one response, no more
// attempts than allowed reach backends, and one that is not idempotent reaches one at
// most; also while it waits in line, and the limits change.
func TestRetryRandomly(t *testing.T) {
	total, again := 0, map[string]float64{}
	for seed := range uint64(400) {
		tr := newTrial(t, seed)
		for range 250 {
			tr.step(true)
		}
		for steps := 0; tr.busy(); steps++ {
			if steps > 20_000 {
				t.Fatalf("seed %d does not end", seed)
			}
			tr.step(false)
		}
		for id, n := range tr.reached {
			if n > trialAttempts || n > 1 && tr.methods[id] == "POST" {
				t.Errorf("%d attempts of %s %s", n, tr.methods[id], id)
			}
		}
		tr.runPosted()
		if n := tr.inFlight(); n != 0 {
			t.Errorf("%d requests in flight at the end", n)
		}
		tr.apply(tr.tables[3])
		if n := tr.inside(); n != 0 {
			t.Errorf("%d requests let in at the end", n)
		}
		tr.wantQueued(0)
		total, again = total+tr.requests, tr.counts("dataplane_retries_total", "reason")
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
	t.Logf("%d requests, %v of the last trial sent again", total, again)
}

func (tr *trial) busy() bool {
	return slices.ContainsFunc(tr.clients, func(c *trialClient) bool { return c.id != "" && !c.closed })
}

// step lets one thing happen. Only with chaos do backends fail and new requests
// come.
func (tr *trial) step(chaos bool) {
	for ; tr.seen < len(tr.dialled); tr.seen++ {
		tr.origins = append(tr.origins, &trialOrigin{end: tr.dialled[tr.seen]})
	}
	if tr.random.IntN(3) == 0 {
		tr.runPosted()
	}
	switch n := tr.random.IntN(10); {
	case chaos && tr.random.IntN(50) == 0:
		tr.apply(tr.tables[tr.random.IntN(len(tr.tables))])
	case n < 4:
		tr.client(tr.random.IntN(len(tr.clients)), chaos)
	case n < 9 && len(tr.origins) > 0:
		tr.origin(tr.origins[tr.random.IntN(len(tr.origins))], chaos)
	default:
		ends := make([]*end, 0, len(tr.clients)+len(tr.origins))
		for _, c := range tr.clients {
			ends = append(ends, c.end)
		}
		for _, o := range tr.origins {
			if !o.dialling {
				ends = append(ends, o.end)
			}
		}
		tr.pass(time.Duration(tr.random.IntN(100))*time.Millisecond, ends...)
	}
	tr.origins = slices.DeleteFunc(tr.origins, func(o *trialOrigin) bool { tr.look(o); return o.closed })
	for _, c := range tr.clients {
		tr.listen(c)
	}
}

// client lets a client begin a request, send more of it, or leave.
func (tr *trial) client(i int, chaos bool) {
	c := tr.clients[i]
	switch {
	case c.closed:
		tr.clients[i] = &trialClient{end: tr.accept()}
	case c.shut && !c.departed:
		c.departed = true
		tr.eof(c.end, nil)
	case c.id == "" && chaos && !c.departed:
		tr.requests++
		c.id, c.got = fmt.Sprintf("id%d", tr.requests), ""
		method := []string{"GET", "PUT", "POST"}[tr.random.IntN(3)]
		size := tr.random.IntN(30)
		if tr.random.IntN(20) == 0 {
			size = 80_000
		}
		tr.methods[c.id] = method
		c.left = fmt.Sprintf("%s /%s HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%s", method, c.id, size, strings.Repeat("x", size))
	case c.left != "" && !c.paused && !c.departed:
		n := min(1+tr.random.IntN(len(c.left)), 60_000)
		p := c.left[:n]
		c.left = c.left[n:]
		tr.data(c.end, p)
	case chaos && c.id != "" && !c.departed && tr.random.IntN(60) == 0:
		c.id, c.left, c.departed = "", "", true
		tr.eof(c.end, errReset)
	}
}

// listen checks what a client has been sent: one response, whole unless its
// connection has ended.
func (tr *trial) listen(c *trialClient) {
	c.got += c.take()
	m := trialResponse.FindStringSubmatch(c.got)
	size := 0
	if m != nil {
		_, _ = fmt.Sscan(m[2], &size)
		size += len(m[0])
	}
	switch {
	case c.got == "" && !c.closed, c.got != "" && !c.closed && (m == nil || len(c.got) < size):
		return // there is more to come
	case c.got != "" && (c.id == "" || m == nil || len(c.got) > size):
		tr.Errorf("to request %q: %q", c.id, c.got)
	case len(c.got) == size && c.got != "" && m[1] == "200" && !strings.HasSuffix(c.got, "\r\n\r\n"+c.id+"."):
		tr.Errorf("to request %q the response to another: %q", c.id, c.got)
	case c.got != "" && strings.Count(c.got, "\r\nX-Path: /"+c.id+"\r\n") != 1:
		tr.Errorf("to request %q without its path: %q", c.id, c.got)
	case c.got == "" && c.id != "":
		tr.Errorf("no response to %q", c.id)
	}
	c.id, c.left, c.got = "", "", ""
}

// look counts an attempt when its first byte has come.
func (tr *trial) look(o *trialOrigin) {
	o.got += o.take()
	if head, _, whole := strings.Cut(o.got, "\r\n\r\n"); whole && strings.Count(head+"\r\n", "\r\nX-Path: "+strings.Fields(head)[1]+"\r\n") != 1 {
		tr.Errorf("to a backend without its path: %q", head)
	}
	if m := trialLine.FindStringSubmatch(o.got); m != nil && !o.reported {
		o.reported = true
		tr.reached[m[1]]++
	}
}

// origin lets a backend connect, answer or fail.
func (tr *trial) origin(o *trialOrigin, chaos bool) {
	bad := chaos && tr.random.IntN(2) == 0
	switch {
	case o.closed || o.gone:
	case o.dialling && bad:
		tr.failDial(o.end, tr.random.IntN(2) == 0)
	case o.dialling:
		tr.connect(o.end)
	case bad && !o.paused && tr.random.IntN(3) == 0:
		if id := tr.complete(o); id != "" && o.used && tr.methods[id] != "POST" {
			tr.reached[id]-- // by all appearances it came too late
		}
		o.gone = true
		tr.eof(o.end, []error{nil, errReset}[tr.random.IntN(2)])
	case !o.paused:
		tr.respond(o, bad)
	}
}

// complete returns the request that has come whole, empty if there is none.
func (tr *trial) complete(o *trialOrigin) (id string) {
	tr.look(o)
	m := trialHead.FindStringSubmatch(o.got)
	if m == nil {
		return ""
	}
	size := 0
	_, _ = fmt.Sscan(m[3], &size)
	if len(o.got) < len(m[0])+size {
		return ""
	}
	return m[2]
}

// respond answers a request that is complete.
func (tr *trial) respond(o *trialOrigin, bad bool) {
	id := tr.complete(o)
	if id == "" {
		return
	}
	o.got, o.reported, o.used = "", false, true
	response := fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s.", len(id)+1, id)
	switch {
	case bad && tr.random.IntN(2) == 0:
		response = strings.Replace(busy, "503", []string{"502", "503", "504"}[tr.random.IntN(3)], 1)
	case bad:
		response = response[:1+tr.random.IntN(len(response)-1)]
		defer func() {
			o.gone = true
			tr.eof(o.end, errReset)
		}()
	}
	cut := 1 + tr.random.IntN(len(response))
	tr.data(o.end, response[:cut])
	if cut < len(response) && !o.paused {
		tr.data(o.end, response[cut:])
	}
}
