package config

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// reader walks the nodes of a file and fills the configuration. It never stops
// at a problem.
type reader struct {
	config   Config
	entries  []entry // one per endpoint of config
	problems problems
	// requestIDs is where ${requestId} is used.
	requestIDs []use
}

// path is where in the file a node is, from the inside out: it becomes text only
// when there is a problem to report.
type path struct {
	outer *path
	key   string // of a mapping, when index is negative
	index int    // of a list
}

func (p *path) String() string {
	if p == nil {
		return ""
	}
	outer := p.outer.String()
	switch {
	case p.index >= 0:
		return fmt.Sprintf("%s[%d]", outer, p.index)
	case !plainKey(p.key):
		return fmt.Sprintf("%s[%s]", outer, quote(p.key))
	case outer == "":
		return p.key
	default:
		return outer + "." + p.key
	}
}

// field and item are the paths to what is inside the value at p.
func (p *path) field(key string) *path { return &path{outer: p, key: key, index: -1} }
func (p *path) item(index int) *path   { return &path{outer: p, index: index} }

// plainKey tells whether a key can stand in a path without quotes.
func plainKey(key string) bool {
	if key == "" || len(key) > 80 {
		return false
	}
	for _, r := range key {
		if r != '-' && r != '_' && !unicode.IsLetter(r) && !unicode.IsDigit(r) {
			return false
		}
	}
	return true
}

func (r *reader) problem(n node, at *path, format string, args ...any) {
	r.problemAt(n.position(), at, format, args...)
}

func (r *reader) problemAt(pos Position, at *path, format string, args ...any) {
	if !r.problems.full() {
		r.problems.add(Problem{Position: pos, Path: at.String(), Message: fmt.Sprintf(format, args...)})
	}
}

// quote shows a text of the user, shortened if it is long.
func quote(s string) string {
	const longest = 100
	if len(s) <= longest {
		return strconv.Quote(s)
	}
	cut := longest
	for cut > 0 && !utf8.RuneStart(s[cut]) {
		cut--
	}
	return strconv.Quote(s[:cut] + "…")
}

// found describes a value that has the wrong type.
func (n node) found() string {
	switch n.kind() {
	case list:
		if n.length() == 0 {
			return "found an empty list"
		}
		return "found a list"
	case mapping:
		return "found a mapping"
	}
	if n.quoted() {
		if n.text() == "" {
			return "found an empty text"
		}
		return "found the text " + quote(n.text())
	}
	switch n.scalarType() {
	case nullType:
		return "found nothing"
	case boolType, intType, floatType:
		return "found " + shorten(n.text())
	default:
		return "found the text " + quote(n.text())
	}
}

func shorten(s string) string {
	q := quote(s)
	return q[1 : len(q)-1]
}

// tagged refuses explicit tags: they would change the type of what is written.
func (r *reader) tagged(n node, at *path) bool {
	tag := n.explicitTag()
	if tag == "" {
		return false
	}
	r.problem(n, at, "the YAML tag %s is not supported; write the value alone (in quotes if it is a text)", quote(tag))
	return true
}

// mapping calls visit for every key of a mapping that the schema knows, keys
// written here before keys merged from elsewhere by "<<". It reports all others,
// duplicate keys and missing ones, and tells whether n is a mapping.
func (r *reader) mapping(n node, at *path, s *schema, example string, visit func(key *schema, value node, at *path)) bool {
	if r.tagged(n, at) {
		return false
	}
	if n.kind() != mapping {
		r.problem(n, at, "%s, expected a mapping, such as %s; allowed keys: %s", n.found(), example, s.allowed())
		return false
	}
	seen := map[string]Position{}
	excused := map[*schema]bool{} // "is missing" adds nothing to these
	r.pairs(n, at, seen, func(key, value node, inner *path) {
		k := s.find(key.text())
		if k == nil {
			if !r.problems.full() {
				message, meant := s.unknownKey(key.text())
				excused[meant] = true
				r.problem(key, inner, "%s", message)
			}
			return
		}
		visit(k, value, inner)
	})
	for _, k := range s.keys {
		if _, ok := seen[k.key]; k.must && !ok && !excused[k] && !slices.ContainsFunc(k.unless, func(key string) bool { _, ok := seen[key]; return ok }) {
			r.problem(n, at, "%q is missing; required here: %s", k.key, s.required())
		}
	}
	return true
}

// pairs calls visit for every key of a mapping once: first those written in it,
// then those of the mappings that "<<" names and that are not there yet, as YAML's
// merge key asks for.
func (r *reader) pairs(n node, at *path, seen map[string]Position, visit func(key, value node, at *path)) {
	var merges []node
	own := make(map[string]Position, n.pairs())
	for i := range n.pairs() {
		key, value := n.pair(i)
		if key.kind() != scalar {
			r.problem(key, at, "%s as a key; a key must be a word", key.found())
			continue
		}
		inner := at.field(key.text())
		if first, duplicate := own[key.text()]; duplicate {
			r.problem(key, inner, "duplicate key; it is already given in line %d: remove one of them", first.Line)
			continue
		}
		own[key.text()] = key.position()
		if key.isMerge() {
			merges = append(merges, value)
			continue
		}
		if _, overridden := seen[key.text()]; overridden {
			continue
		}
		seen[key.text()] = key.position()
		visit(key, value, inner)
	}
	for _, m := range merges {
		inner := at.field("<<")
		switch m.kind() {
		case mapping:
			r.pairs(m, at, seen, visit)
		case list:
			for i := range m.length() {
				item := m.item(i)
				if item.kind() != mapping {
					r.problem(item, inner.item(i), "%s, expected a mapping to merge, such as *name", item.found())
					continue
				}
				r.pairs(item, at, seen, visit)
			}
		default:
			r.problem(m, inner, "%s, expected a mapping to merge, such as *name", m.found())
		}
	}
}

// list calls visit for every item of a list and tells whether n is one. The
// remedy says what to write instead of a single value.
func (r *reader) list(n node, at *path, what, remedy string, visit func(item node, at *path)) bool {
	if r.tagged(n, at) {
		return false
	}
	if n.kind() != list {
		r.problem(n, at, "%s, expected a list of %s; %s", n.found(), what, remedy)
		return false
	}
	for i := range n.length() {
		visit(n.item(i), at.item(i))
	}
	return true
}

// text reads a string that passes the check. Numbers and the like are refused:
// what 010, 1e3 or true mean as text is a guess.
func (r *reader) text(n node, at *path, what string, check func(string) error) (string, bool) {
	if r.tagged(n, at) {
		return "", false
	}
	text := n.text()
	if n.kind() != scalar || n.scalarType() != stringType {
		hint := ""
		if n.kind() == scalar && n.scalarType() != nullType && check(text) == nil {
			hint = "; put it in quotes: " + quote(text)
		}
		r.problem(n, at, "%s, expected %s%s", n.found(), what, hint)
		return "", false
	}
	if err := check(text); err != nil {
		r.problem(n, at, "%s", err)
		return "", false
	}
	return text, true
}

// choice reads one of several words.
func (r *reader) choice(n node, at *path, words []string) (string, bool) {
	last := len(words) - 1
	expected := strings.Join(words[:last], ", ") + " or " + words[last]
	return r.text(n, at, expected, func(word string) error {
		if slices.Contains(words, word) {
			return nil
		}
		hint := ""
		for _, w := range words {
			if distance(strings.ToLower(word), w) <= 2 {
				hint = fmt.Sprintf(" (did you mean %q?)", w)
				break
			}
		}
		return fmt.Errorf("found the text %s, expected %s%s", quote(word), expected, hint)
	})
}

// boolean reads true or false.
func (r *reader) boolean(n node, at *path) (bool, bool) {
	if r.tagged(n, at) {
		return false, false
	}
	if n.kind() == scalar && !n.quoted() && n.scalarType() == boolType {
		return strings.EqualFold(n.text(), "true"), true
	}
	hint := ""
	if n.kind() == scalar {
		switch strings.ToLower(n.text()) {
		case "yes", "y", "on", "1", "true":
			hint = " (did you mean true?)"
		case "no", "n", "off", "0", "false":
			hint = " (did you mean false?)"
		}
	}
	r.problem(n, at, "%s, expected true or false%s", n.found(), hint)
	return false, false
}

// integer reads a number between two bounds, in plain decimal digits: the other
// notations of YAML (0x1F, 1_000, and 010, which is ten to some and eight to
// others) surprise.
func (r *reader) integer(n node, at *path, lowest, highest uint32) (uint32, bool) {
	if r.tagged(n, at) {
		return 0, false
	}
	expected := fmt.Sprintf("a whole number from %d to %d", lowest, highest)
	if n.kind() != scalar {
		r.problem(n, at, "%s, expected %s", n.found(), expected)
		return 0, false
	}
	if n.quoted() || n.scalarType() != intType && !isDigits(n.text()) {
		hint := ""
		if v, ok := decimal(strings.TrimSpace(n.text())); ok && v >= uint64(lowest) && v <= uint64(highest) {
			hint = fmt.Sprintf("; write %d without quotes", v)
		} else if f, err := strconv.ParseFloat(n.text(), 64); err == nil && f >= float64(lowest) && f <= float64(highest) && f == float64(uint32(f)) {
			hint = fmt.Sprintf(" (did you mean %d?)", uint32(f))
		}
		r.problem(n, at, "%s, expected %s%s", n.found(), expected, hint)
		return 0, false
	}
	v, ok := decimal(n.text())
	if !ok && !strings.HasPrefix(n.text(), "-") {
		hint := ""
		plain := strings.TrimPrefix(strings.ReplaceAll(n.text(), "_", ""), "+")
		if stripped := strings.TrimLeft(plain, "0"); stripped != "" && isDigits(stripped) {
			plain = stripped
		}
		if v, err := strconv.ParseUint(plain, 0, 64); err == nil && v >= uint64(lowest) && v <= uint64(highest) {
			hint = fmt.Sprintf(" (did you mean %d?)", v)
		}
		r.problem(n, at, "%s, expected %s in plain decimal digits%s", n.found(), expected, hint)
		return 0, false
	}
	if !ok || v < uint64(lowest) || v > uint64(highest) {
		r.problem(n, at, "%s is out of range; allowed: %d to %d", shorten(n.text()), lowest, highest)
		return 0, false
	}
	return uint32(v), true
}

func isDigits(s string) bool {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return s != ""
}

// decimal reads digits without a leading zero. A number beyond uint64 is as good
// as the largest one.
func decimal(s string) (uint64, bool) {
	if !isDigits(s) || len(s) > 1 && s[0] == '0' {
		return 0, false
	}
	v, _ := strconv.ParseUint(s, 10, 64)
	return v, true
}
