package seed

import (
	"testing"

	"github.com/loadlinehq/loadline/examples/conduit/auth"
)

func TestPasswordHash(t *testing.T) {
	t.Parallel()
	ok, err := auth.NewHasher().Verify(t.Context(), passwordHash, Password)
	if err != nil || !ok {
		t.Errorf("the hash is not that of %q: %v, %v", Password, ok, err)
	}
}
