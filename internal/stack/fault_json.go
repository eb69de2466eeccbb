package stack

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/loadlinehq/loadline/internal/stack/faultproxy"
)

// faultJSON is a fault in files and answers; durations are as Go writes them.
type faultJSON struct {
	ID             string               `json:"id,omitempty"`
	Service        string               `json:"service"`
	Kind           FaultKind            `json:"kind"`
	Delay          string               `json:"delay,omitempty"`
	Jitter         string               `json:"jitter,omitempty"`
	BytesPerSecond int64                `json:"bytes_per_second,omitempty"`
	Direction      faultproxy.Direction `json:"direction,omitempty"`
	Sessions       int                  `json:"sessions,omitempty"`
	For            string               `json:"for,omitempty"`
	Phase          FaultPhase           `json:"phase,omitempty"`
	Since          time.Time            `json:"since,omitzero"`
	Until          time.Time            `json:"until,omitzero"`
	Undo           string               `json:"undo,omitempty"`
	Problem        string               `json:"problem,omitempty"`
	Was            string               `json:"was,omitempty"`
	Promoting      bool                 `json:"promoting,omitempty"`
}

func (f Fault) MarshalJSON() ([]byte, error) { return json.Marshal(f.json()) }

func (f Fault) json() faultJSON {
	duration := func(d time.Duration) string {
		if d == 0 {
			return ""
		}
		return d.String()
	}
	return faultJSON{
		Service: f.Service, Kind: f.Kind, Delay: duration(f.Delay), Jitter: duration(f.Jitter),
		BytesPerSecond: f.BytesPerSecond, Direction: f.Direction, Sessions: f.Sessions, For: duration(f.For),
	}
}

func (f *Fault) UnmarshalJSON(data []byte) error {
	var in faultJSON
	if err := json.Unmarshal(data, &in); err != nil {
		return err
	}
	return f.fromJSON(in)
}

func (f *Fault) fromJSON(in faultJSON) error {
	var errs []error
	duration := func(name, text string) time.Duration {
		if text == "" {
			return 0
		}
		d, err := time.ParseDuration(text)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", name, err))
		}
		return d
	}
	*f = Fault{
		Service: in.Service, Kind: in.Kind, Delay: duration("delay", in.Delay), Jitter: duration("jitter", in.Jitter),
		BytesPerSecond: in.BytesPerSecond, Direction: in.Direction, Sessions: in.Sessions, For: duration("for", in.For),
	}
	return errors.Join(errs...)
}

func (f ActiveFault) MarshalJSON() ([]byte, error) {
	out := f.Fault.json()
	out.ID, out.Phase, out.Since, out.Until = f.ID, f.Phase, f.Since, f.Until
	out.Undo, out.Problem, out.Was, out.Promoting = f.Undo, f.Problem, f.Was, f.Promoting
	return json.Marshal(out)
}

func (f *ActiveFault) UnmarshalJSON(data []byte) error {
	var in faultJSON
	if err := json.Unmarshal(data, &in); err != nil {
		return err
	}
	*f = ActiveFault{
		ID: in.ID, Phase: in.Phase, Since: in.Since, Until: in.Until,
		Undo: in.Undo, Problem: in.Problem, Was: in.Was, Promoting: in.Promoting,
	}
	return f.Fault.fromJSON(in)
}
