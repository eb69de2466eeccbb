package main

import (
	"context"
	"os"

	"github.com/loadlinehq/loadline/internal/stack"
	"github.com/loadlinehq/loadline/internal/stack/shared"
)

// testStackCmd is the process that runs the servers which tests share.
type testStackCmd struct {
	Data string `required:""`
}

func (c *testStackCmd) Run(ctx context.Context) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	return shared.Serve(ctx, stack.Config{
		Dir: c.Data, PortBase: stack.AnyPortBase, Replicas: 2, DisableSync: true,
		NATSCommand: []string{self, "nats-server"},
	})
}
