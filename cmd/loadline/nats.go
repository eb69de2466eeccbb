package main

import (
	"context"

	"github.com/loadlinehq/loadline/internal/stack"
)

// natsServerCmd is the child process that up starts.
type natsServerCmd struct {
	Port      int    `required:""`
	StoreDir  string `required:""`
	Advertise string `required:""`
}

func (c *natsServerCmd) Run(ctx context.Context) error {
	return stack.RunNATS(ctx, c.StoreDir, c.Port, c.Advertise)
}
