package config

import (
	"bytes"
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

var (
	syntaxLine    = regexp.MustCompile(`^line (\d+): `)
	unknownAnchor = regexp.MustCompile(`^unknown anchor '(.*)' referenced$`)
)

// explainSyntax turns the YAML parser's message into words that say what to do.
// The parser had read the given number of bytes when it gave up.
func explainSyntax(data []byte, read int, cause string) *Problem {
	line := 0
	if m := syntaxLine.FindStringSubmatch(cause); m != nil {
		line, _ = strconv.Atoi(m[1])
		cause = cause[len(m[0]):]
	}
	consumed := data[:read]
	p := func(at Position, format string, args ...any) *Problem {
		return &Problem{Position: at, Message: "not valid YAML: " + fmt.Sprintf(format, args...)}
	}
	// Parser messages name the line before the block that they are about;
	// scanner messages the right one.
	opening := func(line int, brackets string) Position {
		start, text := lineOf(data, line)
		return positionAt(data, start+max(0, bytes.IndexAny(text, brackets)))
	}
	last := positionAt(data, lastText(consumed))

	if m := unknownAnchor.FindStringSubmatch(cause); m != nil {
		at := last
		if i := bytes.LastIndex(consumed, []byte("*"+m[1])); i >= 0 {
			at = positionAt(data, i)
		}
		return p(at, `*%s refers to an anchor, and there is no &%s before it; put a value that starts with "*" in quotes`, m[1], m[1])
	}
	if at, ok := tabIndent(data, last.Line); ok {
		return p(at, "a tab in the indentation; indent with spaces")
	}
	switch cause {
	case "mapping values are not allowed in this context":
		at := last
		if i := bytes.LastIndexByte(consumed, ':'); i >= 0 {
			at = positionAt(data, i)
		}
		return p(at, `":" is not allowed here; indent this line like its neighbours, write "key: value" on the line before, or put a text that contains ": " in quotes`)
	case "did not find expected alphabetic or numeric character":
		at := last
		if i := bytes.LastIndexAny(consumed, "*&"); i >= 0 {
			at = positionAt(data, i)
		}
		return p(at, `a value that starts with "*" or "&" must be in quotes, such as "*.example.com"`)
	case "found character that cannot start any token":
		at := last
		if i := bytes.LastIndexAny(consumed, "@`%\t"); i >= 0 {
			at = positionAt(data, i)
			return p(at, "a value cannot start with %q; put it in quotes", consumed[i])
		}
	case "did not find expected key":
		return p(firstText(data, last.Line), "this line continues nothing above it; indent it like the lines it belongs to")
	case "did not find expected '-' indicator":
		return p(firstText(data, last.Line), `expected the next list item, "- …", at the same indentation as the ones before`)
	case "did not find expected ',' or ']'":
		return p(opening(line+1, "["), `the list that starts with "[" has no "," between two items or no "]" at its end`)
	case "did not find expected ',' or '}'":
		return p(opening(line+1, "{"), `the mapping that starts with "{" has no "," between two keys or no "}" at its end`)
	case "found unexpected end of stream":
		return p(opening(line, `"'`), "the quote that starts here is never closed")
	case "found unexpected document indicator":
		return p(last, `"---" or "..." inside a quoted text; close the quote before it`)
	case "block sequence entries are not allowed in this context":
		return p(last, `a list item "- …" is not allowed here; start the list on a line of its own`)
	case "found unknown escape character":
		at := last
		if i := bytes.LastIndexByte(consumed, '\\'); i >= 0 {
			at = positionAt(data, i)
		}
		return p(at, `unknown escape after "\"; use single quotes for a text with backslashes`)
	case "could not find expected ':'":
		return p(firstText(data, max(line-1, 1)), `expected "key: value"`)
	}
	return p(last, "%s", cause)
}

// lineOf returns where a line starts and its text; the last line for one beyond
// the end.
func lineOf(data []byte, line int) (start int, text []byte) {
	for ; line > 1; line-- {
		i := bytes.IndexByte(data[start:], '\n')
		if i < 0 {
			break
		}
		start += i + 1
	}
	text, _, _ = bytes.Cut(data[start:], []byte{'\n'})
	return start, text
}

// firstText is the first character of a line that is not blank.
func firstText(data []byte, line int) Position {
	start, text := lineOf(data, line)
	return positionAt(data, start+len(text)-len(bytes.TrimLeft(text, " \t")))
}

// lastText is the offset of the last byte that is not blank, 0 if there is none.
func lastText(data []byte) int {
	return max(0, len(bytes.TrimRight(data, " \t\r\n"))-1)
}

// tabIndent looks for a tab in the indentation of a line or the line after it.
func tabIndent(data []byte, line int) (Position, bool) {
	for n := line; n <= line+1; n++ {
		start, text := lineOf(data, n)
		indent := text[:len(text)-len(bytes.TrimLeft(text, " \t"))]
		if i := strings.IndexByte(string(indent), '\t'); i >= 0 {
			return positionAt(data, start+i), true
		}
	}
	return Position{}, false
}
