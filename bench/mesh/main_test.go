package mesh_test

import (
	"os"
	"testing"

	"github.com/loadlinehq/loadline/internal/stack"
)

// TestMain is also the NATS server of the stacks that tests start.
func TestMain(m *testing.M) {
	if stack.ServeNATS() {
		return
	}
	os.Exit(m.Run())
}
