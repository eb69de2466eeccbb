package config_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/loadlinehq/loadline/internal/config"
	"github.com/loadlinehq/loadline/internal/invalid"
)

// PoolConfig is what a package would have.
type PoolConfig struct {
	Max      int           `yaml:"max" env:"POOL_MAX"`
	Timeout  time.Duration `yaml:"timeout"`
	Password string        `yaml:"password" env:"POOL_PASSWORD" secret:"true"`
}

func (c PoolConfig) Validate() error {
	return errors.Join(
		invalid.If(c.Max < 1, "max", "is %d: at least one connection is needed", c.Max),
		invalid.If(c.Timeout <= 0, "timeout", "is %s: without a bound, requests wait for a dead server", c.Timeout),
	)
}

func Example() {
	dir, _ := os.MkdirTemp("", "config")
	defer os.RemoveAll(dir)
	before, _ := os.Getwd()
	defer func() { _ = os.Chdir(before) }()
	_ = os.Chdir(dir) // where loadline.yaml is found without being named

	load := func(content string, environ ...string) {
		_ = os.WriteFile(filepath.Join(dir, config.DefaultFile), []byte(content), 0o600)
		s := struct {
			Pool PoolConfig `yaml:"pool"`
		}{PoolConfig{Max: 20, Timeout: 2 * time.Second}}
		values, err := config.Load(&s, config.Sources{Environ: environ, Others: []string{"stack"}})
		if err != nil {
			fmt.Println(err)
			return
		}
		_ = values.WriteYAML(os.Stdout)
	}
	load("stack: {replicas: 2}\npool:\n  max: 0\n  timeuot: 5s\n", "POOL_PASSWORD=hunter22")
	load("stack: {replicas: 2}\npool:\n  max: 30\n", "POOL_PASSWORD=hunter22")

	// Output:
	// loadline.yaml:3:8: pool.max is 0: at least one connection is needed
	// loadline.yaml:4:3: pool.timeuot is not a key; did you mean timeout?
	// pool:
	//   max: 30                 # loadline.yaml:3
	//   timeout: 2s             # default
	//   password: "[redacted]"  # environment POOL_PASSWORD
}
