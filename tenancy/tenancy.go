// Package tenancy carries the tenant of a piece of work in its context, so that packages
// which keep tenants apart, such as a cache's keys or an event's envelope, need not be told
// by each call, and cannot be told by a caller who forgets to.
//
// [HTTP] is middleware that finds the tenant of a request, by its host, a header, or what
// authentication says. That no row of another tenant is touched, PostgreSQL's row-level
// security sees to.
package tenancy

import (
	"context"
	"errors"
	"fmt"
)

// MaxLength bounds a tenant's name, in bytes: it goes into keys and headers.
const MaxLength = 128

// ErrTenant is the error of a name that cannot be one.
var ErrTenant = errors.New("tenancy: not a tenant's name")

type key struct{}

// With returns a context whose work is for the tenant. Names are 1 to [MaxLength] letters,
// digits, and the signs - _ . of ASCII: they stand in keys, subjects and headers as they
// are. Others are an [ErrTenant].
func With(ctx context.Context, tenant string) (context.Context, error) {
	if err := Check(tenant); err != nil {
		return nil, err
	}
	return context.WithValue(ctx, key{}, tenant), nil
}

// FromContext returns the tenant, and false where there is none.
func FromContext(ctx context.Context) (tenant string, ok bool) {
	tenant, ok = ctx.Value(key{}).(string)
	return tenant, ok
}

// Check says what is wrong with a name.
func Check(tenant string) error {
	if tenant == "" || len(tenant) > MaxLength {
		return fmt.Errorf("%w: it has %d bytes, and should have 1 to %d", ErrTenant, len(tenant), MaxLength)
	}
	for i := range len(tenant) {
		switch c := tenant[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '_', c == '.':
		default:
			return fmt.Errorf("%w: byte %d is %q: letters, digits, and - _ . are allowed", ErrTenant, i+1, c)
		}
	}
	return nil
}
