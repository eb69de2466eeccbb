package cache

import (
	"errors"
	"fmt"
	"time"
)

// Class says how long values are kept, and how they are filled. Fields that are zero have the defaults
// named; negative ones disable, where that has a meaning.
type Class struct {
	// Name is the class's in metrics.
	Name string
	// TTL is how long a value is fresh.
	TTL time.Duration
	// Jitter is by what share of itself a TTL is shortened, at random, so that what was filled together
	// does not end together. Default 0.1.
	Jitter float64
	// Stale is for how long after TTL a value is still given while another is loaded. Default a tenth of
	// TTL. A value that was invalidated is never given.
	Stale time.Duration
	// StaleIfError is for how long after TTL a value is still given when loading another fails, or takes longer
	// than SoftTimeout. Default TTL.
	StaleIfError time.Duration
	// Negative is how long it is kept that something does not exist. Default 30 s, or TTL if that is shorter.
	Negative time.Duration
	// EarlyRefresh is how eagerly a value is loaded anew before its TTL is over: the beta of XFetch (Vattani
	// et al., VLDB 2015), 1 where it is best for one. Default 1.
	EarlyRefresh float64
	// SoftTimeout is how long a load may take before an older value is given, if there is one. Default 500 ms.
	SoftTimeout time.Duration
	// LoadTimeout ends a load. Default the store's Lease.
	LoadTimeout time.Duration
	// WaitTimeout is how long to wait for a load in another process, before loading as well. Default 1 s.
	WaitTimeout time.Duration
}

// Hot, Warm and Cold are classes for most.
func Hot() Class  { return Class{Name: "hot", TTL: 300 * time.Second} }
func Warm() Class { return Class{Name: "warm", TTL: 1800 * time.Second} }
func Cold() Class { return Class{Name: "cold", TTL: 3600 * time.Second} }

const (
	defaultJitter      = 0.1
	defaultNegative    = 30 * time.Second
	defaultSoftTimeout = 500 * time.Millisecond
	defaultWaitTimeout = time.Second
	maxTTL             = 24 * time.Hour
)

func (c Class) withDefaults(lease time.Duration) Class {
	orNone := func(field *time.Duration, value time.Duration) {
		if def(field, value); *field < 0 {
			*field = 0
		}
	}
	orNone(&c.Stale, c.TTL/10)
	orNone(&c.StaleIfError, c.TTL)
	orNone(&c.Negative, min(defaultNegative, c.TTL))
	orNone(&c.SoftTimeout, defaultSoftTimeout)
	orNone(&c.WaitTimeout, defaultWaitTimeout)
	def(&c.LoadTimeout, lease)
	def(&c.Jitter, defaultJitter)
	def(&c.EarlyRefresh, 1)
	c.Jitter, c.EarlyRefresh = max(0, c.Jitter), max(0, c.EarlyRefresh)
	return c
}

func (c Class) validate() error {
	var errs []error
	wrong := func(is bool, format string, args ...any) {
		if is {
			errs = append(errs, fmt.Errorf("cache: Class."+format, args...))
		}
	}
	wrong(c.Name == "", "Name is empty")
	wrong(c.TTL < 10*time.Millisecond || c.TTL > maxTTL, "TTL is %v, and should be 10 ms to %v", c.TTL, maxTTL)
	wrong(c.Jitter > 0.9, "Jitter is %v, more than 0.9", c.Jitter)
	wrong(c.Stale > maxTTL || c.StaleIfError > maxTTL, "Stale is %v and StaleIfError %v, and neither should be more than %v", c.Stale, c.StaleIfError, maxTTL)
	wrong(c.Negative > c.TTL && c.TTL > 0 && c.Negative > defaultNegative, "Negative is %v, more than TTL", c.Negative)
	wrong(c.LoadTimeout < 0, "LoadTimeout is %v, less than nothing", c.LoadTimeout)
	return errors.Join(errs...)
}
