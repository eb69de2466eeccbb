package tenancy_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/loadlinehq/loadline/tenancy"
)

func Example() {
	ctx, err := tenancy.With(context.Background(), "acme")
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(tenancy.FromContext(ctx))
	// Output: acme true
}

func TestNames(t *testing.T) {
	t.Parallel()
	if tenant, ok := tenancy.FromContext(t.Context()); ok || tenant != "" {
		t.Errorf("a tenant %q from nowhere", tenant)
	}
	for _, good := range []string{"a", "Acme-2_b.c", strings.Repeat("x", tenancy.MaxLength)} {
		if _, err := tenancy.With(t.Context(), good); err != nil {
			t.Error(err)
		}
	}
	for _, bad := range []string{"", strings.Repeat("x", tenancy.MaxLength+1), "a b", "a:b", "a*", "a>", "ä", "a\n", "a\x00"} {
		if ctx, err := tenancy.With(t.Context(), bad); !errors.Is(err, tenancy.ErrTenant) || ctx != nil {
			t.Errorf("%q: %v", bad, err)
		}
	}
}
