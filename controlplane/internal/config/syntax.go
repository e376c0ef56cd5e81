package config

import (
	"bytes"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"
)

var (
	syntaxLine    = regexp.MustCompile(`^line (\d+): `)
	tightColon    = regexp.MustCompile(`^[\w"' -]+:[^\s/]`) // such as port:8000
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
		at, message := explainColon(data, max(0, bytes.LastIndexByte(consumed, ':')))
		return p(at, "%s", message)
	case "did not find expected alphabetic or numeric character":
		at := last
		if i := bytes.LastIndexAny(consumed, "*&"); i >= 0 {
			at = positionAt(data, i)
		}
		return p(at, `a value that starts with "*" or "&" must be in quotes, such as "*.example.com"`)
	case "found character that cannot start any token":
		// The parser looks at most three bytes ahead.
		const near = 4
		from := max(0, len(consumed)-near)
		if i := bytes.LastIndexAny(consumed[from:], "@`%\t"); i >= 0 {
			at := positionAt(data, from+i)
			if consumed[from+i] == '\t' {
				return p(at, "a tab where a value is expected; use spaces")
			}
			return p(at, "a value cannot start with %q; put it in quotes", consumed[from+i])
		}
	case "did not find expected key":
		if at, ok := strayBracket(data, last.Line); ok {
			return p(at, "a bracket that nothing opens; remove it, or put a text that contains it in quotes")
		}
		return p(firstText(data, last.Line), "this line continues nothing above it; indent it like the lines it belongs to")
	case "did not find expected <document start>":
		return p(firstText(data, last.Line), `this line continues nothing above it; a file is one mapping, with "key: value" at the start of its lines`)
	case "did not find expected '-' indicator":
		return p(firstText(data, last.Line), `expected the next list item, "- …", at the same indentation as the ones before`)
	case "did not find expected ',' or ']'":
		return p(nearest(opening(line+1, "["), last), `the list that "[" starts has no "]" at its end, no "," between two items, or a text with one of ? , [ ] { } that is not in quotes`)
	case "did not find expected ',' or '}'":
		return p(nearest(opening(line+1, "{"), last), `the mapping that "{" starts has no "}" at its end, no "," between two keys, or a text with one of ? , [ ] { } that is not in quotes`)
	case "found unexpected end of stream":
		return p(opening(line, `"'`), "the quote that starts here is never closed")
	case "found unexpected document indicator":
		return p(last, `"---" or "..." inside a quoted text; close the quote before it`)
	case "block sequence entries are not allowed in this context":
		return p(last, `a list item "- …" is not allowed here; start the list on a line of its own`)
	case "found incompatible YAML document":
		return p(positionAt(data, max(0, bytes.Index(data, []byte("%YAML")))), `another YAML version than 1.1 is asked for; remove the line "%%YAML", files are read by YAML 1.2 anyway`)
	case "found unknown escape character":
		at := last
		if i := bytes.LastIndexByte(consumed, '\\'); i >= 0 {
			at = positionAt(data, i)
		}
		return p(at, `unknown escape after "\"; use single quotes for a text with backslashes`)
	case "could not find expected ':'":
		if line == 0 {
			line = last.Line
		}
		return p(firstText(data, line), "%s", noPair(data, line))
	}
	return p(last, "%s", cause)
}

// explainColon finds the reason for which a colon, at data[i], starts no value.
func explainColon(data []byte, i int) (Position, string) {
	at := positionAt(data, i)
	start, _ := lineOf(data, at.Line)
	if bytes.Contains(data[start:i], []byte(": ")) {
		return at, `a second ":" in one line; put a text that contains ": " in quotes`
	}
	// A line that is no "key: value" becomes a text that goes on in this line.
	for line := at.Line - 1; line > 0; line-- {
		end := start - 1
		start = bytes.LastIndexByte(data[:end], '\n') + 1
		text := bytes.TrimSpace(data[start:end])
		if len(text) == 0 || text[0] == '#' {
			continue
		}
		if dashWithoutSpace(text) || !bytes.Contains(text, []byte(": ")) && !bytes.HasSuffix(text, []byte(":")) {
			return firstText(data, line), noPair(data, line)
		}
		break
	}
	return firstText(data, at.Line), "this line has another indentation than the lines it belongs to"
}

func dashWithoutSpace(text []byte) bool {
	return len(text) > 1 && text[0] == '-' && text[1] != ' ' && text[1] != '-'
}

// noPair says what a line lacks to be a key with a value.
func noPair(data []byte, line int) string {
	_, text := lineOf(data, line)
	text = bytes.TrimSpace(text)
	switch {
	case dashWithoutSpace(text):
		return fmt.Sprintf(`%s is no list item; put a space after the "-"`, quote(string(text)))
	case tightColon.Match(text):
		return fmt.Sprintf(`%s is no "key: value"; put a space after the ":"`, quote(string(text)))
	default:
		return fmt.Sprintf(`%s is no "key: value"`, quote(string(text)))
	}
}

// nearest is where a bracket opens, or the place of the error if that is in the
// same line.
func nearest(opening, last Position) Position {
	if opening.Line == last.Line {
		return last
	}
	return opening
}

// strayBracket looks for a line, this one or the one before, that closes more
// brackets than it opens.
func strayBracket(data []byte, line int) (Position, bool) {
	for n := max(1, line-1); n <= line; n++ {
		start, text := lineOf(data, n)
		depth := 0
		for i, c := range text {
			switch c {
			case '[', '{':
				depth++
			case ']', '}':
				if depth--; depth < 0 {
					return positionAt(data, start+i), true
				}
			}
		}
	}
	return Position{}, false
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

// lastText is the offset of the last character that is not blank, 0 if there is
// none. The data may end within a character.
func lastText(data []byte) int {
	i := max(0, len(bytes.TrimRight(data, " \t\r\n"))-1)
	for i > 0 && !utf8.RuneStart(data[i]) {
		i--
	}
	return i
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
