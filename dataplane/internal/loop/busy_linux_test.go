package loop_test

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"reverseproxy/dataplane/internal/loop"
)

// busyRig is a server of the epoll driver with one loop that can be stopped, so that a
// test knows what it finds when it goes on. (The portable driver takes everything as it
// comes.)
type busyRig struct {
	*rig
	log stopper
}

// stopper is a log that holds up who writes to it.
type stopper struct {
	slog.Handler
	stopped, goOn chan struct{}
}

func (stopper) Enabled(context.Context, slog.Level) bool { return true }

func (s stopper) Handle(context.Context, slog.Record) error {
	s.stopped <- struct{}{}
	<-s.goOn
	return nil
}

func startBusy(t *testing.T, backend string) *busyRig {
	t.Helper()
	log := stopper{slog.DiscardHandler, make(chan struct{}, 1), make(chan struct{})}
	r := start(t, "epoll", endpoint("/*", backend), endpoint("/broken", backend), options(func(o *loop.Options) {
		o.Threads, o.Log = 1, slog.New(log)
	}))
	t.Cleanup(func() { close(log.goOn) })
	r.live.Load().Endpoint("/broken").Pool = nil // which is a panic, and that is logged
	r.live.Store(r.live.Load())
	return &busyRig{r, log}
}

// stop has the loop do nothing until goOn.
func (r *busyRig) stop(t *testing.T) {
	t.Helper()
	r.forgiven++
	dial(t, r.addr).send(get("/broken"))
	receive(t, r.log.stopped)
}

func (r *busyRig) goOn() { r.log.goOn <- struct{}{} }

func get(path string) string { return "GET " + path + " HTTP/1.1\r\nHost: a\r\n\r\n" }

// TestAnswersBeforeRequests: of what has come while a loop was busy it takes the answers
// first, so that requests find the connections that these came on.
func TestAnswersBeforeRequests(t *testing.T) {
	// On which connections the requests come that matter.
	slow, next := make(chan *peer, 1), make(chan *peer, 1)
	answer, answered := make(chan struct{}), make(chan struct{}, 1)
	defer close(answer)
	o := serve(t, func(p *peer) {
		for {
			m, err := p.request()
			if err != nil {
				return
			}
			isSlow := strings.Contains(m.line, "/slow")
			switch {
			case isSlow:
				slow <- p
				<-answer
			case strings.Contains(m.line, "/next"):
				next <- p
			}
			if _, err := io.WriteString(p, ok); err != nil {
				return
			}
			if isSlow {
				answered <- struct{}{}
			}
		}
	})
	r := startBusy(t, o.url)
	clients := make([]*peer, 100) // more than a loop takes in one turn
	for i := range clients {
		clients[i] = dial(t, r.addr)
		clients[i].send(get("/")).response()
	}
	patient := dial(t, r.addr)

	// A busy kernel may deliver the answer only after the loop has gone on.
	const attempts = 20
	for i := 0; ; i++ {
		patient.send(get("/slow"))
		from := receive(t, slow)
		r.stop(t)
		clients[0].send(get("/next"))
		answer <- struct{}{}
		receive(t, answered)
		r.goOn()
		to := receive(t, next)
		patient.response()
		clients[0].response()
		if from == to {
			break
		}
		if i == attempts {
			t.Fatal("the request did not wait for the answer")
		}
	}

	r.stop(t)
	for _, c := range clients {
		c.send(get("/"))
	}
	r.goOn()
	for i, c := range clients {
		if m := c.response(); m.body != "ok" {
			t.Errorf("client %d: %q", i, m.head)
		}
	}
}

// TestBusyLoop: what a loop that has much to do sends, it sends later, but all of it, in
// order, and before it closes.
func TestBusyLoop(t *testing.T) {
	const each, rounds = 8, 3 // of each kind of client; in the first round all connections are new
	head := func(fields string) string { return "HTTP/1.1 200 OK\r\n" + fields + "\r\n" }
	sized := func(n int) string { return head(fmt.Sprintf("Content-Length: %d\r\n", n)) }
	type kind struct {
		name     string
		request  string // what a client sends while the loop is stopped; "": a GET
		later    string // and afterwards
		requests int    // in what it sends; 0: one
		first    string // what the backend answers to each while the loop is stopped
		rest     []string
		ends     bool     // the client's connection does
		want     []string // in the bodies of what the client gets
	}
	kinds := []kind{
		{name: "short", first: ok, want: []string{"ok"}},
		{
			name: "last", request: "GET /last HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
			first: ok, ends: true, want: []string{"ok"},
		},
		{
			name: "old", request: "GET /old HTTP/1.0\r\n\r\n",
			first: head("Transfer-Encoding: chunked\r\n") + "2\r\nok\r\n0\r\n\r\n", ends: true, want: []string{"ok"},
		},
		{name: "pipelined", request: strings.Repeat(get("/pipelined"), 3), requests: 3, first: ok, want: []string{"ok", "ok", "ok"}},
		{
			name: "upload", request: "POST /upload HTTP/1.1\r\nHost: a\r\nContent-Length: 50000\r\n\r\n", later: body(50_000),
			first: ok, want: []string{"ok"},
		},
		{name: "pieces", first: sized(9), rest: []string{"one", "two", "six"}, want: []string{"onetwosix"}},
		{name: "early", first: "HTTP/1.1 103 Early Hints\r\n\r\n", rest: []string{ok}, want: []string{"", "ok"}},
		{name: "hinted", first: "HTTP/1.1 103 Early Hints\r\n\r\n" + sized(20_000) + body(20_000), want: []string{"", body(20_000)}},
		{
			name: "tunnel", request: "GET /tunnel HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
			first: "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\nok", ends: true, want: []string{"ok"},
		},
		{name: "unsized", first: head("Connection: close\r\n") + "one", want: []string{"3\r\none\r\n0\r\n\r\n"}},
		{name: "medium", first: sized(20_000), rest: []string{body(20_000)}, want: []string{body(20_000)}},
		{name: "large", first: sized(1 << 20), rest: []string{body(1 << 20)}, want: []string{body(1 << 20)}},
	}
	// A round of requests, which are answered when answer is closed, and wholly when whole is.
	type round struct{ answer, whole chan struct{} }
	var now atomic.Pointer[round]
	const all = 1000
	asked, answered := make(chan struct{}, all), make(chan struct{}, all)
	o := serve(t, func(p *peer) {
		for {
			m, err := p.request()
			if err != nil {
				return
			}
			n, r := now.Load(), strings.Fields(m.line)[1][1:]
			k := kinds[slices.IndexFunc(kinds, func(k kind) bool { return k.name == r })]
			asked <- struct{}{}
			<-n.answer
			_, err = io.WriteString(p, k.first)
			if k.name == "tunnel" {
				_ = p.CloseWrite()
			}
			answered <- struct{}{}
			<-n.whole
			for _, piece := range k.rest {
				if err == nil {
					_, err = io.WriteString(p, piece)
				}
			}
			if err != nil || k.name == "unsized" || k.name == "tunnel" {
				return
			}
		}
	})
	r := startBusy(t, o.url)
	clients := make([]*peer, each*len(kinds))
	for range rounds {
		n := &round{make(chan struct{}), make(chan struct{})}
		now.Store(n)
		for i := range clients {
			if clients[i] == nil {
				clients[i] = dial(t, r.addr)
			}
		}
		r.stop(t)
		requests := 0
		for i, c := range clients {
			k := kinds[i%len(kinds)]
			c.send(cmp.Or(k.request, get("/"+k.name)))
			requests += max(k.requests, 1)
		}
		r.goOn()
		for i, c := range clients {
			c.send(kinds[i%len(kinds)].later)
		}
		for range clients {
			receive(t, asked)
		}
		r.stop(t)
		close(n.answer)
		for range clients {
			receive(t, answered)
		}
		r.goOn()
		close(n.whole)
		for i, c := range clients {
			k := kinds[i%len(kinds)]
			for _, want := range k.want {
				m := c.response()
				if k.ends {
					rest, _ := c.rest()
					m.body += rest
					clients[i] = nil
				}
				if m.body != want {
					t.Fatalf("%s: head %q and a body of %d bytes, want %d", k.name, m.head, len(m.body), len(want))
				}
			}
		}
		for range requests - len(clients) {
			receive(t, asked)
			receive(t, answered)
		}
	}
}

// TestBusyLoopAndFullSockets: the last response of a connection arrives whole, however
// much of it the operating system takes when the loop gets to send it.
func TestBusyLoopAndFullSockets(t *testing.T) {
	const clients, step = 100, 120 // first responses of step, 2*step, ... bytes more than least
	const least = 4 << 10
	final := fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", 3000, body(3000))
	asked, answered, answer := make(chan struct{}, clients), make(chan struct{}, clients), make(chan struct{})
	o := serve(t, func(p *peer) {
		for {
			m, err := p.request()
			if err != nil {
				return
			}
			size, err := strconv.Atoi(strings.Fields(m.line)[1][1:])
			response := final
			if err == nil {
				response = fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", size, body(size))
			} else {
				asked <- struct{}{}
				<-answer
			}
			if _, err := io.WriteString(p, response); err != nil {
				return
			}
			if response == final {
				answered <- struct{}{}
			}
		}
	})
	r := startBusy(t, o.url)
	smallSendBuffers(t, r.addr)
	readers := make([]*peer, clients)
	for i := range readers {
		readers[i] = dialSmall(t, r.addr)
		readers[i].send(get(fmt.Sprint("/", least+i*step)) + "GET /last HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
	}
	for range clients {
		receive(t, asked)
	}
	r.stop(t)
	close(answer)
	for range clients {
		receive(t, answered)
	}
	r.goOn()
	for i, c := range readers {
		if m := c.response(); len(m.body) != least+i*step {
			t.Fatalf("first response of %d bytes, want %d", len(m.body), least+i*step)
		}
		if all, _ := c.rest(); !strings.HasSuffix(all, "\r\n\r\n"+body(3000)) {
			t.Errorf("behind %d bytes: %d bytes of the last response", least+i*step, len(all))
		}
	}
}
