package tenancy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
)

// Errors of requests. Each says its status by HTTPStatus, as package edge answers it.
var (
	// ErrNotSaid: the request does not say whose it is (400).
	ErrNotSaid error = &requestError{http.StatusBadRequest, "the request does not say which tenant it is for"}
	// ErrUnknown: there is no such tenant (404).
	ErrUnknown error = &requestError{http.StatusNotFound, "there is no such tenant"}
	// ErrDisagree: the request says that it is of more than one tenant, such as the host of one, and a token of another (403).
	ErrDisagree error = &requestError{http.StatusForbidden, "the request is of another tenant"}
	// ErrMalformed: what says the tenant is no name of one (400).
	ErrMalformed error = &requestError{http.StatusBadRequest, "what says the tenant is no name of one"}
)

type requestError struct {
	status int
	text   string
}

func (e *requestError) Error() string   { return "tenancy: " + e.text }
func (e *requestError) HTTPStatus() int { return e.status }

// Resolver says whose a request is; "" if it does not know. Its errors are answered as they say, or 500.
type Resolver = func(r *http.Request) (tenant string, err error)

// ByHost takes the tenant from the host: of ByHost("example.com"), acme.example.com is acme's. Other hosts say nothing, nor do those under names
// that are no tenant's, such as www. Behind a proxy that changes the host, it has to be put back before.
func ByHost(domain string, except ...string) Resolver {
	suffix := "." + strings.ToLower(strings.Trim(domain, "."))
	return func(r *http.Request) (string, error) {
		host := r.Host
		if name, _, err := net.SplitHostPort(host); err == nil {
			host = name
		}
		tenant, found := strings.CutSuffix(strings.ToLower(strings.TrimSuffix(host, ".")), suffix)
		if !found || tenant == "" || strings.Contains(tenant, ".") {
			return "", nil
		}
		for _, name := range except {
			if strings.EqualFold(name, tenant) {
				return "", nil
			}
		}
		return tenant, nil
	}
}

// ByHeader takes the tenant from a header. Anybody can send one: it is for requests from behind a gateway that sets it, or where a claim has
// to agree with it.
func ByHeader(name string) Resolver {
	return func(r *http.Request) (string, error) {
		values := r.Header.Values(name)
		if len(values) > 1 {
			return "", ErrDisagree
		}
		return strings.TrimSpace(r.Header.Get(name)), nil
	}
}

// ByClaim takes the tenant from what authentication has put into the context, such as a claim of a token that was verified; "" is none.
func ByClaim(claim func(ctx context.Context) string) Resolver {
	return func(r *http.Request) (string, error) { return claim(r.Context()), nil }
}

// HTTPConfig says how a request's tenant is found.
type HTTPConfig struct {
	// Resolvers say whose a request is. All that say something have to say the same: what is of acme's host with a token of another's is
	// refused. It is required.
	Resolvers []Resolver
	// Exists reports whether there is such a tenant, which others are not told apart from: an application that makes rows for whom it does not know
	// grows without end. Keep its answers: it is asked for each request. Default all that can be are.
	Exists func(ctx context.Context, tenant string) (bool, error)
	// Default is the tenant of requests that say none. Default: they are refused, with [ErrNotSaid].
	Default string
	// Optional lets requests that say none go on without a tenant, in place of Default.
	Optional bool
	// Answer answers what is refused. Default: status and text by HTTPStatus and Error, as text.
	Answer func(w http.ResponseWriter, r *http.Request, err error)
}

// HTTP returns middleware that puts the tenant into the request's context. It goes behind what authenticates, where a claim says the tenant.
func HTTP(c HTTPConfig) (func(http.Handler) http.Handler, error) {
	switch {
	case len(c.Resolvers) == 0:
		return nil, errors.New("tenancy: HTTPConfig.Resolvers is empty: something has to say whose a request is")
	case c.Default != "" && c.Optional:
		return nil, errors.New("tenancy: HTTPConfig has Default and Optional: who says no tenant has one, or none")
	case c.Default != "":
		if err := Check(c.Default); err != nil {
			return nil, fmt.Errorf("tenancy: HTTPConfig.Default: %w", err)
		}
	}
	if c.Answer == nil {
		c.Answer = answer
	}
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			tenant, err := c.resolve(r)
			if err != nil {
				c.Answer(w, r, err)
				return
			}
			if tenant != "" {
				r = r.WithContext(context.WithValue(r.Context(), key{}, tenant)) // it is checked
			}
			next.ServeHTTP(w, r)
		})
	}, nil
}

func (c *HTTPConfig) resolve(r *http.Request) (tenant string, err error) {
	for _, resolve := range c.Resolvers {
		said, err := resolve(r)
		if err != nil {
			return "", err
		}
		if said != "" && tenant != "" && said != tenant {
			return "", ErrDisagree
		}
		if said != "" {
			tenant = said
		}
	}
	switch {
	case tenant == "" && c.Optional:
		return "", nil
	case tenant == "" && c.Default == "":
		return "", ErrNotSaid
	case tenant == "":
		return c.Default, nil
	}
	if err := Check(tenant); err != nil {
		return "", fmt.Errorf("%w (%v)", ErrMalformed, err)
	}
	if c.Exists != nil {
		exists, err := c.Exists(r.Context(), tenant)
		if err == nil && !exists {
			err = ErrUnknown
		}
		return tenant, err
	}
	return tenant, nil
}

func answer(w http.ResponseWriter, _ *http.Request, err error) {
	status := http.StatusInternalServerError
	text := http.StatusText(status) // what is behind is nobody's business
	var says interface{ HTTPStatus() int }
	if errors.As(err, &says) {
		status, text = says.HTTPStatus(), err.Error()
	}
	http.Error(w, text, status)
}
