package stack

import (
	"testing"

	"go.uber.org/goleak"
)

// The test's own program is the NATS server that it starts.
func TestMain(m *testing.M) {
	if ServeNATS() {
		return
	}
	goleak.VerifyTestMain(m)
}
