package tenancy_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/loadlinehq/loadline/tenancy"
)

type claimKey struct{}

func ExampleHTTP() {
	tenants, err := tenancy.HTTP(tenancy.HTTPConfig{Resolvers: []tenancy.Resolver{tenancy.ByHost("example.com", "www")}})
	if err != nil {
		panic(err)
	}
	handler := tenants(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		tenant, _ := tenancy.FromContext(r.Context())
		fmt.Fprint(w, "for ", tenant)
	}))
	w := httptest.NewRecorder()
	handler.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "https://acme.example.com/", nil))
	fmt.Println(w.Body)
	// Output: for acme
}

func TestHTTP(t *testing.T) {
	t.Parallel()
	all := []tenancy.Resolver{
		tenancy.ByHost("example.com", "www"), tenancy.ByHeader("Tenant"),
		tenancy.ByClaim(func(ctx context.Context) string { claim, _ := ctx.Value(claimKey{}).(string); return claim }),
	}
	away := errors.New("the catalogue is away")
	exists := func(_ context.Context, tenant string) (bool, error) {
		if tenant == "away" {
			return false, away
		}
		return tenant != "nobody", nil
	}
	for _, c := range []struct {
		name, host, claim string
		headers           []string
		config            tenancy.HTTPConfig
		want              string
		status            int
	}{
		{name: "host", host: "acme.example.com", want: "acme"},
		{name: "host with port and dot, in capitals", host: "ACME.Example.com.:8080", want: "acme"},
		{name: "host that is no tenant's", host: "www.example.com", status: 400},
		{name: "the domain itself", host: "example.com", status: 400},
		{name: "another's domain", host: "acme.example.com.evil.org", status: 400},
		{name: "a name that ends alike", host: "acmeexample.com", status: 400},
		{name: "two levels", host: "a.b.example.com", status: 400},
		{name: "an address", host: "[::1]:80", status: 400},
		{name: "header", host: "x", headers: []string{" acme "}, want: "acme"},
		{name: "two headers", host: "x", headers: []string{"acme", "other"}, status: 403},
		{name: "claim", host: "x", claim: "acme", want: "acme"},
		{name: "all agree", host: "acme.example.com", headers: []string{"acme"}, claim: "acme", want: "acme"},
		{name: "another's token", host: "acme.example.com", claim: "other", status: 403},
		{name: "another's header", host: "acme.example.com", headers: []string{"other"}, status: 403},
		{name: "header and claim", host: "x", headers: []string{"other"}, claim: "acme", status: 403},
		{name: "no name", host: "x", headers: []string{"a:b"}, status: 400},
		{name: "none", host: "x", status: 400},
		{name: "default", host: "x", config: tenancy.HTTPConfig{Default: "main"}, want: "main"},
		{name: "default is of none alone", host: "acme.example.com", config: tenancy.HTTPConfig{Default: "main"}, want: "acme"},
		{name: "optional", host: "x", config: tenancy.HTTPConfig{Optional: true}, want: ""},
		{name: "there is", host: "acme.example.com", config: tenancy.HTTPConfig{Exists: exists}, want: "acme"},
		{name: "there is not", host: "nobody.example.com", config: tenancy.HTTPConfig{Exists: exists}, status: 404},
		{name: "it cannot be asked", host: "away.example.com", config: tenancy.HTTPConfig{Exists: exists}, status: 500},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			c.config.Resolvers = all
			tenants, err := tenancy.HTTP(c.config)
			if err != nil {
				t.Fatal(err)
			}
			got, called := "", false
			handler := tenants(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				got, _ = tenancy.FromContext(r.Context())
				called = true
			}))
			r := httptest.NewRequest(http.MethodGet, "/", nil)
			r.Host = c.host
			for _, value := range c.headers {
				r.Header.Add("Tenant", value)
			}
			r = r.WithContext(context.WithValue(r.Context(), claimKey{}, c.claim))
			w := httptest.NewRecorder()
			handler.ServeHTTP(w, r)
			if c.status != 0 {
				if w.Code != c.status || called {
					t.Errorf("%d %s, called %v", w.Code, w.Body, called)
				}
				return
			}
			if !called || got != c.want {
				t.Errorf("%q, %d %s", got, w.Code, w.Body)
			}
		})
	}
}

func TestHTTPConfig(t *testing.T) {
	t.Parallel()
	some := []tenancy.Resolver{tenancy.ByHeader("Tenant")}
	for _, bad := range []tenancy.HTTPConfig{{}, {Resolvers: some, Default: "a b"}, {Resolvers: some, Default: "a", Optional: true}} {
		if _, err := tenancy.HTTP(bad); err == nil {
			t.Errorf("%+v is taken", bad)
		}
	}
}
