//go:build linux

package main

import (
	"errors"
	"testing"
)

func TestParseHead(t *testing.T) {
	for _, tt := range []struct {
		name, in string
		want     head
		size     int
		err      error
	}{
		{name: "usual", in: "HTTP/1.1 200 OK\r\nContent-Length: 12\r\nServer: x\r\n\r\nbody", want: head{status: 200, length: 12}, size: 50},
		{name: "last one", in: "HTTP/1.1 503 No\r\nconnection: Close\r\ncontent-length:0\r\n\r\n", want: head{status: 503, close: true}, size: 56},
		{name: "not complete", in: "HTTP/1.1 200 OK\r\nContent-Length: 12\r\n"},
		{name: "no length", in: "HTTP/1.1 200 OK\r\n\r\n", err: errNoLength},
		{name: "no number", in: "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", err: errMalformed},
		{name: "something else", in: "220 mail.example.com ESMTP\r\n\r\n", err: errMalformed},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, size, err := parseHead([]byte(tt.in))
			if !errors.Is(err, tt.err) {
				t.Fatalf("error %v, want %v", err, tt.err)
			}
			if got != tt.want || size != tt.size {
				t.Errorf("got %+v, %d bytes, want %+v, %d bytes", got, size, tt.want, tt.size)
			}
		})
	}
}
