package eventstest

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/loadlinehq/loadline/events"
)

// A test binary has one flag of a name: a package with an -update of its own uses this one,
// by flag.Lookup.
var update = flag.Bool("update", false, "write the golden files of events")

// Golden compares the JSON of a type of events, by an example of its payload that has all
// fields set, with testdata/events/<type>.<version>.json, and fails when it differs. With
// -update it writes the file: with what was added or has another value. Fields that are gone
// or have another type it does not write: readers of that version would not survive them, so
// that they need a new version, with [events.Upcast]. Who is sure deletes the file.
func Golden[T any](t *testing.T, typ events.Type[T], example T) {
	t.Helper()
	path := filepath.Join("testdata", "events", typ.Name()+"."+typ.Version()+".json")
	if err := golden(path, example, *update); err != nil {
		t.Errorf("%s %s: %v", typ.Name(), typ.Version(), err)
	}
}

func golden(path string, example any, update bool) error {
	is, err := json.MarshalIndent(example, "", "  ")
	if err != nil {
		return err
	}
	is = append(is, '\n')
	want, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist) && !update:
		return fmt.Errorf("there is no golden file yet: run the test with -update, and commit %s", path)
	case errors.Is(err, fs.ErrNotExist):
		return write(path, is)
	case err != nil:
		return err
	case bytes.Equal(is, want):
		return nil
	}
	var now, before any
	if err := errors.Join(json.Unmarshal(is, &now), json.Unmarshal(want, &before)); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	breaks, adds := differences("", before, now)
	if len(breaks) > 0 {
		return fmt.Errorf("readers of this version would not survive this: define a new one\n  %w", errors.Join(breaks...))
	}
	if update {
		return write(path, is)
	}
	if len(adds) > 0 {
		return fmt.Errorf("readers survive this; run the test with -update if it is meant\n  %w", errors.Join(adds...))
	}
	return fmt.Errorf("the example has other values than %s; run the test with -update if it is meant", path)
}

func write(path string, content []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, content, 0o644)
}

// differences returns what readers do not survive, and what they do.
func differences(at string, before, now any) (breaks, adds []error) {
	if at == "" {
		at = "payload"
	}
	// null says nothing of the type: a field that was null may be anything, and is then
	// something.
	if before == nil {
		if now != nil {
			adds = append(adds, fmt.Errorf("%s was null, and is %s", at, kind(now)))
		}
		return breaks, adds
	}
	if kind(before) != kind(now) {
		return append(breaks, fmt.Errorf("%s was %s, and is %s", at, kind(before), kind(now))), adds
	}
	deeper := func(at string, before, now any) {
		b, a := differences(at, before, now)
		breaks, adds = append(breaks, b...), append(adds, a...)
	}
	switch before := before.(type) {
	case map[string]any:
		now := now.(map[string]any)
		for _, name := range slices.Sorted(maps.Keys(before)) {
			value, there := now[name]
			if !there {
				breaks = append(breaks, fmt.Errorf("%s.%s is gone", at, name))
				continue
			}
			deeper(at+"."+name, before[name], value)
		}
		for _, name := range slices.Sorted(maps.Keys(now)) {
			if _, there := before[name]; !there {
				adds = append(adds, fmt.Errorf("%s.%s is new", at, name))
			}
		}
	case []any:
		now := now.([]any)
		if len(before) > 0 && len(now) == 0 {
			return append(breaks, fmt.Errorf("%s is empty: the example shows nothing of what is in it", at)), adds
		}
		if len(before) > 0 {
			deeper(at+"[0]", before[0], now[0])
		}
	}
	return breaks, adds
}

func kind(v any) string {
	switch v := v.(type) {
	case nil:
		return "null"
	case bool:
		return "a boolean"
	case float64:
		return "a number"
	case string:
		return "a string"
	case []any:
		return "a list"
	case map[string]any:
		return "an object"
	default:
		return fmt.Sprintf("%T", v)
	}
}
