package routing_test

import (
	"context"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"testing"

	"go.uber.org/goleak"

	"github.com/loadlinehq/loadline/internal/stack"
)

// TestMain is also the NATS server of the stacks that tests start.
func TestMain(m *testing.M) {
	if len(os.Args) > 7 && os.Args[1] == "nats-server" {
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
		port, err := strconv.Atoi(os.Args[3])
		if err == nil {
			err = stack.RunNATS(ctx, os.Args[5], port, os.Args[7])
		}
		stop()
		if err != nil {
			_, _ = os.Stderr.WriteString(err.Error())
			os.Exit(1)
		}
		return
	}
	// GORM's store of prepared statements sweeps for as long as the process lives.
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("gorm.io/gorm/internal/lru.NewLRU[...].func1"))
}
