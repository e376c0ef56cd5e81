package loop_test

import (
	"context"
	"io"
	"log/slog"
	"strings"
	"testing"

	"reverseproxy/dataplane/internal/loop"
)

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

// TestAnswersBeforeRequests: of what has come while a loop was busy it takes the answers
// first, so that requests find the connections that these came on. (The portable driver
// takes everything as it comes.)
func TestAnswersBeforeRequests(t *testing.T) {
	get := func(path string) string { return "GET " + path + " HTTP/1.1\r\nHost: a\r\n\r\n" }
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
	log := stopper{slog.DiscardHandler, make(chan struct{}, 1), make(chan struct{})}
	r := start(t, "epoll", endpoint("/*", o.url), endpoint("/broken", o.url), options(func(o *loop.Options) {
		o.Threads, o.Log = 1, slog.New(log)
	}))
	defer close(log.goOn)
	r.live.Load().Endpoint("/broken").Pool = nil // which is a panic, and that is logged
	r.live.Store(r.live.Load())
	stop := func() {
		r.forgiven++
		dial(t, r.addr).send(get("/broken"))
		receive(t, log.stopped)
	}
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
		stop()
		clients[0].send(get("/next"))
		answer <- struct{}{}
		receive(t, answered)
		log.goOn <- struct{}{}
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

	stop()
	for _, c := range clients {
		c.send(get("/"))
	}
	log.goOn <- struct{}{}
	for i, c := range clients {
		if m := c.response(); m.body != "ok" {
			t.Errorf("client %d: %q", i, m.head)
		}
	}
}
