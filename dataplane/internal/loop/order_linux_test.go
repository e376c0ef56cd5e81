package loop_test

import (
	"context"
	"io"
	"log/slog"
	"strings"
	"sync"
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
	asked, answer, answered := make(chan struct{}), make(chan struct{}), make(chan struct{})
	release := sync.OnceFunc(func() { close(answer) })
	defer release()
	o := serve(t, func(p *peer) {
		for {
			m, err := p.request()
			if err != nil {
				return
			}
			slow := strings.Contains(m.line, "/slow")
			if slow {
				close(asked)
				<-answer
			}
			if _, err := io.WriteString(p, ok); err != nil {
				return
			}
			if slow {
				close(answered)
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
	r.forgiven = 1
	const get = "GET / HTTP/1.1\r\nHost: a\r\n\r\n"
	clients := make([]*peer, 100) // more than a loop takes in one turn
	for i := range clients {
		clients[i] = dial(t, r.addr)
		clients[i].send(get).response()
	}
	slow := dial(t, r.addr).send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
	receive(t, asked)

	stop := func() {
		dial(t, r.addr).send("GET /broken HTTP/1.1\r\nHost: a\r\n\r\n")
		receive(t, log.stopped)
	}
	stop()
	clients[0].send(get)
	release()
	receive(t, answered)
	log.goOn <- struct{}{}
	slow.response()
	clients[0].response()
	if n := o.conns.Load(); n != 1 {
		t.Errorf("%d connections: the request did not wait for the answer", n)
	}

	r.forgiven++
	stop()
	for _, c := range clients {
		c.send(get)
	}
	log.goOn <- struct{}{}
	for i, c := range clients {
		if m := c.response(); m.body != "ok" {
			t.Errorf("client %d: %q", i, m.head)
		}
	}
}
