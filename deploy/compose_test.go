// Package deploy_test reads the files by which others than a Go toolchain run Loadline. Docker and goreleaser are not
// run; what can be run of them without, the scripts and the servers' command lines, is.
package deploy_test

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
	"github.com/nats-io/nats-server/v2/server"
)

// root is where the files are.
const root = ".."

// ours is the image that the Dockerfile makes.
const ours = "loadline:local"

type compose struct {
	Name     string
	Services map[string]service
	Volumes  map[string]any
}

type service struct {
	Image       string
	Build       string
	User        string
	Entrypoint  []string
	Command     []string
	Environment map[string]string
	Ports       []string
	Volumes     []string
	Profiles    []string
	Restart     string
	ShmSize     string                                `yaml:"shm_size"`
	DependsOn   map[string]struct{ Condition string } `yaml:"depends_on"`
	Healthcheck *struct {
		Test              []string
		Interval, Timeout string
		Retries           int
	}
}

func read(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// readCompose refuses keys that are not above: they would be checked by nobody.
func readCompose(t *testing.T) compose {
	t.Helper()
	var c compose
	if err := yaml.UnmarshalWithOptions([]byte(read(t, "compose.yaml")), &c, yaml.Strict()); err != nil {
		t.Fatal(err)
	}
	return c
}

func TestComposeServices(t *testing.T) {
	t.Parallel()
	c := readCompose(t)
	for _, name := range []string{"nats", "redis", "primary", "replica", "migrate", "conduit", "check"} {
		if _, ok := c.Services[name]; !ok {
			t.Errorf("there is no service %s", name)
		}
	}
	// docker compose up -d nats redis gives the two alone.
	for _, name := range []string{"nats", "redis"} {
		if s := c.Services[name]; len(s.DependsOn) > 0 || s.Build != "" {
			t.Errorf("%s needs others", name)
		}
	}
	pinned := regexp.MustCompile(`^[a-z]+:\d+\.\d+(\.\d+)?-alpine$`)
	for name, s := range c.Services {
		if s.Image != ours && !pinned.MatchString(s.Image) {
			t.Errorf("%s: the image %s is not pinned", name, s.Image)
		}
		if (s.Build == ".") != (s.Image == ours) {
			t.Errorf("%s: build %q of %s", name, s.Build, s.Image)
		}
		runsOn := s.Restart != ""
		if runsOn != (s.Healthcheck != nil) {
			t.Errorf("%s: what goes on running has a health check, and what ends has none", name)
		}
		if runsOn != (len(s.Ports) > 0) {
			t.Errorf("%s: ports are %v", name, s.Ports)
		}
		for on, d := range s.DependsOn {
			other, ok := c.Services[on]
			switch {
			case !ok:
				t.Errorf("%s depends on %s, which is none", name, on)
			case d.Condition == "service_healthy" && other.Healthcheck == nil:
				t.Errorf("%s waits for %s to be healthy, which has no check", name, on)
			case d.Condition == "service_completed_successfully" && other.Restart != "":
				t.Errorf("%s waits for %s to end, which goes on", name, on)
			case d.Condition != "service_healthy" && d.Condition != "service_completed_successfully":
				t.Errorf("%s: condition %q of %s", name, d.Condition, on)
			}
		}
	}
	// Without a default, docker compose up refuses the whole file.
	for _, variable := range regexp.MustCompile(`\$\{[^}]*\}`).FindAllString(read(t, "compose.yaml"), -1) {
		if !strings.Contains(variable, ":-") {
			t.Errorf("%s has no default", variable)
		}
	}
}

func TestComposePortsAndVolumes(t *testing.T) {
	t.Parallel()
	c := readCompose(t)
	want := map[string]string{"nats": "4222:4222", "redis": "6379:6379", "primary": "5432:5432", "replica": "5433:5432", "conduit": "8080:8080"}
	data := map[string]string{"nats": "/data", "redis": "/data", "primary": "/var/lib/postgresql/data", "replica": "/var/lib/postgresql/data"}
	for name, s := range c.Services {
		if got := strings.Join(s.Ports, " "); got != "" && got != "127.0.0.1:"+want[name] {
			t.Errorf("%s: ports %s, want 127.0.0.1:%s", name, got, want[name])
		}
		kept := false
		for _, volume := range s.Volumes {
			from, to, _ := strings.Cut(volume, ":")
			if strings.HasPrefix(from, "./") {
				info, err := os.Stat(filepath.Join(root, from))
				if err != nil || info.Mode()&0o111 == 0 {
					t.Errorf("%s: %s is no script that can be run: %v", name, from, err)
				}
				if !strings.HasSuffix(to, ":ro") {
					t.Errorf("%s may write to %s", name, from)
				}
				continue
			}
			if _, ok := c.Volumes[from]; !ok || from != name {
				t.Errorf("%s: volume %s is not its own", name, from)
			}
			kept = kept || to == data[name]
		}
		if data[name] != "" && !kept {
			t.Errorf("%s: nothing keeps %s", name, data[name])
		}
		if pgdata := s.Environment["PGDATA"]; pgdata != "" && !strings.HasPrefix(pgdata, data[name]+"/") {
			t.Errorf("%s: %s is not in its volume", name, pgdata)
		}
	}
	if len(c.Volumes) != len(data) {
		t.Errorf("volumes are %v", c.Volumes)
	}
}

// variables are those that the sources of a folder read, by their tags.
func variables(t *testing.T, folder string) map[string]bool {
	t.Helper()
	found := make(map[string]bool)
	err := filepath.WalkDir(filepath.Join(root, folder), func(path string, entry os.DirEntry, err error) error {
		if err != nil || entry.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		text, err := os.ReadFile(path)
		for _, m := range regexp.MustCompile(`env:"([A-Z_]+)"`).FindAllStringSubmatch(string(text), -1) {
			found[m[1]] = true
		}
		return err
	})
	if err != nil || len(found) == 0 {
		t.Fatalf("%s: %v, %v", folder, found, err)
	}
	return found
}

// Every variable is one that the program reads, and every address in them is a service's.
func TestComposeEnvironment(t *testing.T) {
	t.Parallel()
	c := readCompose(t)
	programs := map[string]map[string]bool{"conduit": variables(t, "examples/conduit"), "loadline": variables(t, "cmd/loadline")}
	address := regexp.MustCompile(`^(postgres|redis|nats)://(?:[^@]*@)?([a-z]+):(\d+)`)
	for name, s := range c.Services {
		for variable, value := range s.Environment {
			if s.Image == ours {
				if !programs[s.Command[0]][variable] {
					t.Errorf("%s: %s does not read %s", name, s.Command[0], variable)
				}
			} else if !strings.HasPrefix(variable, "POSTGRES_") && variable != "PGDATA" {
				// POSTGRES_ and PGDATA are the image's; the others are for our scripts.
				script := read(t, "deploy/compose/"+name+".sh")
				if !regexp.MustCompile(`\$\{?` + variable + `\b`).MatchString(script) {
					t.Errorf("%s: its script does not read %s", name, variable)
				}
			}
			if !strings.HasSuffix(variable, "_URL") && !strings.HasSuffix(variable, "_URLS") {
				continue
			}
			m := address.FindStringSubmatch(value)
			if m == nil {
				t.Errorf("%s: %s is %q", name, variable, value)
				continue
			}
			if _, ok := c.Services[m[2]]; !ok || !strings.HasSuffix(strings.Join(c.Services[m[2]].Ports, ""), ":"+m[3]) {
				t.Errorf("%s: %s leads to %s:%s, where nothing is", name, variable, m[2], m[3])
			}
		}
	}
	for _, variable := range []string{"DATABASE_URL", "DATABASE_REPLICA_URLS", "REDIS_URL", "NATS_URL"} {
		if c.Services["conduit"].Environment[variable] == "" || c.Services["conduit"].Environment[variable] != c.Services["check"].Environment[variable] {
			t.Errorf("check does not look where Conduit is led to by %s", variable)
		}
	}
}

// Every program of ours in a command is in the image, and has the command.
func TestComposeCommands(t *testing.T) {
	t.Parallel()
	c := readCompose(t)
	sources := map[string]string{"conduit": read(t, "examples/conduit/cmd/conduit/main.go"), "loadline": read(t, "cmd/loadline/main.go")}
	theirs := map[string][]string{ // that the images have
		"nats": {"nats-server", "wget"}, "redis": {"redis-server", "redis-cli"}, "primary": {"postgres", "pg_isready"}, "replica": {"/bin/sh", "pg_isready"},
	}
	for name, s := range c.Services {
		lines := [][]string{s.Command}
		if len(s.Entrypoint) > 0 {
			lines[0] = slices.Concat(s.Entrypoint, s.Command)
		}
		if s.Healthcheck != nil {
			if s.Healthcheck.Test[0] != "CMD" {
				t.Errorf("%s: the check needs a shell, which our image has not", name)
			}
			lines = append(lines, s.Healthcheck.Test[1:])
		}
		for _, line := range lines {
			if s.Image != ours {
				if !slices.Contains(theirs[name], line[0]) {
					t.Errorf("%s: is %s in its image?", name, line[0])
				}
				continue
			}
			command := regexp.MustCompile("(?i)\n\t" + line[1] + "\\s+\\w+Cmd\\s+`cmd:")
			if len(line) != 2 || !command.MatchString(sources[line[0]]) {
				t.Errorf("%s: there is no %v", name, line)
			}
		}
	}
	if got := c.Services["replica"].Entrypoint; !slices.Contains(c.Services["replica"].Volumes, "./deploy/compose/replica.sh:"+got[1]+":ro") {
		t.Errorf("nothing mounts the script of %v", got)
	}
}

// NATS' own parser reads its arguments, and the version is that of our tests.
func TestComposeNATS(t *testing.T) {
	t.Parallel()
	s := readCompose(t).Services["nats"]
	options := natsOptions(t, s.Command[1:])
	if !options.JetStream || options.StoreDir != "/data" || options.HTTPPort != 8222 || !strings.Contains(s.Healthcheck.Test[4], ":8222/healthz") {
		t.Errorf("got %+v", options)
	}
	version := regexp.MustCompile(`nats-server/v2 v(\S+)`).FindStringSubmatch(read(t, "go.mod"))
	if version == nil || s.Image != "nats:"+version[1]+"-alpine" || version[1] != server.VERSION {
		t.Errorf("the image is %s, and go.mod has %v", s.Image, version)
	}
}
