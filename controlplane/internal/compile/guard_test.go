package compile_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"reverseproxy/controlplane/internal/compile"
	"reverseproxy/proto/routetable"
	routetablev1 "reverseproxy/proto/routetable/v1"
)

// numbered is a file of the endpoints /from to /(to-1), each line changed by edit.
func numbered(from, to int, edit func(line string) string) string {
	file := "port: 8000\nendpoints:\n"
	if from == to {
		return "port: 8000\nendpoints: []\n"
	}
	for i := from; i < to; i++ {
		line := fmt.Sprintf("- {from: /%d, pool: [http://h]}\n", i)
		if edit != nil {
			line = edit(line)
		}
		file += line
	}
	return file
}

func replace(old, new string) func(string) string {
	return func(line string) string { return strings.ReplaceAll(line, old, new) }
}

func TestCheckDrop(t *testing.T) {
	version := routetable.Version(table(t, numbered(0, 10, nil)))
	tests := []struct {
		name     string
		old, new string
		ack      string
		force    bool
		dropped  int // 0: the update passes
	}{
		{name: "first table", new: numbered(0, 0, nil)},
		{name: "none had none", old: numbered(0, 0, nil), new: numbered(0, 0, nil)},
		{name: "all of one", old: numbered(0, 1, nil), new: numbered(0, 0, nil), dropped: 1},
		{name: "all of ten", old: numbered(0, 10, nil), new: numbered(0, 0, nil), dropped: 10},
		{name: "half of ten", old: numbered(0, 10, nil), new: numbered(0, 5, nil)},
		{name: "more than half of ten", old: numbered(0, 10, nil), new: numbered(0, 4, nil), dropped: 6},
		{name: "most of nine", old: numbered(0, 9, nil), new: numbered(0, 1, nil)},
		{name: "six of eleven", old: numbered(0, 11, nil), new: numbered(0, 5, nil), dropped: 6},
		{name: "five of eleven", old: numbered(0, 11, nil), new: numbered(0, 6, nil)},
		{name: "replaced by others", old: numbered(0, 10, nil), new: numbered(10, 30, nil), dropped: 10},
		{name: "grown", old: numbered(0, 10, nil), new: numbered(0, 100, nil)},
		{name: "other pools and conditions", old: numbered(0, 10, nil), new: numbered(0, 10, replace("pool: [http://h]", "methods: [GET], pool: [http://other]"))},
		{name: "exact became prefix", old: numbered(0, 10, nil), new: numbered(0, 10, replace(", pool", "/*, pool")), dropped: 10},
		{name: "limited to a host", old: numbered(0, 10, nil), new: numbered(0, 10, replace("pool", "host: a.example, pool")), dropped: 10},
		{name: "a host more", old: numbered(0, 10, replace("pool", "host: a.example, pool")), new: numbered(0, 10, replace("pool", "host: [a.example, b.example], pool"))},
		{name: "a host fewer", old: numbered(0, 10, replace("pool", "host: [a.example, b.example], pool")), new: numbered(0, 10, replace("pool", "host: b.example, pool"))},
		{name: "forced", old: numbered(0, 10, nil), new: numbered(0, 0, nil), force: true},
		{name: "acknowledged", old: numbered(0, 10, nil), new: numbered(0, 4, nil), ack: version[:8]},
		{name: "acknowledged in full", old: numbered(0, 10, nil), new: numbered(0, 0, nil), ack: strings.ToUpper(version)},
		{name: "acknowledged too briefly", old: numbered(0, 10, nil), new: numbered(0, 4, nil), ack: version[:7], dropped: 6},
		{name: "acknowledged another version", old: numbered(0, 12, nil), new: numbered(0, 4, nil), ack: version[:8], dropped: 8},
		{name: "stale acknowledgement without a drop", old: numbered(0, 12, nil), new: numbered(0, 12, nil), ack: version[:8]},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var old *routetablev1.RouteTable
			if tt.old != "" {
				old = table(t, tt.old)
			}
			err := compile.CheckDrop(old, table(t, tt.new), tt.ack, tt.force)
			if tt.dropped == 0 {
				if err != nil {
					t.Errorf("refused: %v", err)
				}
				return
			}
			var drop *compile.DropError
			if !errors.As(err, &drop) {
				t.Fatalf("CheckDrop = %v, want a *DropError", err)
			}
			if len(drop.Dropped) != tt.dropped || drop.Of != len(old.GetEndpoints()) {
				t.Errorf("drops %d of %d, want %d of %d", len(drop.Dropped), drop.Of, tt.dropped, len(old.GetEndpoints()))
			}
			// The remedy that the error shows works.
			ack, ok := strings.CutPrefix(drop.Acknowledgement(), "acknowledgeDrop: ")
			if !ok || compile.CheckDrop(old, table(t, tt.new+drop.Acknowledgement()+"\n"), ack, false) != nil {
				t.Errorf("the remedy %q does not work", drop.Acknowledgement())
			}
		})
	}
}

func TestDropErrorText(t *testing.T) {
	tests := []struct {
		name     string
		old, new string
		ack      string
		want     string
	}{
		{"all", numbered(0, 2, nil), numbered(0, 0, nil), "",
			`the update drops all 2 endpoints (/0, /1) and was refused, because a half-written file looks like that; the route table in use stays.` +
				` If it is meant, run "controlplane apply --force CONFIG", or add this line at the top level of the file: acknowledgeDrop: VERSION`},
		{"most, with an old acknowledgement", numbered(0, 10, nil), numbered(0, 2, nil), "01234567",
			`the update drops 8 of 10 endpoints (/2, /3, /4 and 5 more) and was refused, because a half-written file looks like that; the route table in use stays.` +
				` The file acknowledges the loss of another version, 01234567.` +
				` If it is meant, run "controlplane apply --force CONFIG", or add this line at the top level of the file: acknowledgeDrop: VERSION`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			old := table(t, tt.old)
			err := compile.CheckDrop(old, table(t, tt.new), tt.ack, false)
			want := strings.ReplaceAll(tt.want, "VERSION", routetable.Version(old)[:8])
			if err == nil || err.Error() != want {
				t.Errorf("got  %v\nwant %s", err, want)
			}
		})
	}
}
