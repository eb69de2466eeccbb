package version

import (
	"runtime/debug"
	"strings"
	"testing"
)

func TestDescribe(t *testing.T) {
	t.Parallel()
	platform := []debug.BuildSetting{{Key: "GOOS", Value: "linux"}, {Key: "GOARCH", Value: "amd64"}}
	commit := append([]debug.BuildSetting{
		{Key: "vcs.revision", Value: "1a2b3c4d5e6f7a8b9c"}, {Key: "vcs.time", Value: "2026-11-28T10:00:00Z"}, {Key: "vcs.modified", Value: "true"},
	}, platform...)
	for name, test := range map[string]struct {
		release string
		info    *debug.BuildInfo
		want    string
	}{
		"a release":     {"1.2.3", &debug.BuildInfo{GoVersion: "go1.26.8", Settings: platform}, "v1.2.3, go1.26.8 linux/amd64"},
		"an image":      {"v1.2.3", &debug.BuildInfo{GoVersion: "go1.26.8"}, "v1.2.3, go1.26.8"},
		"go install":    {"", &debug.BuildInfo{GoVersion: "go1.26.8", Main: debug.Module{Version: "v1.2.4"}}, "v1.2.4, go1.26.8"},
		"a clone":       {"", &debug.BuildInfo{GoVersion: "go1.26.8", Main: debug.Module{Version: "(devel)"}, Settings: commit}, "development (1a2b3c4d5e6f, 2026-11-28T10:00:00Z, with changes), go1.26.8 linux/amd64"},
		"nothing known": {"", nil, "development, unknown toolchain"},
	} {
		if got := describe(test.release, test.info); got != test.want {
			t.Errorf("%s: got %q, want %q", name, got, test.want)
		}
	}
	if got := String(); !strings.Contains(got, "go1.") {
		t.Errorf("this program: %q", got)
	}
}
