// Package loadline_test holds the repository to its own rules: every package says
// what it is for, and imports point one way.
package loadline_test

import (
	"encoding/json"
	"errors"
	"go/parser"
	"go/token"
	"io"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/loadlinehq/loadline"

// forbidden lists, for a package and everything below it, what it must not link,
// directly or through others. A user feels this in the size of his binary and in
// the versions that are forced on him. The longest prefix counts.
var forbidden = map[string]map[string]string{
	"": {
		"testing":                  "it would be linked into every program",
		module + "/internal/stack": "users' programs do not start servers",
		"github.com/nats-io/nats-server/v2/server": "a server belongs into the command alone",
		"github.com/pressly/goose/v3":              "migrations are the command's and the application's",
		"github.com/alecthomas/kong":               "flags are the command's",
		module + "/internal/config":                "files and the environment are for commands to read; see internal/invalid",
		"github.com/goccy/go-yaml":                 "files and the environment are for commands to read; see internal/invalid",
	},
	"/causal": {
		"testing":             "it would be linked into every program",
		"github.com":          "it is the standard library's alone, so that everything may import it",
		"golang.org":          "it is the standard library's alone, so that everything may import it",
		"go.opentelemetry.io": "it is the standard library's alone, so that everything may import it",
	},
	"/causal/redisstore": {
		"testing":              "it would be linked into every program",
		module + "/db":         "it knows Redis alone",
		module + "/internal":   "an application imports it as it is",
		"github.com/jackc/pgx": "it knows Redis alone",
	},
	"/cache": {
		"testing":                     "it would be linked into every program",
		module + "/internal":          "an application imports it as it is",
		module + "/db":                "the context tells the router; the cache does not know it",
		module + "/outbox":            "the outbox declares what it needs of a cache",
		module + "/events":            "the outbox declares what it needs of a cache",
		"github.com/nats-io":          "events are another package's",
		"github.com/jackc/pgx":        "loads are the application's",
		"github.com/pressly/goose/v3": "migrations are the command's and the application's",
	},
	"/cache/cachetest": { // a test suite
		module + "/internal":   "an application's tests import it as it is",
		module + "/db":         "an application brings its own",
		module + "/outbox":     "an application brings its own",
		"github.com/jackc/pgx": "an application brings its own",
	},
	"/edge": {
		"testing":                     "it would be linked into every program",
		module + "/internal":          "an application imports it as it is",
		module + "/db":                "errors say their status themselves",
		module + "/cache":             "an application joins them",
		module + "/events":            "an application joins them",
		"github.com/redis":            "what needs Redis is a package below",
		"github.com/jackc/pgx":        "what needs PostgreSQL is a package below",
		"github.com/nats-io":          "events are another package's",
		"github.com/pressly/goose/v3": "migrations are the command's and the application's",
	},
	"/edge/ratelimit": {
		"testing":              "it would be linked into every program",
		module + "/internal":   "an application imports it as it is",
		module + "/db":         "it knows Redis alone",
		"github.com/jackc/pgx": "it knows Redis alone",
		"github.com/nats-io":   "events are another package's",
	},
	"/edge/pgstore": {
		"testing":                     "it would be linked into every program",
		module + "/internal":          "an application imports it as it is",
		module + "/db":                "it declares what it needs of a router",
		"github.com/redis":            "it knows PostgreSQL alone",
		"github.com/nats-io":          "events are another package's",
		"github.com/pressly/goose/v3": "migrations are the command's and the application's",
	},
	"/edge/redisstore": {
		"testing":              "it would be linked into every program",
		module + "/internal":   "an application imports it as it is",
		module + "/db":         "it knows Redis alone",
		"github.com/jackc/pgx": "it knows Redis alone",
		"github.com/nats-io":   "events are another package's",
	},
	"/db": {
		"testing":                     "it would be linked into every program",
		module + "/internal":          "an application imports it as it is",
		"github.com/nats-io":          "events are another package's",
		"github.com/redis":            "the cache is another package's",
		"github.com/pressly/goose/v3": "migrations are the command's and the application's",
	},
	"/telemetry": {
		"testing":                     "it would be linked into every program",
		module + "/internal":          "an application imports it as it is",
		module + "/db":                "packages are handed its providers",
		module + "/cache":             "packages are handed its providers",
		module + "/edge":              "packages are handed its providers",
		module + "/events":            "packages are handed its providers",
		"github.com/jackc/pgx":        "packages are handed its providers",
		"github.com/redis":            "packages are handed its providers",
		"github.com/nats-io":          "packages are handed its providers",
		"google.golang.org/grpc":      "what OTLP links is package telemetry/otlp's",
		"github.com/pressly/goose/v3": "migrations are the command's and the application's",
	},
	"/telemetry/otlp": {
		"testing":            "it would be linked into every program",
		module + "/internal": "an application imports it as it is",
		module + "/db":       "packages are handed its providers",
	},
	"/internal/stack": {
		"testing":                     "it would be linked into the command",
		"github.com/alecthomas/kong":  "flags are the command's",
		"github.com/pressly/goose/v3": "the stack knows no application",
		module + "/cmd":               "commands are imported by nobody",
		module + "/examples":          "examples are imported by nobody",
		"github.com/redis/rueidis":    "the stack only greets Redis",
	},
	"/internal/stack/stacktest": {
		module + "/cmd":              "commands are imported by nobody",
		module + "/examples":         "examples are imported by nobody",
		"github.com/alecthomas/kong": "flags are the command's",
	},
	"/internal/config": {
		"testing":                     "it would be linked into every program",
		module + "/internal/stack":    "it knows no program",
		module + "/cmd":               "commands are imported by nobody",
		module + "/examples":          "examples are imported by nobody",
		"github.com/alecthomas/kong":  "flags are the command's",
		"github.com/jackc/pgx/v5":     "what a value means is for its package to say",
		"github.com/pressly/goose/v3": "what a value means is for its package to say",
	},
	"/internal/check": {
		"testing":                                  "it would be linked into every program",
		module + "/internal/config":                "the command reads the configuration",
		module + "/internal/stack":                 "it asks servers, and starts none",
		"github.com/alecthomas/kong":               "flags are the command's",
		"github.com/nats-io/nats-server/v2/server": "it is a client",
		"github.com/pressly/goose/v3":              "it reads which migrations were applied, and applies none",
	},
	"/internal/migrate": {
		"testing":                  "it would be linked into the command",
		module + "/internal/stack": "it knows a connection string alone",
		module + "/cmd":            "commands are imported by nobody",
		module + "/examples":       "examples are imported by nobody",
		module + "/inbox":          "packages hand it their migrations",
		module + "/outbox":         "packages hand it their migrations",
	},
	"/internal/invalid": {
		"testing":                   "it would be linked into every program",
		"github.com/goccy/go-yaml":  "it is what keeps packages apart from the file's format",
		module + "/internal/config": "it is what keeps packages apart from the file's format",
	},
	"/internal/manifests": {
		"testing":                   "it would be linked into the command",
		"k8s.io":                    "what it makes is text; test/hpa holds it to Kubernetes' code",
		module + "/telemetry":       "its SDK is for programs to choose; a test compares the edges",
		module + "/internal/config": "the command hands it a section",
		"github.com/goccy/go-yaml":  "files and the environment are for commands to read; see internal/invalid",
		module + "/internal/stack":  "it asks no server",
		module + "/cmd":             "commands are imported by nobody",
		module + "/examples":        "examples are imported by nobody",
	},
	"/internal/load": {
		"testing":                     "it would be linked into the command",
		module + "/internal/stack":    "it loads what others start",
		module + "/cmd":               "commands are imported by nobody",
		module + "/examples":          "examples are imported by nobody",
		"github.com/alecthomas/kong":  "flags are the command's",
		"github.com/jackc/pgx/v5":     "it knows HTTP and functions alone",
		"github.com/pressly/goose/v3": "it knows HTTP and functions alone",
	},
	"/cmd/loadline": {
		"testing":            "it would be linked into the command",
		module + "/examples": "the command runs any application",
	},
	"/examples/conduit": {
		"testing":                  "it would be linked into the application",
		module + "/internal/stack": "the application finds its servers by its environment",
		module + "/cmd":            "commands are imported by nobody",
	},
	"/examples/conduit/contract": {}, // a test suite
	"/examples/orm/ormtest":      {}, // likewise
	"/tenancy": {
		"testing":             "it would be linked into every program",
		"github.com":          "it is the standard library's alone, so that everything may import it",
		"golang.org":          "it is the standard library's alone, so that everything may import it",
		"go.opentelemetry.io": "it is the standard library's alone, so that everything may import it",
	},
	"/events": {
		"testing":              "it would be linked into every program",
		module + "/db":         "it knows no database",
		module + "/internal":   "an application imports it as it is",
		"github.com/jackc/pgx": "it knows no database; see outbox and inbox",
		"github.com/nats-io":   "a broker is its driver's",
		"github.com/redis":     "the cache is another package's",
	},
	"/events/natsjs": {
		"testing":              "it would be linked into every program",
		module + "/db":         "it knows no database",
		module + "/internal":   "an application imports it as it is",
		"github.com/jackc/pgx": "it knows no database; see outbox and inbox",
		"github.com/redis":     "the cache is another package's",
		"github.com/nats-io/nats-server/v2/server": "it is a client",
	},
	"/events/eventstest": {}, // a test suite
	"/outbox": {
		"testing":                     "it would be linked into every program",
		module + "/db":                "any pgx transaction will do",
		module + "/internal":          "an application imports it as it is",
		"github.com/nats-io":          "a broker is its driver's",
		"github.com/redis":            "the cache is another package's",
		"github.com/pressly/goose/v3": "migrations are the command's and the application's",
	},
	"/inbox": {
		"testing":                     "it would be linked into every program",
		module + "/db":                "any pgx transaction will do",
		module + "/internal":          "an application imports it as it is",
		"github.com/nats-io":          "a broker is its driver's",
		"github.com/redis":            "the cache is another package's",
		"github.com/pressly/goose/v3": "migrations are the command's and the application's",
	},
	"/inbox/redisrecent": {
		"testing":              "it would be linked into every program",
		module + "/internal":   "an application imports it as it is",
		module + "/inbox":      "it knows Redis alone",
		"github.com/jackc/pgx": "it knows Redis alone",
		"github.com/nats-io":   "it knows Redis alone",
	},
	"/db/sqldb": {
		"testing":            "it would be linked into every program",
		module + "/internal": "an application imports it as it is",
		"gorm.io":            "it speaks database/sql, as each of these does",
		"github.com/jmoiron": "it speaks database/sql, as each of these does",
		"github.com/nats-io": "events are another package's",
		"github.com/redis":   "the cache is another package's",
	},
}

type goPackage struct {
	ImportPath string
	Dir        string
	Doc        string
	GoFiles    []string
	Deps       []string
}

func packages(t *testing.T) []goPackage {
	t.Helper()
	out, err := exec.Command("go", "list", "-json=ImportPath,Dir,Doc,GoFiles,Deps", "work").Output()
	if err != nil {
		if exit, ok := errors.AsType[*exec.ExitError](err); ok {
			t.Fatalf("go list: %v\n%s", err, exit.Stderr)
		}
		t.Fatal(err)
	}
	var all []goPackage
	decoder := json.NewDecoder(strings.NewReader(string(out)))
	for {
		var p goPackage
		err := decoder.Decode(&p)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if len(p.GoFiles) > 0 {
			all = append(all, p)
		}
	}
	if len(all) < 5 {
		t.Fatalf("go list found only %d packages", len(all))
	}
	return all
}

func TestPackagesAreDocumented(t *testing.T) {
	t.Parallel()
	for _, p := range packages(t) {
		if strings.Contains(p.Dir, "/sqlc") {
			continue // generated
		}
		doc := packageDoc(t, p)
		if len(strings.Fields(doc)) < 12 {
			t.Errorf("%s: the package's doc comment does not say what problem it solves: %q", p.ImportPath, doc)
		}
	}
}

func packageDoc(t *testing.T, p goPackage) string {
	t.Helper()
	var docs []string
	for _, name := range p.GoFiles {
		file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(p.Dir, name), nil, parser.ParseComments|parser.PackageClauseOnly)
		if err != nil {
			t.Fatal(err)
		}
		if file.Doc != nil {
			docs = append(docs, name)
			if len(docs) > 1 {
				t.Errorf("%s: more than one file has the package's doc comment: %v", p.ImportPath, docs)
			}
			p.Doc = file.Doc.Text()
		}
	}
	return p.Doc
}

func TestForbiddenImports(t *testing.T) {
	t.Parallel()
	for _, p := range packages(t) {
		rule := ""
		for prefix := range forbidden {
			if below(p.ImportPath, module+prefix) && len(prefix) > len(rule) {
				rule = prefix
			}
		}
		for dep, why := range forbidden[rule] {
			if i := slices.IndexFunc(p.Deps, func(d string) bool { return below(d, dep) && !below(d, module+rule) }); i >= 0 {
				t.Errorf("%s links %s: %s", p.ImportPath, p.Deps[i], why)
			}
		}
	}
}

// Packages use the API of OpenTelemetry; its SDK, and exporters, are for commands and
// applications to choose.
func TestExportersAreOfCommands(t *testing.T) {
	t.Parallel()
	for _, p := range packages(t) {
		if slices.ContainsFunc([]string{"/cmd", "/examples", "/bench", "/telemetry", "/internal/stack/adminport"}, func(folder string) bool { return below(p.ImportPath, module+folder) }) {
			continue
		}
		deps := []string{"go.opentelemetry.io/otel/sdk", "go.opentelemetry.io/otel/exporters"}
		if !below(p.ImportPath, module+"/realtime") { // centrifuge counts by it
			deps = append(deps, "github.com/prometheus")
		}
		for _, dep := range deps {
			if i := slices.IndexFunc(p.Deps, func(d string) bool { return below(d, dep) }); i >= 0 {
				t.Errorf("%s links %s", p.ImportPath, p.Deps[i])
			}
		}
	}
}

// below reports whether a package is another, or lies in a folder of it.
func below(path, parent string) bool {
	return path == parent || strings.HasPrefix(path, parent+"/")
}

// No package is a bag of things that have nothing in common.
func TestPackageNames(t *testing.T) {
	t.Parallel()
	for _, p := range packages(t) {
		if name := filepath.Base(p.Dir); slices.Contains([]string{"util", "utils", "common", "helpers", "misc", "base"}, name) {
			t.Errorf("%s: name it for what it does", p.ImportPath)
		}
	}
}
