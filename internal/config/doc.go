// Package config fills a program's typed configuration from its defaults, one YAML
// file and the environment, and answers the two questions an operator has: what is
// wrong with it, and where does this value come from.
//
// A struct says all there is to say about a key:
//
//	type Config struct {
//		MaxConns    int32         `yaml:"max" env:"POOL_MAX"`
//		IdleTimeout time.Duration `yaml:"idleTimeout"`
//		Password    string        `yaml:"password" env:"DB_PASSWORD" secret:"true"`
//	}
//
// and a program puts such structs together, fills in the defaults, and loads:
//
//	s := settings{Database: postgres.Config{}.WithDefaults()}
//	values, err := config.Load(&s, config.Sources{Environ: os.Environ(), Others: []string{"stack"}})
//
// A later source wins: default, file, environment. A field without a yaml tag is
// none of the file's business. One file can serve several programs: each declares
// its own top-level sections by its struct, and by Sources.Others the names of those
// that other programs read, which it leaves alone; a section whose name begins with
// "x-" is nobody's. Any other name is an error, in every program. Of a section that is
// tagged partial:"true" it reads some keys, and leaves the others to the program whose
// section it is.
//
// It guarantees that
//
//   - all problems are reported at once, each with file:line:column or the name of
//     the variable; after a mistake in the syntax there is only that one;
//   - a value is never guessed: "5" is no duration, "yes" no boolean, an unknown or
//     repeated key is an error. Where that leaves YAML 1.2, it is stricter;
//   - no field marked secret, and no password in a URL or in a keyword=value string,
//     is in what it prints or in an error;
//   - its work is bounded: see MaxFileBytes and maxTokens. Anchors, aliases, tags and
//     further documents are refused.
//
// It does not watch the file, does not merge several, does not expand ${VARIABLES},
// and cannot know that a variable's name is mistyped. A secret in a value that is
// not marked and does not look like a URL or like password=… is printed.
//
// It walks goccy/go-yaml's syntax tree itself, since a decoder stops at the first
// value that does not fit; the environment goes through the same code, so that a
// value means the same in both.
package config
