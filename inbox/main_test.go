package inbox_test

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/loadlinehq/loadline/internal/stack"
)

// TestMain is also the NATS server of the stacks that tests start, and the workers of TestLedger.
func TestMain(m *testing.M) {
	if stack.ServeNATS() || workLedger() {
		return
	}
	goleak.VerifyTestMain(m)
}
