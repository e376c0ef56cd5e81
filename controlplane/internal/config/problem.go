package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Position is a place in the file. Lines and columns count from 1, columns in
// characters. The zero Position is the file as a whole.
type Position struct {
	Line, Column int
}

// Problem is one mistake in a file.
type Problem struct {
	// File is the name given to Load.
	File string
	Position
	// Path is the YAML path, such as endpoints[2].pool[0]; empty for the file as
	// a whole.
	Path string
	// Message says what is wrong and what is allowed.
	Message string
}

// String formats the problem as "file:line:column: path: message".
func (p Problem) String() string {
	path := p.Path
	if path == "" {
		path = "file"
	}
	return fmt.Sprintf("%s:%d:%d: %s: %s", p.File, p.Line, p.Column, path, p.Message)
}

const (
	// keptProblems bounds the memory that a hopeless file takes.
	keptProblems = 10_000
	// printedProblems bounds what Error prints: nobody reads more.
	printedProblems = 1_000
)

// Errors is all that is wrong with a file.
type Errors struct {
	// Problems, in the order of the file; at least one.
	Problems []Problem
	// Omitted is how many more problems there are.
	Omitted int
}

// Error prints one problem per line, the first 1,000 of them.
func (e *Errors) Error() string {
	var b strings.Builder
	for i, p := range e.Problems {
		if i == printedProblems {
			break
		}
		if i > 0 {
			b.WriteByte('\n')
		}
		b.WriteString(p.String())
	}
	if more := len(e.Problems) + e.Omitted - printedProblems; more > 0 {
		fmt.Fprintf(&b, "\nand %d more problems", more)
	}
	return b.String()
}

// problems collects what is wrong. A value that several aliases stand for is
// read several times; its problem is reported once, for the first path.
type problems struct {
	kept    []Problem
	seen    map[problemKey]struct{}
	omitted int
	added   int // repetitions and omitted ones included
}

type problemKey struct {
	Position
	message string
}

func (c *problems) add(p Problem) {
	c.added++
	key := problemKey{p.Position, p.Message}
	if _, ok := c.seen[key]; ok {
		return
	}
	if c.seen == nil {
		c.seen = map[problemKey]struct{}{}
	}
	c.seen[key] = struct{}{}
	c.kept = append(c.kept, p)
}

// full counts a problem when no more are kept: its words would be in vain.
func (c *problems) full() bool {
	if len(c.kept) < keptProblems {
		return false
	}
	c.added++
	c.omitted++
	return true
}

// errors returns what was collected, nil if nothing.
func (c *problems) errors(file string, data []byte) error {
	if len(c.kept) == 0 {
		return nil
	}
	end := positionAt(data, len(data))
	for i := range c.kept {
		p := &c.kept[i]
		p.File = file
		p.Line, p.Column = max(p.Line, 1), max(p.Column, 1)
		// What is missing at the end of a file is missed in a line after it.
		if p.Line > end.Line {
			p.Position = end
		}
	}
	slices.SortStableFunc(c.kept, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	return &Errors{Problems: c.kept, Omitted: c.omitted}
}
