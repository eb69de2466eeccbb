// Package version says which version of Loadline a program was built from: what a
// release has written into it, and otherwise what the toolchain knows, so that
// `go install` of a version, a clone and a release each answer truthfully.
package version

import (
	"fmt"
	"runtime/debug"
	"strings"
)

// release is set by the linker: -X github.com/loadlinehq/loadline/internal/version.release=v1.2.3
var release string

// String is like "v1.2.3 (1a2b3c4d5e6f, 2026-11-28T10:00:00Z), go1.26.8 linux/amd64".
func String() string {
	info, _ := debug.ReadBuildInfo()
	return describe(release, info)
}

func describe(release string, info *debug.BuildInfo) string {
	if info == nil {
		info = &debug.BuildInfo{GoVersion: "unknown toolchain"}
	}
	settings := make(map[string]string)
	for _, s := range info.Settings {
		settings[s.Key] = s.Value
	}
	version := release
	switch {
	case version != "" && version[0] >= '0' && version[0] <= '9':
		version = "v" + version // as goreleaser has it
	case version != "":
	case info.Main.Version != "" && info.Main.Version != "(devel)":
		version = info.Main.Version
	default:
		version = "development"
	}
	var from []string
	if commit := settings["vcs.revision"]; commit != "" {
		from = append(from, commit[:min(12, len(commit))])
	}
	if at := settings["vcs.time"]; at != "" {
		from = append(from, at)
	}
	if settings["vcs.modified"] == "true" {
		from = append(from, "with changes")
	}
	if len(from) > 0 {
		version += " (" + strings.Join(from, ", ") + ")"
	}
	if settings["GOOS"] == "" {
		return version + ", " + info.GoVersion
	}
	return fmt.Sprintf("%s, %s %s/%s", version, info.GoVersion, settings["GOOS"], settings["GOARCH"])
}
