package compile

import (
	"fmt"
	"strings"

	"reverseproxy/controlplane/internal/places"
	"reverseproxy/proto/routetable"
	routetablev1 "reverseproxy/proto/routetable/v1"
)

const (
	// guardedEndpoints is from how many endpoints on a table may not lose more
	// than half of them; smaller ones change like that in ordinary work.
	guardedEndpoints = 10
	// shownVersion is how many digits of a version an acknowledgement needs.
	shownVersion = 8
	// shownEndpoints is how many dropped endpoints an error names.
	shownEndpoints = 3
)

// DropError refuses an update that loses suspiciously many endpoints: a file that
// was read while it was being written, or whose generator lost its source, is
// often a valid file with fewer endpoints.
type DropError struct {
	// Dropped are the names of the endpoints that would be lost, sorted.
	Dropped []string
	// Of is the number of endpoints now.
	Of int
	// Left is the number of endpoints after the update.
	Left int
	// Version of the table that would be replaced.
	Version string
	// Acknowledged is an acknowledgement that was given for another version,
	// else empty.
	Acknowledged string
}

// Acknowledgement is the line that lets the update pass when it is added at the
// top level of the file.
func (e *DropError) Acknowledgement() string { return "acknowledgeDrop: " + e.Version[:shownVersion] }

// Loss says what would be lost.
func (e *DropError) Loss() string {
	var b strings.Builder
	if e.Left == 0 {
		fmt.Fprintf(&b, "the update drops all %d endpoints", e.Of)
	} else {
		fmt.Fprintf(&b, "the update drops %d of %d endpoints", len(e.Dropped), e.Of)
	}
	shown := e.Dropped[:min(len(e.Dropped), shownEndpoints)]
	fmt.Fprintf(&b, " (%s", strings.Join(shown, ", "))
	if more := len(e.Dropped) - len(shown); more > 0 {
		fmt.Fprintf(&b, " and %d more", more)
	}
	return b.String() + ")"
}

// Error says what would be lost and how to go on if it is meant.
func (e *DropError) Error() string {
	text := e.Loss() + " and was refused, because a half-written file looks like that; the route table in use stays."
	if e.Acknowledged != "" {
		text += fmt.Sprintf(" The file acknowledges the loss of another version, %s.", e.Acknowledged)
	}
	return text + fmt.Sprintf(` If it is meant, run "controlplane apply --force CONFIG", or add this line at the top level of the file: %s`,
		e.Acknowledgement())
}

// CheckDrop guards an update of the route table. It refuses with a *DropError one
// that leaves no endpoint of a table that had some, and one that drops more than
// half of ten or more. It passes with force, or when ack, the file's
// acknowledgeDrop, is the beginning (at least 8 digits) of old's version: so an
// acknowledgement has an effect once and none when it is left in the file.
//
// An endpoint is dropped when no endpoint of the new table has its path together
// with one of its host patterns; name, conditions and pool do not matter. There
// is nothing to guard when old is nil.
func CheckDrop(old, new *routetablev1.RouteTable, ack string, force bool) error {
	dropped := droppedEndpoints(old, new)
	of, left := len(old.GetEndpoints()), len(new.GetEndpoints())
	emptied := of > 0 && left == 0
	halved := of >= guardedEndpoints && 2*len(dropped) > of
	if force || !emptied && !halved {
		return nil
	}
	version := routetable.Version(old)
	ack = strings.ToLower(ack)
	if len(ack) >= shownVersion && strings.HasPrefix(version, ack) {
		return nil
	}
	return &DropError{Dropped: dropped, Of: of, Left: left, Version: version, Acknowledged: ack}
}

// droppedEndpoints returns the names of old's endpoints that are not in new, in
// old's order.
func droppedEndpoints(old, new *routetablev1.RouteTable) []string {
	kept := make(map[places.Place]struct{}, len(new.GetEndpoints()))
	for _, e := range new.GetEndpoints() {
		for p := range places.Of(e) {
			kept[p] = struct{}{}
		}
	}
	var dropped []string
	for _, e := range old.GetEndpoints() {
		found := false
		for p := range places.Of(e) {
			if _, found = kept[p]; found {
				break
			}
		}
		if !found {
			dropped = append(dropped, e.GetName())
		}
	}
	return dropped
}
