package manifests

import (
	"errors"
	"fmt"

	"github.com/loadlinehq/loadline/internal/invalid"
)

// usable is the share of a server's connections that instances may have. The rest is for
// those that still drain when their successors are ready, for migrations, and for who
// looks what is wrong.
const usable = 0.8

// pools are an instance's connections to the primary, and to each replica.
type pools struct{ primary, replica int }

// peak is how many instances there are at most, while a release rolls. Kubernetes rounds
// a surge up.
func (c Config) peak() int { return c.MaxReplicas + (c.MaxReplicas*c.MaxSurge+99)/100 }

// budget is how many connections of a server all instances may have together.
func (c Config) budget() int {
	return int(usable * float64(max(0, c.ConnectionLimit-c.ReservedConnections)))
}

// pools returns those that were set, if they fit, or else the largest that do.
func (c Config) pools() (pools, error) {
	fits := c.budget()/c.peak() - c.OtherConnections
	derive := func(key string, set int) (int, error) {
		if set == 0 {
			set = fits
			if fits >= minPool {
				return set, nil
			}
			return 0, invalid.If(true, "connectionLimit", "is %d, of which %d may be used (%.0f %% of what %d reserved ones leave): for %s that is %s; %s",
				c.ConnectionLimit, c.budget(), 100*usable, c.ReservedConnections, c.instances(), c.share(), c.remedy(minPool))
		}
		most := c.peak() * (set + c.OtherConnections)
		return set, invalid.If(most > c.budget(), key, "is %d: %s with %d connections each, and %d beside them, make %d, and of deploy.connectionLimit, %d, %d may be used (%.0f %% of what %d reserved ones leave); %s",
			set, c.instances(), set, c.OtherConnections, most, c.ConnectionLimit, c.budget(), 100*usable, c.ReservedConnections, c.remedy(set))
	}
	var p pools
	var err, replicaErr error
	p.primary, err = derive("pool", c.Pool)
	p.replica, replicaErr = derive("replicaPool", c.ReplicaPool)
	if err != nil && c.ReplicaPool == 0 {
		replicaErr = nil // of the same limit, which would be said twice
	}
	return p, errors.Join(err, replicaErr)
}

func (c Config) instances() string {
	return fmt.Sprintf("%d instances and %d more while a release rolls", c.MaxReplicas, c.peak()-c.MaxReplicas)
}

func (c Config) share() string {
	each := c.budget() / c.peak()
	return fmt.Sprintf("%d for each, of which %d are beside the pool", each, c.OtherConnections)
}

// remedy says what would fit.
func (c Config) remedy(pool int) string {
	var ways string
	if fits := c.budget()/c.peak() - c.OtherConnections; fits >= minPool && fits < pool {
		ways = fmt.Sprintf("a pool of %d fits, or ", fits)
	}
	smaller := c
	for smaller.MaxReplicas > 0 && smaller.peak()*(pool+c.OtherConnections) > c.budget() {
		smaller.MaxReplicas--
	}
	if smaller.MaxReplicas >= c.MinReplicas {
		ways += fmt.Sprintf("deploy.maxReplicas %d, or ", smaller.MaxReplicas)
	}
	need := c.peak() * (pool + c.OtherConnections)
	limit := int(float64(need)/usable) + c.ReservedConnections
	for c.withLimit(limit).budget() < need {
		limit++
	}
	return ways + fmt.Sprintf("a max_connections of %d, or a pooler in front of the database with as many", limit)
}

func (c Config) withLimit(limit int) Config { c.ConnectionLimit = limit; return c }
