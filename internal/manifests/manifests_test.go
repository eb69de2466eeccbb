package manifests_test

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/loadlinehq/loadline/internal/manifests"
	"github.com/loadlinehq/loadline/internal/manifests/selectors"
)

var update = flag.Bool("update", false, "write the golden files anew")

func with(change func(*manifests.Config)) manifests.Config {
	c := manifests.Defaults()
	c.Image, c.ConnectionLimit = "registry.example/conduit:1.4.2", 500
	change(&c)
	return c
}

// forms are those that golden files are of: between them each branch of each template.
func forms() map[string]manifests.Config {
	return map[string]manifests.Config{
		"hpa": with(func(*manifests.Config) {}),
		"keda": with(func(c *manifests.Config) {
			c.Scaler, c.Policy, c.ClassicHistograms = manifests.ScalerKEDA, manifests.PolicyDemand, true
			c.DatabaseRate, c.Pool, c.ReplicaPool = 700, 3, 4
			c.DrainDelay, c.PreStop, c.Args = 4500*time.Millisecond, 0, []string{"conduit", "serve"}
		}),
		"hpa-demand": with(func(c *manifests.Config) { c.Policy, c.Realtime = manifests.PolicyDemand, c.Name }),
		"keda-latency": with(func(c *manifests.Config) {
			c.Scaler, c.ClassicHistograms, c.Latency = manifests.ScalerKEDA, true, time.Second
			c.Realtime = "gateway"
		}),
	}
}

func made(t *testing.T, c manifests.Config) map[string][]byte {
	t.Helper()
	all := make(map[string][]byte)
	for _, make := range []func(manifests.Config) ([]manifests.File, error){manifests.Kubernetes, manifests.Prometheus, manifests.Grafana} {
		files, err := make(c)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			all[f.Name] = f.Content
		}
	}
	return all
}

func TestGolden(t *testing.T) {
	t.Parallel()
	for form, c := range forms() {
		files := made(t, c)
		if diff := cmp.Diff(files, made(t, c)); diff != "" {
			t.Errorf("%s: the second time it is another:\n%s", form, diff)
		}
		dir := filepath.Join("testdata", form)
		if *update {
			if err := errors.Join(os.RemoveAll(dir), os.MkdirAll(dir, 0o755)); err != nil {
				t.Fatal(err)
			}
			for name, content := range files {
				if err := os.WriteFile(filepath.Join(dir, name), content, 0o644); err != nil {
					t.Fatal(err)
				}
			}
		}
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		if len(entries) != len(files) {
			t.Errorf("%s has %d files, and %d are made", dir, len(entries), len(files))
		}
		for name, content := range files {
			want, err := os.ReadFile(filepath.Join(dir, name))
			if err != nil {
				t.Error(err)
			}
			if diff := cmp.Diff(string(want), string(content)); diff != "" {
				t.Errorf("%s/%s (go test ./internal/manifests -update writes it anew):\n%s", form, name, diff)
			}
		}
	}
}

// What cannot be is refused, with what is wrong and what would do.
func TestRefused(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		change func(*manifests.Config)
		want   []string
	}{
		"fifty times twenty": {
			func(c *manifests.Config) { c.Pool, c.ConnectionLimit = 20, 200 },
			[]string{"pool is 20: 50 instances and 13 more while a release rolls with 20 connections each, and 2 beside them, make 1386", "deploy.connectionLimit, 200, 157 may be used", "deploy.maxReplicas 5, or a max_connections of 1736"},
		},
		"the same to replicas": {
			func(c *manifests.Config) { c.ReplicaPool = 20 },
			[]string{"replicaPool is 20: ", "a pool of 4 fits"},
		},
		"nothing left to derive": {
			func(c *manifests.Config) { c.ConnectionLimit = 100 },
			[]string{"connectionLimit is 100, of which 77 may be used", "1 for each, of which 2 are beside the pool", "deploy.maxReplicas 15, or a max_connections of 318"},
		},
		"within the limit but for the surge": {
			func(c *manifests.Config) { c.Pool, c.MaxReplicas, c.ConnectionLimit = 8, 39, 503 },
			[]string{"39 instances and 10 more", "make 490", "400 may be used"},
		},
		"what is missing":     {func(c *manifests.Config) { c.Image, c.ConnectionLimit = "", 0 }, []string{"image is not set", "connectionLimit is not set: it is what SHOW max_connections says"}},
		"latest":              {func(c *manifests.Config) { c.Image = "conduit:latest" }, []string{"image is", "a tag other than latest"}},
		"no tag":              {func(c *manifests.Config) { c.Image = "registry.example:5000/conduit" }, []string{"image is"}},
		"an image with quote": {func(c *manifests.Config) { c.Image = "a\":1" }, []string{"image is"}},
		"a name":              {func(c *manifests.Config) { c.Name = "Conduit" }, []string{`name is "Conduit"`}},
		"a long name":         {func(c *manifests.Config) { c.Name = strings.Repeat("a", 53) }, []string{"at most 52"}},
		"a namespace":         {func(c *manifests.Config) { c.Namespace = "a b" }, []string{"namespace is"}},
		"a Secret":            {func(c *manifests.Config) { c.Secret = "" }, []string{"secret is"}},
		"one port for both":   {func(c *manifests.Config) { c.AdminPort = 8080 }, []string{"adminPort is 8080"}},
		"no port":             {func(c *manifests.Config) { c.Port = 0 }, []string{"port is 0"}},
		"CPU, memory":         {func(c *manifests.Config) { c.CPU, c.Memory = 0, 1 }, []string{"cpu is 0 cores", "memoryBytes is 1"}},
		"one instance":        {func(c *manifests.Config) { c.MinReplicas = 1 }, []string{"minReplicas is 1"}},
		"more than the most":  {func(c *manifests.Config) { c.MinReplicas = 51 }, []string{"minReplicas is 51, more than deploy.maxReplicas, 50"}},
		"no surge":            {func(c *manifests.Config) { c.MaxSurge = 0 }, []string{"maxSurgePercent is 0"}},
		"a part of a second":  {func(c *manifests.Config) { c.PreStop = 1500 * time.Millisecond }, []string{"preStop is 1.5s"}},
		"a scaler":            {func(c *manifests.Config) { c.Scaler, c.Policy = "vpa", "cost" }, []string{`scaler is "vpa"`, `policy is "cost"`}},
		"targets":             {func(c *manifests.Config) { c.CPUTarget, c.Availability = 100, 1 }, []string{"cpuTargetPercent is 100", "availability is 1"}},
		"microseconds":        {func(c *manifests.Config) { c.Latency = 250500 * time.Microsecond }, []string{"latency is 250.5ms"}},
		"between two edges":   {func(c *manifests.Config) { c.Latency, c.ClassicHistograms = 240*time.Millisecond, true }, []string{"latency is 240ms, and telemetry.classicHistograms has no edge there", "take 250ms"}},
		"windows":             {func(c *manifests.Config) { c.ScaleIn, c.QueueDrain = 2*time.Hour, 0 }, []string{"scaleIn is 2h0m0s", "queueDrain is 0s"}},
		"a Prometheus":        {func(c *manifests.Config) { c.Prometheus = "prometheus:9090" }, []string{"prometheus is no address"}},
		"a job":               {func(c *manifests.Config) { c.Realtime = "Gateway" }, []string{`realtime is "Gateway"`}},
		"a rate":              {func(c *manifests.Config) { c.DatabaseRate = -1 }, []string{"databaseRate is -1"}},
		"connections":         {func(c *manifests.Config) { c.ReservedConnections, c.OtherConnections, c.Pool = -1, -1, -1 }, []string{"reservedConnections is -1", "otherConnections is -1", "pool is -1"}},
		"a variable":          {func(c *manifests.Config) { c.Variables = []string{"A", "B={pol}", "DATABASE_URL=x"} }, []string{`number 1, "A", is not like NAME=value`, "number 2, B, has {pol}, which is none of {adminPort}", "number 3 sets DATABASE_URL, which deploy.secretVariables has"}},
		"a secret variable":   {func(c *manifests.Config) { c.SecretVariables = []string{"A B"} }, []string{`secretVariables number 1, "A B"`}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			files, err := manifests.Kubernetes(with(test.change))
			if err == nil || files != nil {
				t.Fatal("it is not refused")
			}
			for _, want := range test.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("got\n%v\nwithout %q", err, want)
				}
			}
			if n := strings.Count(err.Error(), "\n") + 1; n > max(len(test.want), 1) {
				t.Errorf("there are %d reasons:\n%v", n, err)
			}
		})
	}
}

// Whatever is set, what is not refused fits the limit, and what is derived is the most that does.
func TestConnectionsFit(t *testing.T) {
	t.Parallel()
	for limit := 10; limit < 3000; limit += 37 {
		for _, most := range []int{3, 10, 50, 333} {
			for _, surge := range []int{1, 25, 100} {
				c := with(func(c *manifests.Config) { c.ConnectionLimit, c.MaxReplicas, c.MaxSurge = limit, most, surge })
				files, err := manifests.Kubernetes(c)
				if err != nil {
					continue
				}
				var pool int
				_, rest, _ := strings.Cut(string(files[0].Content), `CONDUIT_POOL_MAX, value: "`)
				if _, err := fmt.Sscanf(rest, "%d", &pool); err != nil {
					t.Fatal(err)
				}
				peak := float64(most + (most*surge+99)/100)
				usable := 0.8 * float64(limit-c.ReservedConnections)
				if together := peak * float64(pool+c.OtherConnections); together > usable || together+peak <= usable-1 {
					t.Errorf("of %d connections %d instances with a surge of %d %% have %d each", limit, most, surge, pool)
				}
			}
		}
	}
}

// No secret is in what is made: they are in the Secret.
func TestSecretsAreReferred(t *testing.T) {
	t.Parallel()
	deployment := string(made(t, with(func(*manifests.Config) {}))["deployment.yaml"])
	for _, name := range manifests.Defaults().SecretVariables {
		if !strings.Contains(deployment, fmt.Sprintf("- name: %s\n              valueFrom: {secretKeyRef: {name: conduit, key: %s}}", name, name)) {
			t.Errorf("%s does not come from the Secret", name)
		}
	}
}

// What rules, dashboards and autoscalers read of what rules record is recorded, and in
// time: within a group rules are evaluated in order.
func TestRecordsExist(t *testing.T) {
	t.Parallel()
	for form, c := range forms() {
		files := made(t, c)
		expressions, records := selectors.Rules(files["rules.yaml"])
		for name, content := range files {
			switch filepath.Ext(name) {
			case ".json":
				more, err := selectors.Dashboard(content)
				if err != nil {
					t.Fatal(err)
				}
				expressions = append(expressions, more...)
			}
		}
		for _, file := range []string{"adapter.yaml", "scaledobject.yaml"} {
			for line := range strings.Lines(string(files[file])) {
				if _, query, ok := strings.Cut(line, "query: 'max("); ok {
					expressions = append(expressions, strings.TrimSuffix(strings.TrimSpace(query), ")'"))
				}
				if _, query, ok := strings.Cut(line, `{__name__="`); ok {
					name, _, _ := strings.Cut(query, `"`)
					expressions = append(expressions, name)
				}
			}
		}
		used := make(map[string]bool)
		for _, expr := range expressions {
			for _, s := range selectors.Of(expr) {
				if strings.Contains(s.Name, ":") {
					used[s.Name] = true
					if !slices.Contains(records, s.Name) {
						t.Errorf("%s: nobody records %s", form, s.Name)
					}
				}
			}
		}
		if len(used) < 20 {
			t.Errorf("%s: only %d records are used: %v", form, len(used), slices.Sorted(maps.Keys(used)))
		}
	}
}

// promtool returns where it is, or skips.
func promtool(t *testing.T) string {
	t.Helper()
	path, err := exec.LookPath("promtool")
	if err != nil {
		t.Skip("promtool is missing; tools/install-servers.sh installs it (Debian's package prometheus)")
	}
	return path
}

// Prometheus understands the rules, and what dashboards ask.
func TestPromtoolCheck(t *testing.T) {
	t.Parallel()
	tool := promtool(t)
	for form, c := range forms() {
		files := made(t, c)
		var asked bytes.Buffer
		asked.WriteString("groups:\n  - name: dashboards\n    rules:\n")
		n := 0
		for name, content := range files {
			if filepath.Ext(name) != ".json" {
				continue
			}
			expressions, err := selectors.Dashboard(content)
			if err != nil {
				t.Fatal(err)
			}
			for _, expr := range expressions {
				n++
				fmt.Fprintf(&asked, "      - record: asked%d\n        expr: '%s'\n", n, strings.ReplaceAll(expr, "'", "''"))
			}
		}
		dir := t.TempDir()
		for name, content := range map[string][]byte{"rules.yaml": files["rules.yaml"], "dashboards.yaml": asked.Bytes()} {
			path := filepath.Join(dir, name)
			if err := os.WriteFile(path, content, 0o600); err != nil {
				t.Fatal(err)
			}
			if out, err := exec.CommandContext(t.Context(), tool, "check", "rules", path).CombinedOutput(); err != nil {
				t.Errorf("%s: %s: %v\n%s", form, name, err, out)
			}
		}
	}
}

// The rules of the form keda do what they should with series of testdata/rules.test.yaml, and those of keda-latency, which has gateways,
// with series of testdata/realtime.test.yaml.
func TestPromtoolTest(t *testing.T) {
	t.Parallel()
	out, err := exec.CommandContext(t.Context(), promtool(t), "test", "rules", filepath.Join("testdata", "rules.test.yaml"), filepath.Join("testdata", "realtime.test.yaml")).CombinedOutput()
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// Where there are always as many instances as there may be, it is not news.
func TestFixedNumber(t *testing.T) {
	t.Parallel()
	fixed := made(t, with(func(c *manifests.Config) { c.MinReplicas, c.MaxReplicas = 5, 5 }))
	if bytes.Contains(fixed["rules.yaml"], []byte("LoadlineAtMaximum")) {
		t.Error("LoadlineAtMaximum would always fire")
	}
	if !bytes.Contains(made(t, with(func(*manifests.Config) {}))["rules.yaml"], []byte("LoadlineAtMaximum")) {
		t.Error("nothing tells of the maximum")
	}
}
