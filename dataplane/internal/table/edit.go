package table

import (
	"fmt"
	"slices"
	"strconv"

	"reverseproxy/proto/routetable"
	routetablev1 "reverseproxy/proto/routetable/v1"
)

// Edits are changes to the header fields of a message.
type Edits struct {
	// Drop are the names, in lower case, of the fields that do not pass: those that
	// are removed, and those that are set.
	Drop []string
	// Lines are the field lines that are added behind the others.
	Lines routetable.Template
}

// newEdits returns nil when there are none.
func newEdits(w *routetablev1.HeaderEdits) *Edits {
	if w == nil {
		return nil
	}
	e := &Edits{Drop: slices.Clone(w.GetRemove()), Lines: routetable.FieldLines(slices.Concat(w.GetSet(), w.GetAdd())...)}
	for _, h := range w.GetSet() {
		e.Drop = append(e.Drop, lowerName(h))
	}
	return e
}

func lowerName(h *routetablev1.Header) string {
	return string(routetable.AppendLower(nil, h.GetName()))
}

// Drops reports whether a field called name, in lower case, does not pass.
func (e *Edits) Drops(name string) bool { return e != nil && slices.Contains(e.Drop, name) }

// Answer is what an endpoint without a pool answers.
type Answer struct {
	Status int
	// Location is where a redirect goes to; nil: it is none.
	Location routetable.Template
	// Lines are the field lines of another answer.
	Lines routetable.Template
	Body  []byte
}

// newAnswer returns nil when a backend answers.
func newAnswer(w *routetablev1.Endpoint, response *Edits) *Answer {
	switch a := w.GetAnswer().(type) {
	case *routetablev1.Endpoint_Redirect:
		to, err := routetable.ParseLocation(a.Redirect.GetTo())
		if err != nil {
			panic("a valid table has an invalid location: " + err.Error())
		}
		return &Answer{Status: int(a.Redirect.GetStatus()), Location: to}
	case *routetablev1.Endpoint_Respond:
		r := a.Respond
		fields := slices.Clone(r.GetHeaders())
		if len(r.GetBody()) > 0 && !slices.ContainsFunc(fields, func(h *routetablev1.Header) bool { return lowerName(h) == contentType }) {
			fields = append(fields, &routetablev1.Header{Name: "Content-Type", Value: "text/plain; charset=utf-8"})
		}
		fields = slices.DeleteFunc(fields, func(h *routetablev1.Header) bool { return response.Drops(lowerName(h)) })
		return &Answer{Status: int(r.GetStatus()), Lines: routetable.FieldLines(fields...), Body: r.GetBody()}
	}
	return nil
}

const contentType = "content-type"

func describeAnswer(w *routetablev1.Endpoint) string {
	switch a := w.GetAnswer().(type) {
	case *routetablev1.Endpoint_Redirect:
		return fmt.Sprintf("%d %s", a.Redirect.GetStatus(), a.Redirect.GetTo())
	case *routetablev1.Endpoint_Respond:
		return strconv.Itoa(int(a.Respond.GetStatus()))
	}
	return ""
}

// Rewrite makes the path of q the one that backends are asked for; only after a
// Match of q that returned e. It returns false when that is no valid path.
func (e *Endpoint) Rewrite(q *Query) bool {
	if e.rewrite == nil {
		return true
	}
	path := q.Path
	if len(path) == 0 {
		path = root
	}
	normal := path
	if !routetable.IsNormalPath(path) {
		q.path, _ = routetable.AppendNormalPath(q.path[:0], path) // which Match has done without an error
		normal = q.path
	}
	var ok bool
	q.rewritten, ok = e.rewrite.Append(q.rewritten[:0], path, normal, int(e.segments))
	return ok
}
