package health_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"reverseproxy/dataplane/internal/resolve"
	"reverseproxy/dataplane/internal/resolve/resolvetest"
)

// addresses returns those of the members of an endpoint.
func (f *fixture) addresses(endpoint string) string {
	var list []string
	for _, m := range f.pool(endpoint).Members() {
		list = append(list, m.Health.State.Addr())
	}
	return strings.Join(list, " ")
}

func (f *fixture) wantAddresses(endpoint, want string) {
	f.t.Helper()
	eventually(f.t, endpoint+" has "+want, func() bool { return f.addresses(endpoint) == want })
}

func TestAddressesAreMembers(t *testing.T) {
	server := resolvetest.Start(t)
	server.Set("shop.example.", "127.0.0.2", "127.0.0.3")
	f := start(t, resolve.Server(server.Addr))
	f.serve(endpoint("e", "http://shop.example.:8080/x", "http://127.0.0.1:8080"), endpoint("f", "http://Shop.Example.:81"), endpoint("g", "http://127.0.0.1"))
	f.wantAddresses("e", "127.0.0.2:8080 127.0.0.3:8080 127.0.0.1:8080")
	f.wantAddresses("f", "127.0.0.2:81 127.0.0.3:81")
	if got := f.gets("e"); got != "012" {
		t.Errorf("%s get requests", got)
	}
	if got := f.pool("e").Members()[1]; got.Host != "shop.example.:8080" || got.URL != "http://shop.example.:8080/x" {
		t.Errorf("a member of %s for %s", got.URL, got.Host)
	}
	kept := f.member("e", 1)

	server.Set("shop.example.", "127.0.0.3", "127.0.0.4")
	f.wantAddresses("e", "127.0.0.3:8080 127.0.0.4:8080 127.0.0.1:8080")
	f.wantAddresses("f", "127.0.0.3:81 127.0.0.4:81")
	if f.member("e", 0) != kept {
		t.Error("an address that has stayed is another member")
	}
	if got := f.gets("e"); got != "012" {
		t.Errorf("%s get requests", got)
	}
	f.serve(endpoint("e", "http://shop.example.:8080/x", "http://127.0.0.9:8080"))
	if got := f.addresses("e"); got != "127.0.0.3:8080 127.0.0.4:8080 127.0.0.9:8080" || f.member("e", 0) != kept {
		t.Errorf("after another table: %s", got)
	}

	server.Set("shop.example.") // no such host any more
	eventually(t, "a line", func() bool { return strings.Contains(f.logged(), "name cannot be resolved") })
	asked := server.Asked()
	eventually(t, "lookups go on", func() bool { return server.Asked() > asked+4 })
	if got := f.addresses("e"); got != "127.0.0.3:8080 127.0.0.4:8080 127.0.0.9:8080" {
		t.Errorf("a name that stops resolving has %s", got)
	}
	if n := strings.Count(f.logged(), "name cannot be resolved"); n != 1 {
		t.Errorf("logged %d times:\n%s", n, f.logged())
	}
}

// A name that has never been found has no member; until that is known, it is dialled
// as it is.
func TestNameThatIsNotFound(t *testing.T) {
	server := resolvetest.Start(t)
	server.Hold()
	f := start(t, resolve.Server(server.Addr))
	f.serve(endpoint("e", "http://shop.example.", "http://127.0.0.1"), endpoint("f", "http://other.example."))
	if got := f.addresses("e") + " " + f.addresses("f"); got != "shop.example.:80 127.0.0.1:80 other.example.:80" {
		t.Errorf("before the first answer: %s", got)
	}
	server.Release()
	f.wantAddresses("e", "127.0.0.1:80")
	f.wantAddresses("f", "")
	if got := f.gets("e") + f.gets("f"); got != "0" {
		t.Errorf("%s get requests", got)
	}
	server.Set("shop.example.", "127.0.0.2")
	server.Set("other.example.", "127.0.0.2")
	f.wantAddresses("e", "127.0.0.2:80 127.0.0.1:80")
	f.wantAddresses("f", "127.0.0.2:80")
}

// Each address is probed, with the name as the host.
func TestAddressesAreProbed(t *testing.T) {
	server := resolvetest.Start(t)
	server.Set("shop.example.", "127.0.0.1", "127.0.0.2")
	o := newOrigin(t) // on 127.0.0.1
	port := addr(o)[strings.LastIndexByte(addr(o), ':'):]
	f := start(t, resolve.Server(server.Addr))
	f.serve(probed(endpoint("e", "http://shop.example."+port)))
	f.wantAddresses("e", "127.0.0.1"+port+" 127.0.0.2"+port)
	eventually(t, "the other address is out", func() bool { return f.gets("e") == "0" })
	if _, r := o.seen(); r.Host != "shop.example."+port {
		t.Errorf("it was asked for %s", r.Host)
	}
	server.Set("shop.example.", "127.0.0.2")
	f.wantAddresses("e", "127.0.0.2"+port)
	if diff := cmp.Diff("0", f.gets("e")); diff != "" { // panic: the only one is used
		t.Error(diff)
	}
	server.Set("shop.example.", "127.0.0.1", "127.0.0.2")
	f.wantAddresses("e", "127.0.0.1"+port+" 127.0.0.2"+port)
	if got := f.gets("e"); got != "0" {
		t.Errorf("%s get requests", got)
	}
}
