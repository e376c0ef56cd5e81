package activate_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"reverseproxy/dataplane/internal/activate"
	"reverseproxy/dataplane/internal/activate/activatetest"
	"reverseproxy/dataplane/internal/loop"
)

// With the real proxy: a request that has begun on the old port gets its answer,
// the old port is closed, and the new one serves at once.
func TestRequestInFlightSurvivesAPortChange(t *testing.T) {
	arrived, release := make(chan struct{}, 1), make(chan struct{})
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.RawQuery == "slow" {
			arrived <- struct{}{}
			<-release
		}
		fmt.Fprint(w, "hello")
	}))
	defer backend.Close()
	var proxy *loop.Server
	a, _ := newActivator(t, func(o *activate.Options) {
		var err error
		proxy, err = loop.NewServer(loop.Options{Threads: 1, Live: o.Live, Metrics: o.State.Metrics, Log: o.Log})
		if err != nil {
			t.Fatal(err)
		}
		o.Open = func(address string, port uint16) (activate.Listener, error) { return proxy.Open(address, port) }
	})
	defer proxy.Close()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 20 * time.Second}
	get := func(port uint16, query string) string {
		res, err := client.Get(fmt.Sprintf("http://127.0.0.1:%d/a%s", port, query))
		if err != nil {
			return err.Error()
		}
		defer res.Body.Close()
		p, err := io.ReadAll(res.Body)
		return fmt.Sprintf("%d %s %v", res.StatusCode, p, err)
	}
	const want = "200 hello <nil>"

	first, second := activatetest.Port(t), activatetest.Port(t)
	mustActivate(t, a, 1, first, backend.URL)
	if got := get(first, ""); got != want {
		t.Fatalf("first port: %s", got)
	}
	var g sync.WaitGroup
	var slow string
	g.Go(func() { slow = get(first, "?slow") })
	<-arrived
	mustActivate(t, a, 2, second, backend.URL)
	if got := get(second, ""); got != want {
		t.Errorf("second port: %s", got)
	}
	wantClosed(t, first)
	close(release)
	g.Wait()
	if slow != want {
		t.Errorf("request in flight: %s", slow)
	}

	// A foreign program on the next port: rejected, and all goes on.
	taken, _ := activatetest.TakenPort(t)
	rt, version := activatetest.Table(taken, backend.URL)
	if err := a.Activate(activatetest.Encode(t, rt), version, 3, activate.Stream); err == nil {
		t.Error("activated on a taken port")
	} else {
		t.Log(err)
	}
	if got := get(second, ""); got != want {
		t.Errorf("after a rejected table: %s", got)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := proxy.Drain(ctx); err != nil {
		t.Errorf("drain: %v", err)
	}
}
