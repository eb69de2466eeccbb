package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Manifests are made of the file that the application has, too, and of what it says of
// its end.
func TestManifests(t *testing.T) {
	t.Parallel()
	path := configFile(t, `
deploy: {name: shop, image: "registry.example/shop:7", connectionLimit: 500, pool: 3}
http: {host: 127.0.0.1, drainDelay: 4s}
telemetry: {slow: 3s, classicHistograms: true}
database: {this: is Conduit's}
stack: {replicas: 1}
`)
	for _, test := range []struct {
		command string
		want    []string
	}{
		{"kubernetes", []string{"terminationGracePeriodSeconds: 39", `{name: CONDUIT_POOL_MAX, value: "3"}`, `{name: CONDUIT_DRAIN_DELAY, value: "4s"}`, "\n---\n# Made by loadline manifests kubernetes", "value: 250m}"}},
		{"prometheus", []string{"http_server_request_duration_seconds_bucket{job=\"shop\"", "job_name: shop"}},
		{"grafana", []string{`"title": "shop: requests"`}},
	} {
		printed, err := result(t, "manifests", test.command, "--config", path)
		if err != nil {
			t.Errorf("%s: %v\n%s", test.command, err, printed)
		}
		for _, want := range test.want {
			if !strings.Contains(printed, want) {
				t.Errorf("%s has no %q:\n%s", test.command, want, printed)
			}
		}
		dir := filepath.Join(t.TempDir(), "made")
		listed, err := result(t, "manifests", test.command, "--config", path, "--output", dir)
		if err != nil {
			t.Errorf("%s: %v\n%s", test.command, err, listed)
		}
		var parts []string
		for line := range strings.Lines(listed) {
			content, err := os.ReadFile(strings.TrimSpace(line))
			if err != nil {
				t.Error(err)
			}
			parts = append(parts, string(content))
		}
		between := "---\n"
		if test.command == "grafana" {
			between = ""
		}
		if got := strings.Join(parts, between); got != printed {
			t.Errorf("%s: files hold\n%s\nand printed was\n%s", test.command, got, printed)
		}
	}
}

// All that is wrong is said at once, with its place, also between sections; and nothing is made.
func TestManifestsAreRefused(t *testing.T) {
	t.Parallel()
	path := configFile(t, `deploy:
  pool: 20
  connectionLimit: 200
  latency: 240ms
  policy: cost
http: {drainTimeout: -1s}
telemetry: {classicHistograms: true}
`)
	dir := filepath.Join(t.TempDir(), "made")
	out, err := result(t, "manifests", "kubernetes", "--config", path, "--output", dir)
	if err == nil {
		t.Error("it succeeds")
	}
	for _, want := range []string{
		path + ":2:9: deploy.pool is 20: 50 instances and 13 more while a release rolls with 20 connections each",
		path + ":4:12: deploy.latency is 240ms, and telemetry.classicHistograms has no edge there",
		path + `:5:11: deploy.policy is "cost", neither latency nor demand`,
		path + ":6:22: http.drainTimeout is -1s: it cannot be negative",
		"deploy.image is not set: it is what is deployed",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("got\n%s\nwithout %q", out, want)
		}
	}
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("there is a directory: %v", err)
	}
	// A number has no unit: 250 of what?
	if out, err := result(t, "manifests", "kubernetes", "--config", configFile(t, "deploy: {latency: 250}\n")); err == nil || !strings.Contains(out, `deploy.latency is "250", a number without a unit`) {
		t.Errorf("got %v\n%s", err, out)
	}
}

// Another scaler leaves nothing of the one before, and nothing of others is touched.
func TestManifestsOfAnotherScaler(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	theirs := filepath.Join(dir, "ours.yaml")
	if err := os.WriteFile(theirs, []byte("# by hand\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var out string
	for _, scaler := range []string{"hpa", "keda"} {
		var err error
		path := configFile(t, `deploy: {image: "a:1", connectionLimit: 500, scaler: `+scaler+"}\n")
		if out, err = result(t, "manifests", "kubernetes", "--config", path, "--output", dir); err != nil {
			t.Fatal(err, out)
		}
	}
	for name, there := range map[string]bool{"ours.yaml": true, "scaledobject.yaml": true, "deployment.yaml": true, "hpa.yaml": false, "adapter.yaml": false} {
		path := filepath.Join(dir, name)
		if _, err := os.Stat(path); (err == nil) != there {
			t.Errorf("%s: %v", name, err)
		}
		if !there && !strings.Contains(out, "removed "+path+"\n") {
			t.Errorf("nothing says that %s is gone:\n%s", name, out)
		}
	}
}
