package edge

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"strings"
)

// ClientAddressConfig says whom to believe. Its zero value believes nobody: the client is who has connected.
type ClientAddressConfig struct {
	// Trusted are the networks of proxies, such as "10.0.0.0/8", or single addresses. What one of them says of
	// who has connected to it is believed; and if that is trusted as well, what it had said before. Too few, and
	// all clients of a proxy are one; too many, and a client says who he is.
	Trusted []string
	// Header is where proxies say it: X-Forwarded-For, the default, Forwarded (RFC 7239), or one that a proxy sets to a
	// single address whatever a client sends, such as CF-Connecting-IP.
	Header string
}

// maxHops bounds how many entries of a header are looked at, from the right: what is left of so many proxies was
// made up.
const maxHops = 32

// ClientAddress puts the client's address into the request's context: see [ClientAddr]. It goes from the connection
// through what proxies have added, from right to left, to the first address that is not trusted; what is left of that
// is the client's own word, and of no value. An entry that is no address ends the walk at the one before.
func ClientAddress(c ClientAddressConfig) (func(http.Handler) http.Handler, error) {
	trusted, err := prefixes(c.Trusted)
	if err != nil {
		return nil, err
	}
	header := http.CanonicalHeaderKey(c.Header)
	if header == "" {
		header = "X-Forwarded-For"
	}
	hops := forwardedFor
	if header == "Forwarded" {
		hops = forwarded
	}
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			addr, _ := parseAddr(r.RemoteAddr)
			if isTrusted(trusted, addr) {
				n := 0
				for said := range hops(r.Header.Values(header)) {
					before, ok := parseAddr(said)
					if n++; !ok || n > maxHops {
						break
					}
					if addr = before; !isTrusted(trusted, addr) {
						break
					}
				}
			}
			next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), addrKey{}, addr)))
		})
	}, nil
}

type addrKey struct{}

// ClientAddr returns the address that [ClientAddress] has found. It is not valid without, and for a connection that
// has none, such as one of a Unix socket.
func ClientAddr(ctx context.Context) netip.Addr {
	addr, _ := ctx.Value(addrKey{}).(netip.Addr)
	return addr
}

// ClientNetwork is what one client is sure to have for himself: an IPv4 address, or the /64 of an IPv6 address, of which
// a household has 2^64. Limits count by it.
func ClientNetwork(addr netip.Addr) netip.Prefix {
	if !addr.IsValid() {
		return netip.Prefix{}
	}
	bits := 64
	if addr.Is4() {
		bits = 32
	}
	network, err := addr.Prefix(bits)
	if err != nil {
		return netip.Prefix{}
	}
	return network
}

func prefixes(texts []string) ([]netip.Prefix, error) {
	var all []netip.Prefix
	var errs []error
	for i, text := range texts {
		if addr, err := netip.ParseAddr(text); err == nil {
			all = append(all, netip.PrefixFrom(addr.Unmap(), addr.Unmap().BitLen()))
			continue
		}
		prefix, err := netip.ParsePrefix(text)
		if err != nil {
			errs = append(errs, fmt.Errorf("edge: ClientAddressConfig.Trusted number %d is %q: it is like 10.0.0.0/8, or an address", i+1, text))
			continue
		}
		if addr := prefix.Addr(); addr.Is4In6() && prefix.Bits() >= 96 { // as addresses are taken
			prefix = netip.PrefixFrom(addr.Unmap(), prefix.Bits()-96)
		}
		if prefix != prefix.Masked() {
			errs = append(errs, fmt.Errorf("edge: ClientAddressConfig.Trusted number %d is %q, and the network of that is %v", i+1, text, prefix.Masked()))
			continue
		}
		all = append(all, prefix)
	}
	return all, errors.Join(errs...)
}

func isTrusted(trusted []netip.Prefix, addr netip.Addr) bool {
	for _, prefix := range trusted {
		if prefix.Contains(addr) {
			return true
		}
	}
	return false
}

// parseAddr takes an address with or without a port, as proxies write it. An IPv4 address in an IPv6 one is that, and
// zones, which mean nothing to others, are left out.
func parseAddr(text string) (netip.Addr, bool) {
	text = strings.TrimSpace(text)
	addr, err := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(text, "["), "]"))
	if err != nil {
		with, err := netip.ParseAddrPort(text)
		if err != nil {
			return netip.Addr{}, false
		}
		addr = with.Addr()
	}
	return addr.Unmap().WithZone(""), true
}

// forwardedFor returns the entries of X-Forwarded-For, the last first. Several lines are one list (RFC 9110, 5.3).
func forwardedFor(lines []string) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		for i := len(lines) - 1; i >= 0; i-- {
			for rest, more := lines[i], true; more; {
				at := strings.LastIndexByte(rest, ',')
				said := rest[at+1:]
				if more = at >= 0; more {
					rest = rest[:at]
				}
				if !yield(said) {
					return
				}
			}
		}
	}
}

// forwarded returns the for= of the elements of Forwarded, the last first; one that has none, or hides it, is an empty
// text. A comma in a quoted text would cut it in two, and no address has one.
func forwarded(lines []string) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		for element := range forwardedFor(lines) {
			node := ""
			for pair := range strings.SplitSeq(element, ";") {
				name, value, _ := strings.Cut(strings.TrimSpace(pair), "=")
				if strings.EqualFold(name, "for") {
					node = strings.Trim(value, `"`)
				}
			}
			if !yield(node) {
				return
			}
		}
	}
}
