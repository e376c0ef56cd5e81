package proxy_test

import (
	"strings"
	"testing"

	routetablev1 "reverseproxy/proto/routetable/v1"
)

// A field in the place of which the endpoint puts another, or none, does not pass in
// the spelling that backends read as the same.
func TestEditedNamesWithUnderscores(t *testing.T) {
	w := newWorldOf(t, valid(t, wire(edited(&routetablev1.HeaderEdits{
		Set: []*routetablev1.Header{field("X-User-Name", "nobody")}, Remove: []string{"x-role", "x_admin"},
	}, nil))))
	w.data(w.accept(), "GET / HTTP/1.1\r\nHost: a\r\nX_User-Name: evil\r\nx-user_name: evil\r\nX-Admin: evil\r\nX_Role: evil\r\n\r\n")
	w.connect(w.dialled[0])
	if got := w.dialled[0].take(); strings.Contains(got, "evil") {
		t.Errorf("sent\n%s", got)
	}
}
