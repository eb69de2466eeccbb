package manifests

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
)

var placeholder = regexp.MustCompile(`\{[a-zA-Z]+\}`)

// placeholders are what a variable may be made of: what the manifests rest on, so that
// the application does what they count with.
func (c Config) placeholders(p pools) map[string]string {
	return map[string]string{
		"{port}": fmt.Sprint(c.Port), "{adminPort}": fmt.Sprint(c.AdminPort), "{pool}": fmt.Sprint(p.primary), "{replicaPool}": fmt.Sprint(p.replica),
		"{minReplicas}": fmt.Sprint(c.MinReplicas), "{maxReplicas}": fmt.Sprint(c.MaxReplicas), "{latency}": c.Latency.String(),
		"{drainDelay}": c.DrainDelay.String(), "{drainTimeout}": c.DrainTimeout.String(), "{classicHistograms}": fmt.Sprint(c.ClassicHistograms),
	}
}

// conduitVariables are set where no others are.
var conduitVariables = []string{
	"PORT={port}", "CONDUIT_HOST=0.0.0.0", "LOADLINE_ADMIN=0.0.0.0:{adminPort}", "CONDUIT_POOL_MAX={pool}", "CONDUIT_REPLICA_POOL_MAX={replicaPool}",
	"CONDUIT_INSTANCES={minReplicas}", "CONDUIT_DRAIN_DELAY={drainDelay}", "CONDUIT_DRAIN_TIMEOUT={drainTimeout}", "CONDUIT_SLOW={latency}",
	"CONDUIT_CLASSIC_HISTOGRAMS={classicHistograms}",
}

// given are the variables as they were written.
func (c Config) given() []string {
	if len(c.Variables) > 0 {
		return c.Variables
	}
	return conduitVariables
}

func sortedKeys(m map[string]string) []string { return slices.Sorted(maps.Keys(m)) }

type nameValue struct{ Name, Value string }

// variables returns them as they are set.
func (c Config) variables(p pools) []nameValue {
	values := c.placeholders(p)
	var all []nameValue
	for _, pair := range c.given() {
		name, value, _ := strings.Cut(pair, "=")
		all = append(all, nameValue{name, placeholder.ReplaceAllStringFunc(value, func(key string) string { return values[key] })})
	}
	return all
}
