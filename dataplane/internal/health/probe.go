package health

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"reverseproxy/dataplane/internal/table"
)

const (
	// maxBody is how much of a probe's answer is read.
	maxBody = 64 << 10
	// maxHead bounds the head of a probe's answer.
	maxHead = 64 << 10
	// userAgent tells a backend's log what asked.
	userAgent = "reverseproxy-health-check"
)

// transport sends probes. Each has a connection of its own: a kept one would say
// nothing about whether the backend still accepts any.
func transport(resolver *net.Resolver) *http.Transport {
	dialer := &net.Dialer{Resolver: resolver, KeepAlive: -1}
	return &http.Transport{
		DialContext:            dialer.DialContext,
		DisableKeepAlives:      true,
		DisableCompression:     true, // the body is compared as it comes
		MaxResponseHeaderBytes: maxHead,
	}
}

// probe returns nil when the backend at addr is healthy, and else why not, in
// words that stay the same while the reason does.
func probe(ctx context.Context, t *http.Transport, c *table.ActiveCheck, addr, host string) error {
	ctx, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	var err error
	if c.TCP {
		err = connect(ctx, t, addr)
	} else {
		err = ask(ctx, t, c, addr, host)
	}
	if ctx.Err() == context.DeadlineExceeded {
		return fmt.Errorf("no answer within %v", c.Timeout)
	}
	return err
}

func connect(ctx context.Context, t *http.Transport, addr string) error {
	c, err := t.DialContext(ctx, "tcp", addr)
	if err != nil {
		return plain(err)
	}
	return c.Close()
}

func ask(ctx context.Context, t *http.Transport, c *table.ActiveCheck, addr, host string) error {
	request, err := request(ctx, c, addr, host)
	if err != nil {
		return err
	}
	// Not by a client: it would follow redirects.
	response, err := t.RoundTrip(request)
	if err != nil {
		return plain(err)
	}
	defer func() { _ = response.Body.Close() }()
	if !expected(c.Expect, response.StatusCode) {
		return fmt.Errorf("status %d, expected %s", response.StatusCode, rangesText(c.Expect))
	}
	body, err := io.ReadAll(io.LimitReader(response.Body, maxBody))
	if err != nil {
		return fmt.Errorf("the body breaks off: %w", plain(err))
	}
	if c.Body != "" && !bytes.Contains(body, []byte(c.Body)) {
		return fmt.Errorf("the body does not contain %q", c.Body)
	}
	return nil
}

func request(ctx context.Context, c *table.ActiveCheck, addr, host string) (*http.Request, error) {
	u, err := url.Parse("http://" + addr + c.Path)
	if err != nil {
		return nil, fmt.Errorf("the path of the check is no URL path: %w", err)
	}
	r := &http.Request{
		Method: c.Method, URL: u, Host: host, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: http.Header{"User-Agent": {userAgent}},
	}
	for _, h := range c.Headers {
		name := h.Name
		if strings.EqualFold(name, "User-Agent") {
			name = "User-Agent"
		}
		r.Header[name] = []string{h.Value}
	}
	return r.WithContext(ctx), nil
}

func expected(ranges []table.StatusRange, status int) bool {
	for _, r := range ranges {
		if r.First <= status && status <= r.Last {
			return true
		}
	}
	return false
}

// rangesText writes ranges as the configuration does.
func rangesText(ranges []table.StatusRange) string {
	texts := make([]string, len(ranges))
	for i, r := range ranges {
		switch {
		case r.First == r.Last:
			texts[i] = strconv.Itoa(r.First)
		case r.First%100 == 0 && r.Last == r.First+99:
			texts[i] = strconv.Itoa(r.First/100) + "xx"
		default:
			texts[i] = fmt.Sprintf("%d-%d", r.First, r.Last)
		}
	}
	return strings.Join(texts, ", ")
}

// plain leaves out of an error what is different each time (the probe's own port)
// or known (the address).
func plain(err error) error {
	var op *net.OpError
	switch {
	case errors.As(err, &op):
		return op.Err
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return errors.New("the connection was closed before the end of the answer")
	}
	return err
}

// waitFor returns the time from the beginning of one probe to that of the next:
// the interval, longer or shorter at random by up to its jitter, so that a fleet
// does not probe in step. random is from 0 to 1.
func waitFor(c *table.ActiveCheck, random float64) time.Duration {
	jitter := float64(c.JitterPercent) / 100
	return time.Duration(float64(c.Interval) * (1 + jitter*(2*random-1)))
}
