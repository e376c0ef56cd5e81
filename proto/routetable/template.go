package routetable

import (
	"fmt"
	"strings"
)

// Template is a text with variables, such as "https://${host}${path}", taken
// apart: pieces that are appended one behind the other. It is immutable.
type Template []piece

// piece is a text or, when it has one, a variable.
type piece struct {
	text     string
	variable variable
}

type variable uint8

const (
	noVariable variable = iota
	clientVariable
	endpointVariable
	hostVariable
	methodVariable
	pathVariable
	queryVariable
	questionVariable // ${query} with the question mark before it
	requestIDVariable
	schemeVariable
)

// variables has the names that a template may use.
var variables = []struct {
	name string
	is   variable
}{
	{"client", clientVariable},
	{"endpoint", endpointVariable},
	{"host", hostVariable},
	{"method", methodVariable},
	{"path", pathVariable},
	{"query", queryVariable},
	{"requestId", requestIDVariable},
	{"scheme", schemeVariable},
}

// Values are what the variables stand for in one request. The request path has
// checked them when it has parsed the request: none has a control character, so
// that what is made of them stays one line.
type Values struct {
	Client    []byte // the client's address
	Endpoint  string
	Host      []byte // as sent, may have a port
	Method    []byte
	Path      []byte // raw
	Query     []byte
	HasQuery  bool // tells "/a?" from "/a"
	RequestID []byte
	Scheme    string
}

// ParseTemplate takes a text apart: ${name} is a variable, $$ a dollar.
func ParseTemplate(text string) (Template, error) {
	var t Template
	var plain strings.Builder
	end := func() {
		if plain.Len() > 0 {
			t = append(t, piece{text: plain.String()})
			plain.Reset()
		}
	}
	for rest := text; ; {
		before, after, found := strings.Cut(rest, "$")
		plain.WriteString(before)
		if !found {
			end()
			return t, nil
		}
		switch {
		case strings.HasPrefix(after, "$"):
			plain.WriteByte('$')
			rest = after[1:]
		case strings.HasPrefix(after, "{"):
			name, behind, closed := strings.Cut(after[1:], "}")
			if !closed {
				return nil, fmt.Errorf("%s has a ${ without a }; write $$ for a dollar", quote(text))
			}
			v, err := variableOf(name)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", quote(text), err)
			}
			if v == queryVariable {
				// Where there is no query, no question mark is wanted either.
				if before, found := strings.CutSuffix(plain.String(), "?"); found {
					plain.Reset()
					plain.WriteString(before)
					v = questionVariable
				}
			}
			end()
			t = append(t, piece{variable: v})
			rest = behind
		default:
			return nil, fmt.Errorf("%s has a $ that no { follows; write $$ for a dollar, ${name} for a variable", quote(text))
		}
	}
}

func variableOf(name string) (variable, error) {
	known := make([]string, len(variables))
	for i, v := range variables {
		if v.name == name {
			return v.is, nil
		}
		known[i] = "${" + v.name + "}"
	}
	return noVariable, fmt.Errorf("there is no variable %s; there are %s", quote("${"+name+"}"), strings.Join(known, ", "))
}

// uses reports whether a variable is in the template.
func (t Template) uses(v variable) bool {
	for _, p := range t {
		if p.variable == v {
			return true
		}
	}
	return false
}

// UsesRequestID reports whether ${requestId} is in the template.
func (t Template) UsesRequestID() bool { return t.uses(requestIDVariable) }

// UsesHost reports whether ${host} is in the template.
func (t Template) UsesHost() bool { return t.uses(hostVariable) }

// Text returns what the template is for every request; ok is false when it has
// variables.
func (t Template) Text() (text string, ok bool) {
	switch {
	case len(t) == 0:
		return "", true
	case len(t) == 1 && t[0].variable == noVariable:
		return t[0].text, true
	}
	return "", false
}

// Append appends what the template is for a request. It does not allocate.
func (t Template) Append(dst []byte, v *Values) []byte {
	for i := range t {
		dst = t[i].append(dst, v)
	}
	return dst
}

func (p *piece) append(dst []byte, v *Values) []byte {
	switch p.variable {
	case clientVariable:
		return append(dst, v.Client...)
	case endpointVariable:
		return append(dst, v.Endpoint...)
	case hostVariable:
		return append(dst, withoutPort(v.Host)...)
	case methodVariable:
		return append(dst, v.Method...)
	case pathVariable:
		return append(dst, v.Path...)
	case queryVariable:
		return append(dst, v.Query...)
	case questionVariable:
		if v.HasQuery {
			dst = append(dst, '?')
		}
		return append(dst, v.Query...)
	case requestIDVariable:
		return append(dst, v.RequestID...)
	case schemeVariable:
		return append(dst, v.Scheme...)
	}
	return append(dst, p.text...)
}

// withoutPort returns the host of a Host field as it was sent.
func withoutPort(authority []byte) []byte {
	for i := len(authority) - 1; i >= 0; i-- {
		if c := authority[i]; c == ':' {
			return authority[:i]
		} else if c < '0' || c > '9' {
			break
		}
	}
	return authority
}
