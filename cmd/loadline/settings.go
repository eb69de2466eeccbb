package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/loadlinehq/loadline/internal/config"
	"github.com/loadlinehq/loadline/internal/invalid"
	"github.com/loadlinehq/loadline/internal/manifests"
	"github.com/loadlinehq/loadline/internal/stack"
)

// settings are all that the file and the environment can say to the command.
type settings struct {
	Stack  stackSettings    `yaml:"stack"`
	Deploy manifests.Config `yaml:"deploy"`

	file string // that was read; empty for none
}

// sections are those of the file that other programs read.
func sections() []string {
	return []string{"database", "redis", "nats", "cache", "http", "edge", "web", "realtime", "telemetry", "auth"}
}

// stackSettings is what up, and the commands that find its stack, go by. A key is a
// field here with its default below; a flag overrides it when it has the tag
// config:"stack.key".
type stackSettings struct {
	Data      string   `yaml:"data" env:"LOADLINE_DIR"`
	PortBase  int      `yaml:"portBase" env:"LOADLINE_PORT_BASE"` // 0 takes a free range
	Replicas  int      `yaml:"replicas" env:"LOADLINE_REPLICAS"`
	Instances int      `yaml:"instances" env:"LOADLINE_INSTANCES"`
	Restart   bool     `yaml:"restart" env:"LOADLINE_RESTART"`
	SyncNATS  bool     `yaml:"syncNATS" env:"LOADLINE_SYNC_NATS"`
	LogMax    int64    `yaml:"logMaxBytes" env:"LOADLINE_LOG_MAX_BYTES"`
	Setup     string   `yaml:"setup"`
	Command   []string `yaml:"command"`
}

func defaultSettings() settings {
	return settings{
		Stack:  stackSettings{Data: stack.DefaultDir, PortBase: stack.DefaultPortBase, Replicas: 2, Instances: 2, LogMax: stack.DefaultLogMaxBytes},
		Deploy: manifests.Defaults(),
	}
}

// Validate reports all fields that cannot be.
func (s stackSettings) Validate() error {
	outside := func(n, most int) bool { return n < 0 || n > most }
	return errors.Join(
		invalid.If(s.Data == "", "data", "is empty: it names the directory of data, logs and state"),
		invalid.If(outside(s.PortBase, 65535), "portBase", "is %d, not between 0 and 65535", s.PortBase),
		invalid.If(outside(s.Replicas, stack.MaxReplicas), "replicas", "is %d, not between 0 and %d", s.Replicas, stack.MaxReplicas),
		invalid.If(outside(s.Instances, stack.MaxInstances), "instances", "is %d, not between 0 and %d", s.Instances, stack.MaxInstances),
		invalid.If(s.LogMax < stack.MinLogMaxBytes, "logMaxBytes", "is %d, less than %d", s.LogMax, stack.MinLogMaxBytes),
		invalid.If(s.Setup != "" && len(s.Command) == 0, "setup", "needs an application: name it by stack.command"),
	)
}

// load reads the configuration; path is empty for the file in its usual place.
func (s *settings) load(path string) (*config.Values, error) {
	values, err := config.Load(s, config.Sources{Path: path, Environ: os.Environ(), Others: sections()})
	if values != nil {
		s.file = values.File()
	}
	if err != nil {
		err = fmt.Errorf("the configuration is wrong:\n%w", err)
	}
	return values, err
}

// env tells the application where the file is, so that one file is enough.
func (s *settings) env() []string {
	if s.file == "" {
		return nil
	}
	path, err := filepath.Abs(s.file)
	if err != nil {
		path = s.file // the working directory is gone; what we have read is still this
	}
	return []string{"LOADLINE_CONFIG=" + path}
}
