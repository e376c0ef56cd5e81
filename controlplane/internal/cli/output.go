package cli

import (
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// outputFormat is the value of -o.
type outputFormat string

// Set implements pflag.Value.
func (f *outputFormat) Set(s string) error {
	if s != "table" && s != "json" {
		return fmt.Errorf("%q is neither table nor json", s)
	}
	*f = outputFormat(s)
	return nil
}

// String implements pflag.Value.
func (f *outputFormat) String() string { return string(*f) }

// Type implements pflag.Value.
func (f *outputFormat) Type() string { return "table|json" }

// terminalWidth returns the columns of the terminal that a reader or writer is, and
// whether it is one.
func terminalWidth(stream any) (int, bool) {
	f, ok := stream.(*os.File)
	if !ok {
		return 0, false
	}
	size, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
	if err != nil {
		return 0, false
	}
	if size.Col == 0 {
		return 80, true // a terminal that does not know
	}
	return int(size.Col), true
}

// page is output for people: coloured and fitted when it goes to a terminal.
type page struct {
	w     io.Writer
	color bool
	width int // 0: not a terminal, no limit
}

func newPage(env *Env) *page {
	width, terminal := terminalWidth(env.Stdout)
	return &page{w: env.Stdout, color: terminal && !env.NoColor, width: width}
}

// Colours, by their meaning.
const (
	green  = "32"
	yellow = "33"
	red    = "31"
	bold   = "1"
	faint  = "2"
)

// paint colours a text, if there is colour. It is for text that is padded
// already: colour codes have no width.
func (p *page) paint(color, text string) string {
	if !p.color || color == "" || text == "" {
		return text
	}
	return "\x1b[" + color + "m" + text + "\x1b[0m"
}

func (p *page) printf(format string, args ...any) { fmt.Fprintf(p.w, format, args...) }

// cell is one field of a table.
type cell struct{ text, color string }

// table prints rows in aligned columns below a header. The last column is free
// text: where it does not fit beside the others it goes below them.
func (p *page) table(header []string, rows [][]cell) {
	last := len(header) - 1
	widths := make([]int, last)
	for i := range widths {
		widths[i] = utf8.RuneCountInString(header[i])
		for _, r := range rows {
			widths[i] = max(widths[i], utf8.RuneCountInString(r[i].text))
		}
	}
	titles := make([]cell, len(header))
	var used bool // the last column
	for _, r := range rows {
		used = used || r[last].text != ""
	}
	for i, h := range header {
		titles[i] = cell{h, bold}
	}
	if !used {
		titles[last].text = ""
	}
	for _, r := range append([][]cell{titles}, rows...) {
		var line strings.Builder
		taken := 0
		for i, width := range widths {
			line.WriteString(p.paint(r[i].color, pad(r[i].text, width)))
			line.WriteString("  ")
			taken += width + 2
		}
		note := r[last].text
		if p.width > 0 && note != "" && taken+utf8.RuneCountInString(note) > p.width {
			p.printf("%s\n    %s\n", strings.TrimRight(line.String(), " "), p.paint(r[last].color, note))
			continue
		}
		p.printf("%s\n", strings.TrimRight(line.String()+p.paint(r[last].color, note), " "))
	}
}

// pad fills a text with spaces up to a width in characters.
func pad(s string, width int) string {
	return s + strings.Repeat(" ", max(0, width-utf8.RuneCountInString(s)))
}

// short returns the first 12 digits of a version, or a dash for none.
func short(version string) string {
	if version == "" {
		return "-"
	}
	return version[:min(len(version), 12)]
}

// ago says how long ago something was.
func ago(d time.Duration) string {
	switch {
	case d < time.Second:
		return "now"
	case d < 2*time.Minute:
		return fmt.Sprintf("%ds ago", int(d.Seconds()))
	case d < 2*time.Hour:
		return fmt.Sprintf("%dm ago", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh ago", int(d.Hours()))
	default:
		return fmt.Sprintf("%dd ago", int(d.Hours())/24)
	}
}

// plural counts things, in words.
func plural(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return strconv.Itoa(n) + " " + thing + "s"
}

// oneLine joins the lines of a text for a table.
func oneLine(text string) string {
	return strings.Join(strings.Split(strings.TrimSpace(text), "\n"), "; ")
}
