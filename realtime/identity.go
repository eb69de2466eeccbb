package realtime

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"github.com/loadlinehq/loadline/tenancy"
)

// Errors of authentication. Others say that it is not known now: the client is asked to come back.
var (
	// ErrUnauthenticated: the client is nobody that may connect, and need not try again.
	ErrUnauthenticated = errors.New("realtime: not authenticated")
	// ErrExpired: what the client has shown has ended; it may come back with something newer.
	ErrExpired = errors.New("realtime: the token has expired")
)

// Identity is who a client is.
type Identity struct {
	// User is "" for somebody who is not known, which a [Permission] may allow.
	User string
	// Tenant is as package tenancy has it; "": none.
	Tenant string
	// Expires is when to ask again. Default never. A client is asked earlier, by up to a fifth of the time that is left, so that
	// those who came together do not all come back together.
	Expires time.Time
	// Info is shown to those who listen where a [Namespace] has Presence or JoinLeave, who hear the User of what clients publish anyway. Default nothing.
	Info json.RawMessage
}

func (i Identity) check() error {
	if i.Tenant != "" {
		if err := tenancy.Check(i.Tenant); err != nil {
			return err
		}
	}
	if len(i.Info) > 0 && !json.Valid(i.Info) {
		return errors.New("realtime: Identity.Info is not JSON")
	}
	return nil
}

// id is unique among the users of all tenants, and of none: a tenant's name has no slash, and is not empty.
func (i Identity) id() string {
	if i.User == "" || i.Tenant == "" && !strings.Contains(i.User, "/") {
		return i.User
	}
	return i.Tenant + "/" + i.User
}

// same reports whether who has shown something newer is who it was.
func (i Identity) same(j Identity) bool { return i.User == j.User && i.Tenant == j.Tenant }

// expireAt is when to ask again, in seconds since 1970; 0: never.
func (i Identity) expireAt(now time.Time) int64 {
	if i.Expires.IsZero() {
		return 0
	}
	left := i.Expires.Sub(now)
	if left <= 0 {
		return now.Unix()
	}
	return now.Add(left - time.Duration(rand.Float64()*float64(left)/5)).Unix()
}

// Anonymous is an Authenticate for gateways where nobody needs to be known.
func Anonymous(*http.Request) (Identity, error) { return Identity{}, nil }

// client is what the gateway knows of a connection, in its context.
type client struct {
	who Identity
	// known: it was by its request, and not by a token.
	known bool
	again *http.Request // what Authenticate is asked by once more; nil: it need not be

	commands *rate.Limiter
	poll     *poll // nil: it has another transport
	address  string
	// comesBack is where the client was, of the subscription that it asks for; nil: it begins.
	comesBack atomic.Pointer[position]
	unsure    atomic.Int32 // how often it could not be asked again since it was known
}

type clientKey struct{}

func withClient(ctx context.Context, c *client) context.Context {
	return context.WithValue(ctx, clientKey{}, c)
}

func clientOf(ctx context.Context) *client {
	c, _ := ctx.Value(clientKey{}).(*client)
	if c == nil {
		return &client{} // nobody
	}
	return c
}

// remembered is a request by which its sender is known again, without what else there was.
func remembered(r *http.Request) *http.Request {
	again := &http.Request{
		Method: r.Method, URL: r.URL, Proto: r.Proto, ProtoMajor: r.ProtoMajor, ProtoMinor: r.ProtoMinor, Host: r.Host, RemoteAddr: r.RemoteAddr,
		RequestURI: r.RequestURI, TLS: r.TLS, Body: http.NoBody, Header: make(http.Header, 2),
	}
	for _, name := range []string{"Authorization", "Cookie"} {
		if values := r.Header.Values(name); len(values) > 0 {
			again.Header[name] = values
		}
	}
	return again
}

// authenticate knows who has sent a request, unless a token is to say so.
func (g *Gateway) authenticate(r *http.Request) (*client, error) {
	address := ""
	if g.c.Address != nil {
		address = g.c.Address(r)
	}
	if g.c.Authenticate == nil {
		return &client{address: address}, nil
	}
	who, err := g.c.Authenticate(r)
	if err == nil {
		err = who.check()
	}
	if err != nil {
		if g.c.Token != nil && (errors.Is(err, ErrUnauthenticated) || errors.Is(err, ErrExpired)) {
			return &client{address: address}, nil // it may have a token
		}
		return nil, err
	}
	c := &client{who: who, known: true, address: address}
	if !who.Expires.IsZero() {
		c.again = remembered(r)
	}
	return c, nil
}

// byToken knows a client by what it sends in its first command.
func (g *Gateway) byToken(ctx context.Context, c *client, token string) (*client, error) {
	switch {
	case token == "" && c.known:
		return c, nil
	case token == "":
		return nil, fmt.Errorf("%w: there is no token", ErrUnauthenticated)
	case g.c.Token == nil:
		return nil, fmt.Errorf("%w: tokens are not taken here", ErrUnauthenticated)
	}
	who, err := g.c.Token(ctx, token)
	if err == nil {
		err = who.check()
	}
	if err != nil {
		return nil, err
	}
	return &client{who: who, commands: c.commands, poll: c.poll, address: c.address}, nil
}
