package load_test

import (
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/loadlinehq/loadline/internal/load"
)

func TestValidateReportsAll(t *testing.T) {
	t.Parallel()
	err := load.Config{
		Target: "ftp://x", Timeout: time.Hour, MaxConns: -1, MaxInFlight: -1, Arrivals: 9, Users: -1, MaxCPU: 2,
		Journeys: []load.Weighted{{Weight: -1}},
		Steps:    []load.Step{{Rate: math.NaN(), Duration: -1}, {Rate: 1, Duration: 1, Warmup: 1}},
		SLO:      load.SLO{P99: time.Hour, MaxErrors: math.NaN()},
	}.Validate()
	if err == nil {
		t.Fatal("accepted")
	}
	for _, part := range []string{
		"not an http URL", "Timeout", "MaxConns", "MaxInFlight", "Arrivals(9)", "Users", "MaxCPU", "no function", "weight",
		"rate NaN", "duration", "warm-up", "MaxErrors",
	} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q is missing in:\n%v", part, err)
		}
	}
	if err := (load.Config{Journeys: []load.Weighted{{Run: nothing}}, Steps: []load.Step{{Rate: 1e6, Duration: time.Hour}}}).Validate(); err == nil {
		t.Error("4e9 arrivals were accepted")
	}
	if err := (load.KneeConfig{Start: -1, Max: -2, Width: 0.001, Hold: -1}).Validate(); err == nil {
		t.Error("a search without sense was accepted")
	}
}

func TestRefusesRemoteTargets(t *testing.T) {
	t.Parallel()
	cfg := load.Config{Journeys: []load.Weighted{{Run: nothing}}, Steps: []load.Step{{Rate: 1, Duration: time.Second}}}
	for target, ok := range map[string]bool{
		"http://127.0.0.1:80": true, "http://[::1]:80": true, "http://localhost": true, "http://127.9.9.9": true,
		"http://192.0.2.1": false, "http://example.com": false, "http://localhost.example.com": false, "http://0.0.0.0": false,
	} {
		cfg.Target = target
		if err := cfg.Validate(); (err == nil) != ok || (!ok && !errors.Is(err, load.ErrRemote)) {
			t.Errorf("%s: %v", target, err)
		}
	}
	cfg.Target, cfg.AllowRemote = "http://example.com:81", []string{"Example.com"}
	if err := cfg.Validate(); err != nil {
		t.Error(err)
	}
}
