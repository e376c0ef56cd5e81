package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"gopkg.in/yaml.v3"
)

// This is the only file that knows the YAML library. The rest of the package
// walks node values: decoding into structs would take quadratic time for long
// mappings, report types without columns and let duplicate keys pass.

const (
	maxFileBytes = 64 << 20
	// maxExpansion bounds how many values the aliases of a file add to those
	// that are written out. 100,000 endpoints that share a pool of 10 need a
	// third of it; a file of one screen could otherwise grow without end.
	maxExpansion = 5_000_000
)

// node is one value of the file. An alias is followed as soon as it is read, so
// a node is a scalar, a list or a mapping, at the place where it is written.
type node struct{ y *yaml.Node }

type kind uint8

const (
	scalar kind = iota
	list
	mapping
)

// scalarType is what a YAML 1.2 reader takes an unquoted word for.
type scalarType uint8

const (
	stringType scalarType = iota
	nullType
	boolType
	intType
	floatType
	otherType // has a tag of its own, such as !include
)

func (n node) kind() kind {
	switch n.y.Kind {
	case yaml.SequenceNode:
		return list
	case yaml.MappingNode:
		return mapping
	default:
		return scalar
	}
}

// text is the scalar as written, without quotes.
func (n node) text() string { return n.y.Value }

func (n node) position() Position { return Position{Line: n.y.Line, Column: n.y.Column} }

// explicitTag returns a tag such as !!str or !include that the file writes.
func (n node) explicitTag() string {
	if n.y.Style&yaml.TaggedStyle == 0 {
		return ""
	}
	return n.y.Tag
}

func (n node) quoted() bool {
	return n.y.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle|yaml.LiteralStyle|yaml.FoldedStyle) != 0
}

func (n node) scalarType() scalarType {
	switch n.y.ShortTag() {
	case "!!str", "!!timestamp", "!!merge", "!!binary":
		return stringType
	case "!!null":
		return nullType
	case "!!bool":
		return boolType
	case "!!int":
		return intType
	case "!!float":
		return floatType
	default:
		return otherType
	}
}

// follow replaces an alias by what it stands for. The parser refuses an alias of
// an alias.
func follow(y *yaml.Node) node {
	if y.Kind == yaml.AliasNode {
		return node{y.Alias}
	}
	return node{y}
}

// items returns the number of a list's items and the i-th of them.
func (n node) length() int     { return len(n.y.Content) }
func (n node) item(i int) node { return follow(n.y.Content[i]) }

// pairs returns the number of keys of a mapping as written, before merging.
func (n node) pairs() int { return len(n.y.Content) / 2 }

func (n node) pair(i int) (key, value node) {
	return follow(n.y.Content[2*i]), follow(n.y.Content[2*i+1])
}

// isMerge tells whether a key is the merge key << (written without quotes).
func (n node) isMerge() bool {
	return n.y.Kind == yaml.ScalarNode && n.y.Value == "<<" && n.y.ShortTag() == "!!merge"
}

// parse reads exactly one YAML document of bounded size and expansion.
func parse(data []byte) (node, *Problem) {
	if len(data) > maxFileBytes {
		return node{}, &Problem{Message: fmt.Sprintf("the file has %d bytes; at most 64 MiB (%d bytes) are allowed",
			len(data), maxFileBytes)}
	}
	if p := checkText(data); p != nil {
		return node{}, p
	}
	data = bytes.TrimPrefix(data, []byte("\xef\xbb\xbf"))
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	first, err := decode(decoder)
	switch {
	case errors.Is(err, io.EOF):
		return node{}, &Problem{Message: `the file has no content; at least "port" and "endpoints" are needed`}
	case err != nil:
		return node{}, syntaxProblem(data, err)
	}
	second, err := decode(decoder)
	switch {
	case err == nil:
		return node{}, &Problem{Position: Position{Line: second.Line, Column: second.Column},
			Message: `a second document starts here; a file must hold exactly one: remove the line "---" between them`}
	case !errors.Is(err, io.EOF):
		return node{}, syntaxProblem(data, err)
	}
	if p := checkExpansion(first); p != nil {
		return node{}, p
	}
	return follow(first.Content[0]), nil
}

// decode reads one document. The library reports some errors by panicking past
// its own recovery; a file must never stop the process.
func decode(d *yaml.Decoder) (n *yaml.Node, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("yaml: %v", r)
		}
	}()
	n = new(yaml.Node)
	return n, d.Decode(n)
}

// syntaxProblem finds out where a file stopped being YAML. The library names a
// line that is often the start of the enclosing block, or none, and never a
// column. So the file is read once more, byte by byte: the parser fails within a
// few bytes of the wrong place.
func syntaxProblem(data []byte, cause error) *Problem {
	r := &byteReader{data: data}
	decoder := yaml.NewDecoder(r)
	for {
		if _, err := decode(decoder); err != nil {
			break
		}
	}
	return explainSyntax(data, r.read, strings.TrimPrefix(cause.Error(), "yaml: "))
}

// byteReader hands out one byte per call and so knows how far a reader came.
type byteReader struct {
	data []byte
	read int
}

func (r *byteReader) Read(p []byte) (int, error) {
	if r.read == len(r.data) {
		return 0, io.EOF
	}
	if len(p) == 0 {
		return 0, nil
	}
	p[0] = r.data[r.read]
	r.read++
	return 1, nil
}

// checkText refuses bytes that are not text, with their place.
func checkText(data []byte) *Problem {
	if bytes.HasPrefix(data, []byte("\xff\xfe")) || bytes.HasPrefix(data, []byte("\xfe\xff")) {
		return &Problem{Message: "the file is UTF-16; save it as UTF-8"}
	}
	for i := 0; i < len(data); {
		c := data[i]
		if c < utf8.RuneSelf {
			switch {
			case c == '\r' && (i+1 == len(data) || data[i+1] != '\n'):
				return &Problem{Position: positionAt(data, i),
					Message: "carriage return without a line feed; end lines with LF or CR LF"}
			case c < ' ' && c != '\t' && c != '\n' && c != '\r', c == 0x7f:
				return &Problem{Position: positionAt(data, i),
					Message: fmt.Sprintf("control character 0x%02X; only text is allowed", c)}
			}
			i++
			continue
		}
		r, size := utf8.DecodeRune(data[i:])
		switch {
		case r == utf8.RuneError && size == 1:
			return &Problem{Position: positionAt(data, i),
				Message: fmt.Sprintf("byte 0x%02X is not valid UTF-8; save the file as UTF-8", c)}
		case r == '\ufeff' && i > 0, r >= 0x80 && r < 0xa0, r == '\u2028', r == '\u2029', r == 0xfffe, r == 0xffff:
			return &Problem{Position: positionAt(data, i),
				Message: fmt.Sprintf("invisible character U+%04X; only text is allowed", r)}
		}
		i += size
	}
	return nil
}

// positionAt converts a byte offset.
func positionAt(data []byte, offset int) Position {
	before := data[:offset]
	start := bytes.LastIndexByte(before, '\n') + 1
	line := before[start:]
	if start == 0 {
		line = bytes.TrimPrefix(line, []byte("\xef\xbb\xbf"))
	}
	return Position{
		Line:   1 + bytes.Count(before, []byte{'\n'}),
		Column: 1 + utf8.RuneCount(line),
	}
}

// checkExpansion refuses aliases that multiply (an alias bomb) and values that
// contain themselves, so that the walk needs no bounds of its own.
func checkExpansion(document *yaml.Node) *Problem {
	c := expansion{sizes: map[*yaml.Node]int{}}
	c.size(document)
	return c.problem
}

type expansion struct {
	added   int                // values added by aliases so far
	sizes   map[*yaml.Node]int // of anchored values, expanded; 0 while being counted
	problem *Problem
}

// size returns the number of values below and including y, aliases expanded, as
// far as the limit.
func (c *expansion) size(y *yaml.Node) int {
	if y.Kind == yaml.AliasNode {
		size, known := c.sizes[y.Alias]
		at := Position{Line: y.Line, Column: y.Column}
		if !known || size == 0 {
			c.fail(at, fmt.Sprintf("*%s is inside &%s, the value it stands for; a value cannot contain itself", y.Value, y.Value))
			return 1
		}
		if c.added += size; c.added > maxExpansion {
			c.fail(at, fmt.Sprintf("the aliases up to *%s stand for more than %d values; write fewer or smaller ones", y.Value, maxExpansion))
		}
		return size
	}
	if y.Anchor != "" {
		c.sizes[y] = 0
	}
	total := 1
	for _, child := range y.Content {
		total = min(total+c.size(child), maxExpansion+1)
	}
	if y.Anchor != "" {
		c.sizes[y] = total
	}
	return total
}

func (c *expansion) fail(at Position, message string) {
	if c.problem == nil {
		c.problem = &Problem{Position: at, Message: message}
	}
}
