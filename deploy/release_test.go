package deploy_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
)

// mainPackage fails where a folder has no program.
func mainPackage(t *testing.T, folder string) {
	t.Helper()
	packages, err := filepath.Glob(filepath.Join(root, folder, "main.go"))
	if err != nil || len(packages) != 1 {
		t.Errorf("%s has no main.go: %v", folder, err)
		return
	}
	file, err := parser.ParseFile(token.NewFileSet(), packages[0], nil, parser.PackageClauseOnly)
	if err != nil || file.Name.Name != "main" {
		t.Errorf("%s is no program: %v", folder, err)
	}
}

// linked fails where the linker would set a variable that is none: it says nothing of that.
func linked(t *testing.T, flags string) {
	t.Helper()
	found := regexp.MustCompile(`-X (\S+)/([^/.\s]+)\.(\w+)=`).FindAllStringSubmatch(flags, -1)
	if len(found) == 0 {
		t.Errorf("nothing is set by %s", flags)
	}
	for _, m := range found {
		folder := filepath.Join(root, strings.TrimPrefix(m[1], "github.com/loadlinehq/loadline/"), m[2])
		files, _ := filepath.Glob(filepath.Join(folder, "*.go"))
		isThere := false
		for _, path := range files {
			file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
			if err != nil {
				t.Fatal(err)
			}
			for _, d := range file.Decls {
				g, ok := d.(*ast.GenDecl)
				if !ok || g.Tok != token.VAR {
					continue
				}
				for _, spec := range g.Specs {
					v := spec.(*ast.ValueSpec)
					// A string without a value: one that has another is set by nobody.
					kind, _ := v.Type.(*ast.Ident)
					isThere = isThere || v.Names[0].Name == m[3] && kind != nil && kind.Name == "string" && len(v.Values) == 0
				}
			}
		}
		if !isThere {
			t.Errorf("%s has no variable %s that the linker can set", folder, m[3])
		}
	}
}

func TestRelease(t *testing.T) {
	t.Parallel()
	var c struct {
		Version     int
		ProjectName string `yaml:"project_name"`
		Before      struct{ Hooks []string }
		Builds      []struct {
			ID, Main, Binary    string
			Env, Flags, Ldflags []string
			Goos, Goarch        []string
			ModTimestamp        string `yaml:"mod_timestamp"`
		}
		Archives []struct {
			ID                  string
			IDs, Formats, Files []string
			NameTemplate        string `yaml:"name_template"`
		}
		Checksum struct {
			NameTemplate string `yaml:"name_template"`
		}
		Changelog struct{ Disable bool }
		Release   struct {
			GitHub struct{ Owner, Name string } `yaml:"github"`
			Draft  bool
		}
	}
	if err := yaml.UnmarshalWithOptions([]byte(read(t, ".goreleaser.yaml")), &c, yaml.Strict()); err != nil {
		t.Fatal(err)
	}
	if c.Version != 2 || len(c.Builds) != 1 || len(c.Archives) != 1 || c.Checksum.NameTemplate == "" {
		t.Fatalf("got %+v", c)
	}
	build := c.Builds[0]
	mainPackage(t, build.Main)
	linked(t, strings.Join(build.Ldflags, " "))
	if !slices.Contains(build.Env, "CGO_ENABLED=0") || !slices.Equal(build.Goos, []string{"linux", "darwin"}) || !slices.Equal(build.Goarch, []string{"amd64", "arm64"}) {
		t.Errorf("got %+v", build)
	}
	if archive := c.Archives[0]; !slices.Equal(archive.IDs, []string{build.ID}) || !slices.Contains(archive.Files, "LICENSE") || !slices.Contains(archive.Files, "completions/*") {
		t.Errorf("got %+v", archive)
	}
	for _, path := range c.Archives[0].Files {
		if path == "completions/*" {
			if len(c.Before.Hooks) != 1 || !strings.Contains(c.Before.Hooks[0], "completion $shell > completions/") {
				t.Errorf("nothing makes the completions: %v", c.Before.Hooks)
			}
		} else if _, err := os.Stat(filepath.Join(root, path)); err != nil {
			t.Error(err)
		}
	}
	// go install takes no module whose go.mod has a replace.
	if strings.Contains(read(t, "go.mod"), "replace ") {
		t.Error("go.mod has a replace: go install of a version refuses it")
	}
}

// The image is static, has both programs and nobody's root.
func TestDockerfile(t *testing.T) {
	t.Parallel()
	text := regexp.MustCompile(`(?m)^#.*\n`).ReplaceAllString(strings.ReplaceAll(read(t, "Dockerfile"), "\\\n", " "), "")
	stages := regexp.MustCompile(`(?m)^FROM `).Split(text, -1)
	if len(stages) != 3 {
		t.Fatalf("there are %d stages", len(stages)-1)
	}
	build, final := stages[1], stages[2]
	goVersion := regexp.MustCompile(`(?m)^go (\d+\.\d+)`).FindStringSubmatch(read(t, "go.mod"))
	if !regexp.MustCompile(`^golang:` + regexp.QuoteMeta(goVersion[1]) + `\.\d+-alpine AS build\n`).MatchString(build) {
		t.Errorf("it does not build by the Go of go.mod, %s: %s", goVersion[1], build)
	}
	if !strings.Contains(build, "CGO_ENABLED=0") {
		t.Error("it is not static")
	}
	linked(t, build)
	made := make(map[string]bool)
	for _, m := range regexp.MustCompile(`RUN go (?:-C (\S+) )?build .* -o /out/(\w+) (\S+)`).FindAllStringSubmatch(build, -1) {
		mainPackage(t, filepath.Join(m[1], m[3]))
		made[m[2]] = true
	}
	if !strings.HasPrefix(final, "gcr.io/distroless/static-debian12:nonroot\n") || !regexp.MustCompile(`(?m)^USER [1-9]\d*:[1-9]\d*$`).MatchString(final) {
		t.Errorf("it is more than it needs to be: %s", final)
	}
	copied := regexp.MustCompile(`(?m)^COPY --from=build (.*) /usr/local/bin/$`).FindStringSubmatch(final)
	if copied == nil || len(made) != 2 {
		t.Fatalf("built %v, copied %v", made, copied)
	}
	for program := range made {
		if !slices.Contains(strings.Fields(copied[1]), "/out/"+program) {
			t.Errorf("%s is not in the image", program)
		}
	}
	for _, s := range readCompose(t).Services {
		if s.Image == ours && !made[s.Command[0]] {
			t.Errorf("%s is not built", s.Command[0])
		}
	}
	// What the build copies by name is not kept from it.
	ignored := strings.Fields(read(t, ".dockerignore"))
	for _, needed := range []string{"go.mod", "cmd", "examples", "examples/conduit", "internal", "LICENSE"} {
		if slices.Contains(ignored, needed) {
			t.Errorf("%s is needed, and ignored", needed)
		}
	}
	for _, secret := range []string{".git", ".env", "loadline.yaml", ".loadline"} {
		if !slices.Contains(ignored, secret) {
			t.Errorf("%s would be in a layer", secret)
		}
	}
}
