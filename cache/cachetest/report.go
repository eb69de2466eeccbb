package cachetest

import (
	"errors"
	"fmt"
	"strings"
)

// Report is what an attack has found.
type Report struct {
	Writes, Reads, Hits, Stale, Errors int64
	// Examples are the first stale reads.
	Examples []Stale
	// Unsettled are the places that at the end have something else than is stored, or could not be read.
	Unsettled []Stale
	// Resting is how many reads of cached values that comparison has made.
	Resting int64

	invalid            error // nothing was attacked
	failed             error
	minHits, maxErrors float64
	minReads           int64
}

// Stale is a read that was given less than it had to be.
type Stale struct {
	Process, Key int
	Got, Want    int64
	Cached       bool
	Err          error // at the end: it could not be read
}

// maxExamples is what a reader of the report still reads. Guess.
const maxExamples = 10

func (a *attack) report() Report {
	return Report{
		Writes: a.writes.Load(), Reads: a.reads.Load(), Hits: a.hits.Load(), Stale: a.stale.Load(), Errors: a.errs.Load(),
		Examples: a.examples, Unsettled: a.unsettled, Resting: a.resting.Load(),
		failed: a.failed, minHits: a.MinHits, maxErrors: a.MaxErrors, minReads: a.MinReads,
	}
}

// HitShare is the share of reads that were cached.
func (r Report) HitShare() float64 { return share(r.Hits, r.Reads) }

// StaleShare is the share of reads that were given what had been invalidated.
func (r Report) StaleShare() float64 { return share(r.Stale, r.Reads) }

func share(part, of int64) float64 { return float64(part) / float64(max(1, of)) }

func (r Report) String() string {
	return fmt.Sprintf("%d writes, %d reads, %.1f %% hits, %d stale (%.3f %%), %d errors; at rest %d reads of cached values, %d places differ",
		r.Writes, r.Reads, 100*r.HitShare(), r.Stale, 100*r.StaleShare(), r.Errors, r.Resting, len(r.Unsettled))
}

func (s Stale) String() string {
	if s.Err != nil {
		return fmt.Sprintf("process %d, key %d: %v", s.Process, s.Key, s.Err)
	}
	from := "loaded"
	if s.Cached {
		from = "cached"
	}
	return fmt.Sprintf("process %d has version %d of key %d, %s, want %d", s.Process, s.Got, s.Key, from, s.Want)
}

// Err says what is wrong: stale reads, what differs at the end, too many errors, and what makes the attack worth
// nothing, too few hits or reads, or no write.
func (r Report) Err() error {
	if r.invalid != nil {
		return r.invalid
	}
	var errs []error
	wrong := func(is bool, format string, args ...any) {
		if is {
			errs = append(errs, fmt.Errorf("cachetest: "+format, args...))
		}
	}
	wrong(r.Stale > 0, "%d of %d reads were given what had been invalidated:%s", r.Stale, r.Reads, list(r.Examples))
	wrong(len(r.Unsettled) > 0, "at rest:%s", list(r.Unsettled))
	wrong(float64(r.Errors) > r.maxErrors*float64(r.Reads+r.Writes), "%d errors in %d reads and %d writes, the first: %w", r.Errors, r.Reads, r.Writes, r.failed)
	wrong(r.Reads == 0 || r.Writes == 0, "%d reads and %d writes say nothing", r.Reads, r.Writes)
	wrong(r.Reads < r.minReads, "%d reads, fewer than %d", r.Reads, r.minReads)
	wrong(r.HitShare() < r.minHits, "%.1f %% hits, fewer than %.1f %%: what is not cached is not stale", 100*r.HitShare(), 100*r.minHits)
	return errors.Join(errs...)
}

func list(all []Stale) string {
	var b strings.Builder
	for i, s := range all {
		if i == maxExamples {
			fmt.Fprintf(&b, "\n\tand %d more", len(all)-i)
			break
		}
		fmt.Fprintf(&b, "\n\t%v", s)
	}
	return b.String()
}
