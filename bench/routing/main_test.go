package routing_test

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/loadlinehq/loadline/internal/stack"
)

// TestMain is also the NATS server of the stacks that tests start.
func TestMain(m *testing.M) {
	if stack.ServeNATS() {
		return
	}
	// GORM's store of prepared statements sweeps for as long as the process lives.
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("gorm.io/gorm/internal/lru.NewLRU[...].func1"))
}
