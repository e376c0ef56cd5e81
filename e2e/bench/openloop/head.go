//go:build linux

package main

import (
	"bytes"
	"errors"
	"strconv"
)

// head is what the generator needs to know of a response.
type head struct {
	status int
	length int  // of the body
	close  bool // no further request on this connection
}

var (
	errMalformed = errors.New("malformed answer")
	errNoLength  = errors.New("answer without Content-Length")
)

// parseHead reads the head at the beginning of p and returns how long it is; 0
// when it is not complete.
func parseHead(p []byte) (head, int, error) {
	end := bytes.Index(p, []byte("\r\n\r\n"))
	if end < 0 {
		return head{}, 0, nil
	}
	lines := bytes.Split(p[:end], []byte("\r\n"))
	first := bytes.SplitN(lines[0], []byte(" "), 3)
	if len(first) < 2 || !bytes.HasPrefix(first[0], []byte("HTTP/1.")) {
		return head{}, 0, errMalformed
	}
	h := head{length: -1}
	var err error
	if h.status, err = strconv.Atoi(string(first[1])); err != nil {
		return head{}, 0, errMalformed
	}
	for _, line := range lines[1:] {
		name, value, _ := bytes.Cut(line, []byte(":"))
		value = bytes.TrimSpace(value)
		switch {
		case bytes.EqualFold(name, []byte("Content-Length")):
			if h.length, err = strconv.Atoi(string(value)); err != nil {
				return head{}, 0, errMalformed
			}
		case bytes.EqualFold(name, []byte("Connection")):
			h.close = bytes.EqualFold(value, []byte("close"))
		}
	}
	if h.length < 0 {
		return head{}, 0, errNoLength
	}
	return h, end + 4, nil
}
