package edge_test

import (
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"

	"github.com/loadlinehq/loadline/edge"
)

// client is whom a chain takes for the client.
func client(t testing.TB, c edge.ClientAddressConfig, remote string, header ...string) (addr netip.Addr) {
	t.Helper()
	address, err := edge.ClientAddress(c)
	if err != nil {
		t.Fatal(err)
	}
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r.RemoteAddr = remote
	name := c.Header
	if name == "" {
		name = "X-Forwarded-For"
	}
	for _, line := range header {
		r.Header.Add(name, line)
	}
	address(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { addr = edge.ClientAddr(r.Context()) })).ServeHTTP(httptest.NewRecorder(), r)
	return addr
}

func TestClientAddress(t *testing.T) {
	t.Parallel()
	proxies := edge.ClientAddressConfig{Trusted: []string{"10.0.0.0/8", "fd00::/8", "192.0.2.7"}}
	rfc7239 := edge.ClientAddressConfig{Trusted: proxies.Trusted, Header: "forwarded"}
	single := edge.ClientAddressConfig{Trusted: proxies.Trusted, Header: "CF-Connecting-IP"}
	for name, test := range map[string]struct {
		c      edge.ClientAddressConfig
		remote string
		header []string
		want   string
	}{
		"nobody is trusted":              {edge.ClientAddressConfig{}, "203.0.113.9:1234", []string{"198.51.100.1"}, "203.0.113.9"},
		"a proxy":                        {proxies, "10.0.0.1:80", []string{"198.51.100.1"}, "198.51.100.1"},
		"two proxies":                    {proxies, "10.0.0.1:80", []string{"198.51.100.1, 10.1.2.3"}, "198.51.100.1"},
		"two lines":                      {proxies, "10.0.0.1:80", []string{"1.1.1.1, 198.51.100.1", "10.1.2.3"}, "198.51.100.1"},
		"what a client says of himself":  {proxies, "10.0.0.1:80", []string{"127.0.0.1, 8.8.8.8, 198.51.100.1"}, "198.51.100.1"},
		"who is no proxy says something": {proxies, "203.0.113.9:1234", []string{"10.0.0.1"}, "203.0.113.9"},
		"a client within":                {proxies, "10.0.0.1:80", []string{"10.9.9.9"}, "10.9.9.9"},
		"no header":                      {proxies, "10.0.0.1:80", nil, "10.0.0.1"},
		"no address":                     {proxies, "10.0.0.1:80", []string{"198.51.100.1, unknown, 10.1.2.3"}, "10.1.2.3"},
		"an empty entry":                 {proxies, "10.0.0.1:80", []string{"198.51.100.1, , 10.1.2.3"}, "10.1.2.3"},
		"with a port":                    {proxies, "10.0.0.1:80", []string{"198.51.100.1:4321"}, "198.51.100.1"},
		"IPv6":                           {proxies, "[fd00::1]:80", []string{"2001:db8::5"}, "2001:db8::5"},
		"IPv6 in brackets":               {proxies, "[fd00::1]:80", []string{"[2001:db8::5]:443"}, "2001:db8::5"},
		"IPv4 in IPv6":                   {proxies, "[::ffff:10.0.0.1]:80", []string{"::ffff:198.51.100.1"}, "198.51.100.1"},
		"a zone":                         {proxies, "[fd00::1%eth0]:80", []string{"2001:db8::5"}, "2001:db8::5"},
		"a single trusted address":       {proxies, "192.0.2.7:80", []string{"198.51.100.1"}, "198.51.100.1"},
		"a network of IPv4 in IPv6":      {edge.ClientAddressConfig{Trusted: []string{"::ffff:10.0.0.0/104"}}, "10.0.0.1:80", []string{"198.51.100.1"}, "198.51.100.1"},
		"its neighbour":                  {proxies, "192.0.2.8:80", []string{"198.51.100.1"}, "192.0.2.8"},
		"more than there are proxies":    {proxies, "10.0.0.1:80", []string{"198.51.100.1" + strings.Repeat(", 10.0.0.2", 40)}, "10.0.0.2"},
		"a Unix socket":                  {proxies, "@", []string{"198.51.100.1"}, "invalid IP"},
		"RFC 7239":                       {rfc7239, "10.0.0.1:80", []string{`for=1.1.1.1, For="198.51.100.1:80";proto=https`, `by=10.0.0.3;for=10.1.2.3`}, "198.51.100.1"},
		"RFC 7239, section 6, IPv6":      {rfc7239, "10.0.0.1:80", []string{`for="[2001:db8::5]:4711"`}, "2001:db8::5"},
		"RFC 7239, section 6.3, hidden":  {rfc7239, "10.0.0.1:80", []string{`for=198.51.100.1, for=_hidden, for=10.1.2.3`}, "10.1.2.3"},
		"a header of one address":        {single, "10.0.0.1:80", []string{"2001:db8::5"}, "2001:db8::5"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := client(t, test.c, test.remote, test.header...); got.String() != test.want {
				t.Errorf("%v, want %s", got, test.want)
			}
		})
	}
}

func TestBadTrusted(t *testing.T) {
	t.Parallel()
	_, err := edge.ClientAddress(edge.ClientAddressConfig{Trusted: []string{"10.0.0.0/8", "proxy", "10.0.0.1/8"}})
	if err == nil || !strings.Contains(err.Error(), `number 2 is "proxy"`) || !strings.Contains(err.Error(), "the network of that is 10.0.0.0/8") {
		t.Errorf("%v", err)
	}
}

func TestClientNetwork(t *testing.T) {
	t.Parallel()
	for addr, want := range map[string]string{"198.51.100.1": "198.51.100.1/32", "2001:db8:1:2:3:4:5:6": "2001:db8:1:2::/64"} {
		if got := edge.ClientNetwork(netip.MustParseAddr(addr)); got.String() != want {
			t.Errorf("%s: %v, want %s", addr, got, want)
		}
	}
	if got := edge.ClientNetwork(netip.Addr{}); got.IsValid() {
		t.Errorf("of no address it is %v", got)
	}
}

// Whatever a client sends through one proxy that appends to it, he is taken for himself.
func FuzzClientAddress(f *testing.F) {
	for _, said := range []string{"", "10.0.0.1", "1.2.3.4, ", "\"", ",,,", "for=1.2.3.4", "[::1]:1", "::ffff:10.0.0.1", strings.Repeat("1,", 1000)} {
		f.Add(said)
	}
	f.Fuzz(func(t *testing.T, said string) {
		c := edge.ClientAddressConfig{Trusted: []string{"10.0.0.0/8"}}
		if got := client(t, c, "10.0.0.1:80", said+", 198.51.100.1"); got.String() != "198.51.100.1" {
			t.Errorf("%q buys him %v", said, got)
		}
		c.Header = "Forwarded"
		if got := client(t, c, "10.0.0.1:80", said+`, for="198.51.100.1"`); got.String() != "198.51.100.1" {
			t.Errorf("%q buys him %v", said, got)
		}
	})
}
