package pgstore_test

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/loadlinehq/loadline/internal/stack"
)

// TestMain is also the NATS server of the stacks that tests start, and the instances of TestNoDoubleEffect.
func TestMain(m *testing.M) {
	if stack.ServeNATS() || serveInstance() {
		return
	}
	goleak.VerifyTestMain(m)
}
