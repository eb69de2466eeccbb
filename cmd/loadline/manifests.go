package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/alecthomas/kong"

	"github.com/loadlinehq/loadline/internal/config"
	"github.com/loadlinehq/loadline/internal/invalid"
	"github.com/loadlinehq/loadline/internal/manifests"
)

type manifestsCmd struct {
	Kubernetes manifestsKubernetesCmd `cmd:"" help:"Print the Deployment, what keeps it available, and what scales it."`
	Prometheus manifestsPrometheusCmd `cmd:"" help:"Print the recording rules and alerts, and how the instances are scraped."`
	Grafana    manifestsGrafanaCmd    `cmd:"" help:"Print the dashboards."`
}

// outputFlag says where to.
type outputFlag struct {
	Output string `short:"o" type:"path" placeholder:"DIR" help:"Write files into this directory, in place of printing them."`
}

type (
	manifestsKubernetesCmd struct{ outputFlag }
	manifestsPrometheusCmd struct{ outputFlag }
	manifestsGrafanaCmd    struct{ outputFlag }
)

// Run makes the objects of Kubernetes.
func (c *manifestsKubernetesCmd) Run(command *kong.Context, app *cli) error {
	if err := c.write(command.Stdout, app, "---\n", manifests.Kubernetes); err != nil || c.Output == "" {
		return err
	}
	return c.removeOthers(command.Stdout, app)
}

// Run makes the files of Prometheus.
func (c *manifestsPrometheusCmd) Run(command *kong.Context, app *cli) error {
	return c.write(command.Stdout, app, "---\n", manifests.Prometheus)
}

// Run makes the dashboards.
func (c *manifestsGrafanaCmd) Run(command *kong.Context, app *cli) error {
	return c.write(command.Stdout, app, "", manifests.Grafana) // JSON texts need nothing between them
}

func (f outputFlag) write(out io.Writer, app *cli, between string, make func(manifests.Config) ([]manifests.File, error)) error {
	c, err := loadDeploy(app.File)
	if err != nil {
		return err
	}
	files, err := make(c)
	if err != nil {
		return err
	}
	if f.Output == "" {
		for i, file := range files {
			if i > 0 {
				_, err = io.WriteString(out, between)
			}
			if _, writeErr := out.Write(file.Content); err != nil || writeErr != nil {
				return errors.Join(err, writeErr)
			}
		}
		return nil
	}
	if err := os.MkdirAll(f.Output, 0o755); err != nil {
		return err
	}
	for _, file := range files {
		path := filepath.Join(f.Output, file.Name)
		if err := os.WriteFile(path, file.Content, 0o644); err != nil {
			return err
		}
		if _, err := fmt.Fprintln(out, path); err != nil {
			return err
		}
	}
	return nil
}

// kubernetesMade is what files of ours begin with.
const kubernetesMade = "# Made by loadline manifests kubernetes"

// removeOthers deletes what an earlier form has left: with it applied, two autoscalers would pull at one Deployment.
func (c *manifestsKubernetesCmd) removeOthers(out io.Writer, app *cli) error {
	deploy, err := loadDeploy(app.File)
	if err != nil {
		return err
	}
	files, err := manifests.Kubernetes(deploy)
	if err != nil {
		return err
	}
	paths, err := filepath.Glob(filepath.Join(c.Output, "*.yaml"))
	if err != nil {
		return err
	}
	for _, path := range paths {
		if slices.ContainsFunc(files, func(f manifests.File) bool { return f.Name == filepath.Base(path) }) {
			continue
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if !strings.HasPrefix(string(content), kubernetesMade) {
			continue
		}
		if err := os.Remove(path); err != nil {
			return err
		}
		if _, err := fmt.Fprintln(out, "removed", path); err != nil {
			return err
		}
	}
	return nil
}

// deploySettings are those sections that manifests are made of. Of http and telemetry
// they read what the application does at its end, and how it counts; the defaults are the
// application's.
type deploySettings struct {
	Deploy deploySection `yaml:"deploy"`
	HTTP   struct {
		DrainDelay   time.Duration `yaml:"drainDelay" env:"CONDUIT_DRAIN_DELAY"`
		DrainTimeout time.Duration `yaml:"drainTimeout" env:"CONDUIT_DRAIN_TIMEOUT"`
	} `yaml:"http" partial:"true"`
	Telemetry struct {
		ClassicHistograms bool `yaml:"classicHistograms" env:"CONDUIT_CLASSIC_HISTOGRAMS"`
	} `yaml:"telemetry" partial:"true"`
}

// deploySection is without the method Validate, which does not see the other sections.
type deploySection manifests.Config

// complete is section deploy with what it needs of the others.
func (s deploySettings) complete() manifests.Config {
	c := manifests.Config(s.Deploy)
	c.DrainDelay, c.DrainTimeout, c.ClassicHistograms = s.HTTP.DrainDelay, s.HTTP.DrainTimeout, s.Telemetry.ClassicHistograms
	return c
}

// Validate reports what is missing, and relations between sections that cannot be.
func (s deploySettings) Validate() error {
	return errors.Join(
		invalid.Under("deploy", s.complete().Complete()),
		invalid.If(s.HTTP.DrainDelay < 0, "http.drainDelay", "is %s: it cannot be negative", s.HTTP.DrainDelay),
		invalid.If(s.HTTP.DrainTimeout < 0, "http.drainTimeout", "is %s: it cannot be negative", s.HTTP.DrainTimeout),
	)
}

// loadDeploy reads the sections by itself: what is missing for a deployment is not missing
// to other commands.
func loadDeploy(path string) (manifests.Config, error) {
	d := manifests.Defaults()
	s := deploySettings{Deploy: deploySection(d)}
	s.HTTP.DrainTimeout = d.DrainTimeout
	_, err := config.Load(&s, config.Sources{Path: path, Environ: os.Environ(), Others: append(sections(), "stack")})
	if err != nil {
		return manifests.Config{}, fmt.Errorf("the configuration is wrong:\n%w", err)
	}
	return s.complete(), nil
}
