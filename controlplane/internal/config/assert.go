package config

import (
	"errors"
	"strconv"
	"strings"

	"reverseproxy/controlplane/internal/explain"
	"reverseproxy/proto/routetable"
)

// Test is a request, and what is to become of it.
type Test struct {
	// Position of the entry in the file.
	Position
	// Name for people; may be empty.
	Name string
	// Method and URL, which is a path when there is no host.
	Method, URL string
	// Headers of the request; sorted by name.
	Headers []Header
	// Expect is what must hold; there is at least one.
	Expect []Expectation
}

// Expectation is one thing that a test says.
type Expectation struct {
	// Position of the value in the file.
	Position
	Kind ExpectationKind
	// Value as in the file.
	Value string
}

// ExpectationKind is what an expectation is about: its key in the file.
type ExpectationKind string

// The kinds of expectations.
const (
	ExpectEndpoint    ExpectationKind = "endpoint"    // name of the one that takes the request, routetable.NoEndpoint for none
	ExpectBackendPath ExpectationKind = "backendPath" // what every backend is asked for; the query counts where there is a question mark
	ExpectStatus      ExpectationKind = "status"      // with which the data plane itself answers
	ExpectLocation    ExpectationKind = "location"    // to which it redirects
)

var (
	testRequestSchema = &schema{key: "request", must: true, keys: []*schema{
		{key: "method", def: "GET"},
		{key: "url", must: true},
		{key: "headers"},
	}}
	expectSchema = &schema{key: "expect", must: true, keys: []*schema{
		{key: string(ExpectEndpoint)},
		{key: string(ExpectBackendPath)},
		{key: string(ExpectStatus)},
		{key: string(ExpectLocation)},
	}}
	testsSchema = &schema{key: "tests", each: true, keys: []*schema{
		{key: "name"},
		testRequestSchema,
		expectSchema,
	}}
)

const testExample = "{request: {url: http://shop.example.com/index}, expect: {endpoint: index}}"

func (r *reader) tests(n node, at *path) {
	if n.kind() == list {
		r.config.Tests = make([]Test, 0, n.length())
	}
	r.list(n, at, "tests", `write "- request: …" for each`, func(item node, at *path) {
		t := Test{Position: item.position(), Method: "GET"}
		r.mapping(item, at, testsSchema, testExample, func(key *schema, v node, at *path) {
			switch key.key {
			case "name":
				t.Name, _ = r.text(v, at, "a text", checkTestName)
			case "request":
				r.testRequest(v, at, &t)
			case "expect":
				r.expect(v, at, &t)
			default:
				panic("unread key " + key.path)
			}
		})
		r.config.Tests = append(r.config.Tests, t)
	})
}

// checkTestName keeps a problem in one line.
func checkTestName(name string) error {
	if strings.ContainsAny(name, "\r\n") {
		return errors.New("the name has several lines; write one")
	}
	return nil
}

func (r *reader) testRequest(n node, at *path, t *Test) {
	r.mapping(n, at, testRequestSchema, "{url: http://shop.example.com/index}", func(key *schema, v node, at *path) {
		switch key.key {
		case "method":
			if method, ok := r.text(v, at, "a method, such as GET", checkMethod); ok {
				t.Method = method
			}
		case "url":
			t.URL, _ = r.text(v, at, "http://host/path as a client would ask for it, or a path alone", func(url string) error {
				_, _, _, _, err := explain.ParseURL(url)
				return err
			})
		case "headers":
			t.Headers, _ = r.headers(v, at, checkTestHeader)
		default:
			panic("unread key " + key.path)
		}
	})
}

// checkTestHeader takes what an endpoint can be matched by.
func checkTestHeader(name string) error {
	if name == "host" {
		return errors.New("the host is part of the url")
	}
	return routetable.CheckHeaderName(name)
}

func (r *reader) expect(n node, at *path, t *Test) {
	if n.kind() == mapping && n.pairs() == 0 {
		r.problem(n, at, "nothing is expected; write one of %s", expectSchema.allowed())
		return
	}
	r.mapping(n, at, expectSchema, "{endpoint: index}", func(key *schema, v node, at *path) {
		kind := ExpectationKind(key.key)
		var value string
		var ok bool
		switch kind {
		case ExpectEndpoint:
			value, ok = r.text(v, at, "the name of an endpoint, or none", notEmpty)
		case ExpectBackendPath:
			value, ok = r.text(v, at, "a path, such as /index-proxied", checkBackendPath)
		case ExpectStatus:
			var status uint32
			status, ok = r.integer(v, at, 200, 599)
			value = strconv.FormatUint(uint64(status), 10)
		case ExpectLocation:
			value, ok = r.text(v, at, "a location, such as https://shop.example.com/", notEmpty)
		default:
			panic("unread key " + key.path)
		}
		if ok {
			t.Expect = append(t.Expect, Expectation{Position: v.position(), Kind: kind, Value: value})
		}
	})
}

func notEmpty(text string) error {
	if text == "" {
		return errors.New("is empty")
	}
	return nil
}

func checkBackendPath(path string) error {
	if !strings.HasPrefix(path, "/") {
		return errors.New("a path that a backend is asked for begins with a slash")
	}
	return nil
}
