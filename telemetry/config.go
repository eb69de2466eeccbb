package telemetry

import (
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/sdk/metric"
	sdk "go.opentelemetry.io/otel/sdk/trace"
)

// Defaults of [Config].
const (
	DefaultRatio = 0.1
	// DefaultSlow is what most services promise for 95 of 100 requests.
	DefaultSlow = 250 * time.Millisecond
	// DefaultKeep bounds what an outage, in which all fail, adds. Guess.
	DefaultKeep = 20
	// DefaultExport is the SDK's own for spans.
	DefaultExport = 5 * time.Second
)

// Histograms are how durations are counted.
type Histograms int

const (
	// Exponential histograms have edges 2 to 9 % apart, the closer the less what is measured differs, and can be merged. Prometheus calls them native, and
	// takes them from 2.40 on with --enable-feature=native-histograms; /metrics shows them to it alone, not to people.
	Exponential Histograms = iota
	// Classic ones have edges 10 % apart between 50 ms and a second, and are for older servers.
	Classic
)

// Config needs a Service.
type Config struct {
	// Service is the service's name, and Version which one of it runs. Default of the latter is the main module's version, or the
	// revision that it was built from. OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES override them.
	Service, Version string
	// Deployed is when the version was deployed, for marks in graphs. Default: when New is called.
	Deployed time.Time
	// Attributes are more of what is said of the process, such as semconv.DeploymentEnvironmentName("production").
	Attributes []attribute.KeyValue

	// SpanExporter gets traces; see package telemetry/otlp. Default none: nothing is recorded, and logs name traces all the same.
	SpanExporter sdk.SpanExporter
	// SpanProcessors get what SpanExporter gets, when it has ended, and all spans that begin.
	SpanProcessors []sdk.SpanProcessor
	// Readers export metrics beside /metrics of [Telemetry.Admin].
	Readers []metric.Reader

	// Ratio is the share of traces that is exported whatever becomes of them, if their caller has not decided. Default 0.1;
	// negative: none.
	Ratio float64
	// Slow is from how long on a local root's trace is kept. Default 250 ms; negative: never for that reason.
	Slow time.Duration
	// Keep bounds how many traces a second are kept since their local root has failed, since a span below has, and since they were slow: so many of each.
	// Default 20; negative: none.
	Keep int
	// Export is how often spans are exported. Default 5 s.
	Export time.Duration
	// Histograms are Exponential or Classic.
	Histograms Histograms
	// Logger is told of spans that cannot be exported, and of metrics that cannot be shown. What else the SDK has to say goes to
	// otel.SetErrorHandler's. Default slog.Default().
	Logger *slog.Logger
}

func (c Config) withDefaults() Config {
	if c.Version == "" {
		c.Version = builtVersion()
	}
	if c.Deployed.IsZero() {
		c.Deployed = time.Now()
	}
	if c.Ratio == 0 {
		c.Ratio = DefaultRatio
	}
	if c.Slow == 0 {
		c.Slow = DefaultSlow
	}
	if c.Keep == 0 {
		c.Keep = DefaultKeep
	}
	if c.Export == 0 {
		c.Export = DefaultExport
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	return c
}

func (c *Config) validate() error {
	var errs []error
	if c.Service == "" {
		errs = append(errs, errors.New("telemetry: Config.Service is missing: it is how all else finds this service's telemetry"))
	}
	if c.Ratio > 1 {
		errs = append(errs, fmt.Errorf("telemetry: Config.Ratio is %g: it is a share, up to 1", c.Ratio))
	}
	if c.Export < 100*time.Millisecond || c.Export > 5*time.Minute {
		errs = append(errs, fmt.Errorf("telemetry: Config.Export is %v, and should be 100 ms to 5 min", c.Export))
	}
	if c.Histograms != Exponential && c.Histograms != Classic {
		errs = append(errs, fmt.Errorf("telemetry: Config.Histograms is %d, neither Exponential nor Classic", c.Histograms))
	}
	return errors.Join(errs...)
}

// builtVersion is what the toolchain has noted.
func builtVersion() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	if v := info.Main.Version; v != "" && v != "(devel)" {
		return v
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			return s.Value
		}
	}
	return "unknown"
}
