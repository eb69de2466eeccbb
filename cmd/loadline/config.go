package main

import (
	"cmp"
	"fmt"
	"os"
	"reflect"
	"strings"

	"github.com/alecthomas/kong"

	"github.com/loadlinehq/loadline/internal/config"
)

// configFlag is of every command.
type configFlag struct {
	File string `name:"config" env:"LOADLINE_CONFIG" placeholder:"FILE" help:"Configuration; loadline.yaml in the working directory when left out, and there."`
}

// keyTag names, at a flag, the key of the configuration that the flag overrides.
const keyTag = "config"

// configure gives those flags that were not on the command line what the file and
// the environment say, and the settings to the command.
func configure(parsed *kong.Context, path string) error {
	given := make(map[*kong.Flag]bool)
	for _, element := range parsed.Path {
		given[element.Flag] = true
	}
	var flags []*kong.Flag
	missing := false
	for _, flag := range parsed.Flags() {
		if flag.Tag.Has(keyTag) {
			flags = append(flags, flag)
			missing = missing || !given[flag]
		}
	}
	// Without such a flag it has no use for the configuration, or reads it by itself.
	// With all of them a file that is broken does not keep anyone from stopping what
	// runs; up alone takes from it what has no flag.
	if !missing && parsed.Command() != "up" {
		return nil
	}
	s := defaultSettings()
	values, err := s.load(path)
	if err != nil {
		return err
	}
	for _, flag := range flags {
		field, known := values.Lookup(flag.Tag.Get(keyTag))
		if !known {
			panic(fmt.Sprintf("--%s: there is no key %s", flag.Name, flag.Tag.Get(keyTag)))
		}
		if !given[flag] {
			flag.Target.Set(reflect.ValueOf(field.Value))
		}
	}
	parsed.Bind(&s)
	return nil
}

// helpWithKeys says of a flag what else can set it, and its default.
func helpWithKeys(value *kong.Value) string {
	help := kong.DefaultHelpValueFormatter(value)
	s := defaultSettings()
	field, ok := config.Describe(&s).Lookup(value.Tag.Get(keyTag))
	if !ok {
		return help
	}
	or := "key " + field.Key
	if field.Env != "" {
		or += ", variable " + field.Env
	}
	return fmt.Sprintf("%s (%s; default %s).", strings.TrimSuffix(help, "."), or, field.Text())
}

type configCmd struct {
	Print configPrintCmd `cmd:"" help:"Print every value and where it comes from; secrets are redacted."`
	Check configCheckCmd `cmd:"" help:"Report all that is wrong."`
}

type configPrintCmd struct {
	JSON bool `name:"json" help:"Print JSON."`
}

// Run prints what there is even if some of it is wrong.
func (c *configPrintCmd) Run(app *cli) error {
	s := defaultSettings()
	values, err := s.load(app.File)
	if values == nil {
		return err
	}
	write := values.WriteYAML
	if c.JSON {
		write = values.WriteJSON
	}
	return cmp.Or(write(os.Stdout), err)
}

type configCheckCmd struct{}

// Run fails with all that is wrong.
func (c *configCheckCmd) Run(app *cli) error {
	s := defaultSettings()
	values, err := s.load(app.File)
	if err != nil {
		return err
	}
	_, err = fmt.Printf("%s: ok\n", cmp.Or(values.File(), "no file, defaults and environment"))
	return err
}
