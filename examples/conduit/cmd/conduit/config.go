package main

import (
	"cmp"
	"errors"
	"fmt"
	"os"

	"github.com/alecthomas/kong"

	"github.com/loadlinehq/loadline/examples/conduit/auth"
	"github.com/loadlinehq/loadline/examples/conduit/caching"
	"github.com/loadlinehq/loadline/examples/conduit/httpapi"
	"github.com/loadlinehq/loadline/examples/conduit/postgres"
	"github.com/loadlinehq/loadline/internal/config"
	"github.com/loadlinehq/loadline/internal/invalid"
	"github.com/loadlinehq/loadline/realtime"
)

// sections are those of the file that all programs share; see docs/configuration.md.
func sections() []string {
	return []string{"stack", "deploy", "database", "redis", "nats", "cache", "http", "edge", "web", "realtime", "telemetry", "auth"}
}

// settings are all that the file and the environment can say to the server. A key is
// a field with tags, here or in the struct of a package.
type settings struct {
	Database postgres.Config `yaml:"database"`
	Redis    redisConfig     `yaml:"redis"`
	NATS     natsConfig      `yaml:"nats"`
	Cache    cacheConfig     `yaml:"cache"`
	HTTP     serverConfig    `yaml:"http"`
	Edge     edgeConfig      `yaml:"edge"`
	Web      webConfig       `yaml:"web"`
	Realtime realtimeConfig  `yaml:"realtime"`

	Telemetry telemetryConfig `yaml:"telemetry"`
	Auth      auth.Config     `yaml:"auth"`
}

func defaultSettings() settings {
	return settings{
		Database: postgres.Config{}.WithDefaults(), NATS: natsConfig{MaxBytes: defaultEventBytes},
		Cache: cacheConfig{MaxBytes: caching.DefaultMaxBytes}, HTTP: defaultServerConfig(), Edge: defaultEdgeConfig(),
		Realtime: realtimeConfig{MaxConnections: realtime.DefaultMaxConnections}, Telemetry: defaultTelemetryConfig(),
	}
}

// Validate reports relations between sections that cannot be.
func (s settings) Validate() error {
	return errors.Join(
		// The context would give up first, and take the connection with it.
		invalid.If(s.Database.QueryTimeout >= httpapi.RequestTimeout, "database.queryTimeout",
			"is %s: it must end before a request does, which is after %s", s.Database.QueryTimeout, httpapi.RequestTimeout),
		invalid.If(len(s.Database.Replicas) > 0 && s.Redis.URL == "", "database.replicas",
			"needs redis.url (variable REDIS_URL): what a user has seen is kept there, for all instances, and decides which replica may answer him"),
	)
}

// configFlag is of every command.
type configFlag struct {
	File string `name:"config" env:"LOADLINE_CONFIG" placeholder:"FILE" help:"Configuration; loadline.yaml in the working directory when left out, and there."`
}

func (f *configFlag) load(into any) (*config.Values, error) {
	values, err := config.Load(into, config.Sources{Path: f.File, Environ: os.Environ(), Others: sections()})
	if err != nil {
		err = fmt.Errorf("the configuration is wrong:\n%w", err)
	}
	return values, err
}

// databaseURL is for commands that need nothing else, and do not ask for it.
func (f *configFlag) databaseURL() (string, error) {
	s := struct {
		Database postgres.Config `yaml:"database"`
	}{postgres.Config{}.WithDefaults()}
	_, err := f.load(&s)
	return s.Database.URL, err
}

type configCmd struct {
	Print configPrintCmd `cmd:"" help:"Print every value and where it comes from; secrets are redacted."`
	Check configCheckCmd `cmd:"" help:"Report all that is wrong."`
}

type configPrintCmd struct {
	JSON bool `name:"json" help:"Print JSON."`
}

// Run prints what there is even if some of it is wrong.
func (c *configPrintCmd) Run(command *kong.Context, app *commands) error {
	s := defaultSettings()
	values, err := app.load(&s)
	if values == nil {
		return err
	}
	write := values.WriteYAML
	if c.JSON {
		write = values.WriteJSON
	}
	return cmp.Or(write(command.Stdout), err)
}

type configCheckCmd struct{}

// Run fails with all that is wrong.
func (c *configCheckCmd) Run(command *kong.Context, app *commands) error {
	s := defaultSettings()
	values, err := app.load(&s)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(command.Stdout, "%s: ok\n", cmp.Or(values.File(), "no file, defaults and environment"))
	return err
}
