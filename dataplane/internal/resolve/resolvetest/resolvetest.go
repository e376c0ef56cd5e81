// Package resolvetest is a DNS server for tests.
package resolvetest

import (
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"golang.org/x/net/dns/dnsmessage"
)

// Server answers from a list, and for all other names that they do not exist. Its
// methods may be called from several goroutines.
type Server struct {
	Addr string // ip:port, UDP

	socket  net.PacketConn
	waiting sync.WaitGroup

	mu    sync.Mutex
	hosts map[string][]netip.Addr
	asked int
	held  chan struct{} // closed by Release; nil: answers are not held
}

// Start starts a server that ends with the test.
func Start(t testing.TB) *Server {
	t.Helper()
	socket, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &Server{Addr: socket.LocalAddr().String(), socket: socket, hosts: map[string][]netip.Addr{}}
	s.waiting.Go(s.serve)
	t.Cleanup(func() {
		s.Release()
		_ = socket.Close()
		s.waiting.Wait()
	})
	return s
}

// Set sets the addresses of a name, which ends in a dot; none: it does not exist.
func (s *Server) Set(name string, addresses ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.hosts, name)
	for _, a := range addresses {
		s.hosts[name] = append(s.hosts[name], netip.MustParseAddr(a))
	}
}

// Asked returns how many questions have been answered.
func (s *Server) Asked() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked
}

// Hold holds back all answers until Release.
func (s *Server) Hold() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held = make(chan struct{})
}

// Release is the counterpart of Hold.
func (s *Server) Release() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.held != nil {
		close(s.held)
		s.held = nil
	}
}

func (s *Server) serve() {
	p := make([]byte, 2048)
	for {
		n, from, err := s.socket.ReadFrom(p)
		if err != nil {
			return
		}
		var m dnsmessage.Message
		if m.Unpack(p[:n]) != nil || len(m.Questions) != 1 {
			continue
		}
		s.waiting.Go(func() { s.answer(&m, from) })
	}
}

func (s *Server) answer(m *dnsmessage.Message, to net.Addr) {
	s.mu.Lock()
	held := s.held
	s.mu.Unlock()
	if held != nil {
		<-held
	}
	question := m.Questions[0]
	s.mu.Lock()
	s.asked++
	addresses, known := s.hosts[strings.ToLower(question.Name.String())]
	s.mu.Unlock()
	out := dnsmessage.Message{
		Header:    dnsmessage.Header{ID: m.ID, Response: true, Authoritative: true, RecursionAvailable: true},
		Questions: m.Questions,
	}
	if !known {
		out.RCode = dnsmessage.RCodeNameError
	}
	for _, a := range addresses {
		head := dnsmessage.ResourceHeader{Name: question.Name, Class: dnsmessage.ClassINET}
		switch {
		case a.Is4() && question.Type == dnsmessage.TypeA:
			out.Answers = append(out.Answers, dnsmessage.Resource{Header: head, Body: &dnsmessage.AResource{A: a.As4()}})
		case a.Is6() && question.Type == dnsmessage.TypeAAAA:
			out.Answers = append(out.Answers, dnsmessage.Resource{Header: head, Body: &dnsmessage.AAAAResource{AAAA: a.As16()}})
		}
	}
	if packed, err := out.Pack(); err == nil {
		_, _ = s.socket.WriteTo(packed, to)
	}
}
