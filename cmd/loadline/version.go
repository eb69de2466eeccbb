package main

import (
	"fmt"

	"github.com/alecthomas/kong"

	"github.com/loadlinehq/loadline/internal/version"
)

type versionCmd struct{}

// Run prints what --version prints.
func (c *versionCmd) Run(command *kong.Context) error {
	_, err := fmt.Fprintln(command.Stdout, "loadline", version.String())
	return err
}
