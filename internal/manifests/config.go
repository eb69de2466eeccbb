package manifests

import (
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"strings"
	"time"

	"github.com/loadlinehq/loadline/internal/invalid"
)

// What scales the Deployment, and by what.
const (
	ScalerHPA  = "hpa"  // Kubernetes' own, fed by prometheus-adapter
	ScalerKEDA = "keda" // a ScaledObject, which asks Prometheus itself

	PolicyLatency = "latency" // CPU, p95, queue and connections; whichever asks for most
	PolicyDemand  = "demand"  // the one number that the recording rules compute
)

// Config is the section deploy of the configuration file. [Config.Validate] reports what
// cannot be, [Config.Complete] also what is missing before anything can be made.
type Config struct {
	// Name is that of every object, of the label app, and of the job in Prometheus.
	Name      string `yaml:"name"`
	Namespace string `yaml:"namespace"`
	// Image has a tag or a digest, which becomes the version that telemetry names.
	Image string `yaml:"image"`
	// Args replace the image's command, all of it: Kubernetes keeps only an entrypoint.
	Args []string `yaml:"args"`
	// Secret is the name of the Secret that has SecretVariables as its keys.
	Secret          string   `yaml:"secret"`
	SecretVariables []string `yaml:"secretVariables"`
	// Variables are NAME=value, in place of Conduit's. What is in braces is filled in: see
	// placeholders.
	Variables []string `yaml:"variables"`
	Port      uint16   `yaml:"port"`
	AdminPort uint16   `yaml:"adminPort"`

	// CPU is in cores and Memory in bytes, of one instance.
	CPU    float64 `yaml:"cpu"`
	Memory int64   `yaml:"memoryBytes"`

	MinReplicas int `yaml:"minReplicas"`
	MaxReplicas int `yaml:"maxReplicas"`
	// MaxSurge is how many instances more there are while a release rolls, in percent.
	MaxSurge int `yaml:"maxSurgePercent"`

	// ConnectionLimit is max_connections, of the primary and of each replica.
	ConnectionLimit int `yaml:"connectionLimit"`
	// ReservedConnections are those of it that only superusers get.
	ReservedConnections int `yaml:"reservedConnections"`
	// Pool and ReplicaPool are an instance's connections to the primary, and to each
	// replica. 0 is what ConnectionLimit leaves for each.
	Pool        int `yaml:"pool"`
	ReplicaPool int `yaml:"replicaPool"`
	// OtherConnections are those of an instance beside its pool: one that watches the
	// server, and the relay's.
	OtherConnections int `yaml:"otherConnections"`

	// PreStop is how long an instance goes on as before when it has been told to end, for
	// balancers to notice.
	PreStop time.Duration `yaml:"preStop"`

	Scaler string `yaml:"scaler"`
	Policy string `yaml:"policy"`
	// CPUTarget is in percent of CPU.
	CPUTarget int `yaml:"cpuTargetPercent"`
	// Latency is what 95 of 100 requests may take.
	Latency time.Duration `yaml:"latency"`
	// Availability is the share of requests that must not fail.
	Availability float64 `yaml:"availability"`
	// ScaleIn is for how long there must be too many before there are fewer.
	ScaleIn time.Duration `yaml:"scaleIn"`
	// QueueDrain is in what time a backlog of events should be gone.
	QueueDrain time.Duration `yaml:"queueDrain"`
	// DatabaseRate is how many requests a second the database can bear; 0 is not known.
	DatabaseRate float64 `yaml:"databaseRate"`
	// Realtime is the job in Prometheus of the gateways of package realtime: Name, where they
	// are in the instances, or that of their own Deployment. Empty: there are none.
	Realtime string `yaml:"realtime"`
	// Prometheus is where KEDA asks.
	Prometheus string `yaml:"prometheus"`

	// Of other sections of the file.

	// DrainDelay and DrainTimeout are the server's, of section http.
	DrainDelay, DrainTimeout time.Duration
	// ClassicHistograms is telemetry's.
	ClassicHistograms bool
}

// Defaults are those of the file.
func Defaults() Config {
	return Config{
		Name: "conduit", Namespace: "default", Secret: "conduit",
		SecretVariables: []string{"DATABASE_URL", "DATABASE_REPLICA_URLS", "REDIS_URL", "NATS_URL", "CONDUIT_JWT_SECRET", "CONDUIT_ADMIN_TOKEN"},
		Port:            8080, AdminPort: 9464, CPU: 1, Memory: 512 << 20, MinReplicas: 3, MaxReplicas: 50, MaxSurge: 25,
		ReservedConnections: 3,               // superuser_reserved_connections' own default
		OtherConnections:    2,               // package db's watcher, and the lease of package outbox
		PreStop:             5 * time.Second, // guess: endpoints are gone from most proxies within a second or two
		Scaler:              ScalerHPA, Policy: PolicyLatency, CPUTarget: 65, Latency: 250 * time.Millisecond, Availability: 0.999,
		ScaleIn: 5 * time.Minute, QueueDrain: 2 * time.Minute,
		Prometheus: "http://prometheus.monitoring:9090",
		// Of package main of Conduit.
		DrainTimeout: 10 * time.Second,
	}
}

const (
	maxName     = 52 // Kubernetes allows 63, of which a pod's own part needs eleven
	maxReplicas = 1000
	maxSurge    = 100
	minMemory   = 16 << 20
	minPool     = 2 // with one, a request that writes waits for one that reads
)

var (
	dnsLabel = regexp.MustCompile(`^[a-z]([-a-z0-9]*[a-z0-9])?$`)
	dnsName  = regexp.MustCompile(`^[a-z0-9]([-.a-z0-9]*[a-z0-9])?$`)
	variable = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)
	// image is a reference with a tag or a digest; latest is refused apart.
	image = regexp.MustCompile(`^[a-zA-Z0-9][-a-zA-Z0-9._/:]*(:[a-zA-Z0-9_][-a-zA-Z0-9._]*|@sha256:[0-9a-f]{64})$`)
)

// Validate reports all fields that cannot be. What only a deployment needs may be missing.
func (c Config) Validate() error {
	outside := func(n, least, most int) bool { return n < least || n > most }
	errs := []error{
		invalid.If(!dnsLabel.MatchString(c.Name) || len(c.Name) > maxName, "name", "is %q: it is of lower-case letters, digits and -, begins with a letter, and has at most %d", c.Name, maxName),
		invalid.If(!dnsLabel.MatchString(c.Namespace) || len(c.Namespace) > 63, "namespace", "is %q: it is of lower-case letters, digits and -, and begins with a letter", c.Namespace),
		invalid.If(!dnsName.MatchString(c.Secret), "secret", "is %q: it is the name of a Secret, of lower-case letters, digits, - and dots", c.Secret),
		invalid.If(c.Port == 0, "port", "is 0: Services need a port that is known"),
		invalid.If(c.AdminPort == 0 || c.AdminPort == c.Port, "adminPort", "is %d: metrics and profiles have a port of their own, which is known and not deploy.port", c.AdminPort),
		invalid.If(c.CPU < 0.01 || c.CPU > 256, "cpu", "is %g cores, not between 0.01 and 256", c.CPU),
		invalid.If(c.Memory < minMemory, "memoryBytes", "is %d, less than %d", c.Memory, minMemory),
		invalid.If(outside(c.MaxReplicas, 1, maxReplicas), "maxReplicas", "is %d, not between 1 and %d", c.MaxReplicas, maxReplicas),
		invalid.If(c.MinReplicas < 2, "minReplicas", "is %d: with fewer than two, each release and each node that goes is an outage", c.MinReplicas),
		invalid.If(c.MinReplicas > c.MaxReplicas, "minReplicas", "is %d, more than deploy.maxReplicas, %d", c.MinReplicas, c.MaxReplicas),
		invalid.If(outside(c.MaxSurge, 1, maxSurge), "maxSurgePercent", "is %d, not between 1 and %d: no instance ends before its successor is ready", c.MaxSurge, maxSurge),
		invalid.If(c.ConnectionLimit < 0, "connectionLimit", "is %d: it is PostgreSQL's max_connections", c.ConnectionLimit),
		invalid.If(c.ReservedConnections < 0, "reservedConnections", "is %d: it cannot be negative", c.ReservedConnections),
		invalid.If(c.OtherConnections < 0, "otherConnections", "is %d: it cannot be negative", c.OtherConnections),
		invalid.If(c.Pool < 0, "pool", "is %d: it is a number of connections, or 0 to have it derived", c.Pool),
		invalid.If(c.ReplicaPool < 0, "replicaPool", "is %d: it is a number of connections, or 0 to have it derived", c.ReplicaPool),
		invalid.If(c.PreStop < 0 || c.PreStop%time.Second != 0, "preStop", "is %s: it is in whole seconds, as Kubernetes counts", c.PreStop),
		invalid.If(c.Scaler != ScalerHPA && c.Scaler != ScalerKEDA, "scaler", "is %q, neither %s nor %s", c.Scaler, ScalerHPA, ScalerKEDA),
		invalid.If(c.Policy != PolicyLatency && c.Policy != PolicyDemand, "policy", "is %q, neither %s nor %s", c.Policy, PolicyLatency, PolicyDemand),
		invalid.If(outside(c.CPUTarget, 10, 95), "cpuTargetPercent", "is %d, not between 10 and 95", c.CPUTarget),
		invalid.If(c.Latency < time.Millisecond || c.Latency > time.Minute || c.Latency%time.Millisecond != 0, "latency", "is %s: it is between 1ms and 1m, in whole milliseconds, which is as fine as an autoscaler counts seconds", c.Latency),
		invalid.If(c.ClassicHistograms && !isEdge(c.Latency), "latency", "is %s, and telemetry.classicHistograms has no edge there, so that nobody could count what is slower: take %s", c.Latency, nearestEdge(c.Latency)),
		invalid.If(c.Availability < 0.5 || c.Availability >= 1, "availability", "is %g, not from 0.5 to below 1: what may never fail has no budget", c.Availability),
		invalid.If(c.ScaleIn < 0 || c.ScaleIn > time.Hour || c.ScaleIn%time.Second != 0, "scaleIn", "is %s: it is in whole seconds, and at most 1h", c.ScaleIn),
		invalid.If(c.QueueDrain < time.Second, "queueDrain", "is %s: it must be a second at least", c.QueueDrain),
		invalid.If(c.DatabaseRate < 0, "databaseRate", "is %g: it is in requests a second, or 0 where it is not known", c.DatabaseRate),
		invalid.If(c.Realtime != "" && (!dnsLabel.MatchString(c.Realtime) || len(c.Realtime) > maxName), "realtime", "is %q: it is a job, named as deploy.name is, or empty where there is no gateway", c.Realtime),
		invalid.If(!isHTTP(c.Prometheus), "prometheus", "is no address of a Prometheus, like http://prometheus.monitoring:9090"),
	}
	if c.Image != "" {
		_, tag, _ := strings.Cut(c.Image[strings.LastIndexByte(c.Image, '/')+1:], ":")
		errs = append(errs, invalid.If(!image.MatchString(c.Image) || tag == "" || tag == "latest", "image", "is %q: it has a tag other than latest, or a digest, so that a release is known by it", c.Image))
	}
	for i, name := range c.SecretVariables {
		errs = append(errs, invalid.If(!variable.MatchString(name), "secretVariables", "number %d, %q, is no name of a variable", i+1, name))
	}
	for i, pair := range c.given() {
		errs = append(errs, c.checkVariable(i+1, pair))
	}
	if c.ConnectionLimit > 0 && c.MaxReplicas > 0 && c.MaxSurge >= 0 {
		_, err := c.pools()
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// Complete reports, beside what Validate does, what is missing.
func (c Config) Complete() error {
	return errors.Join(c.Validate(), c.missing())
}

func (c Config) missing() error {
	return errors.Join(
		invalid.If(c.Image == "", "image", "is not set: it is what is deployed, with its tag, like registry.example/conduit:1.4.2"),
		invalid.If(c.ConnectionLimit == 0, "connectionLimit", "is not set: it is what SHOW max_connections says on the primary, and bounds the pools of all instances together"),
	)
}

func isHTTP(address string) bool {
	u, err := url.Parse(address)
	return err == nil && u.Host != "" && (u.Scheme == "http" || u.Scheme == "https")
}

func (c Config) checkVariable(number int, pair string) error {
	name, value, ok := strings.Cut(pair, "=")
	if !ok || !variable.MatchString(name) {
		return invalid.If(true, "variables", "number %d, %q, is not like NAME=value", number, pair)
	}
	for _, secret := range c.SecretVariables {
		if name == secret {
			return invalid.If(true, "variables", "number %d sets %s, which deploy.secretVariables has from the Secret", number, name)
		}
	}
	values := c.placeholders(pools{})
	for _, found := range placeholder.FindAllString(value, -1) {
		if _, known := values[found]; !known {
			return invalid.If(true, "variables", "number %d, %s, has %s, which is none of %s", number, name, found, strings.Join(sortedKeys(values), ", "))
		}
	}
	return nil
}

// version is what telemetry calls the release.
func (c Config) version() string {
	name := c.Image[strings.LastIndexByte(c.Image, '/')+1:]
	if _, digest, ok := strings.Cut(name, "@sha256:"); ok {
		return digest[:12]
	}
	_, tag, _ := strings.Cut(name, ":")
	return tag
}

// seconds is a duration as PromQL and autoscalers count it.
func seconds(d time.Duration) string { return fmt.Sprintf("%g", d.Seconds()) }
