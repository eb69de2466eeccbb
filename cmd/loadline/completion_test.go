package main

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// What bash completes, by bash itself.
func TestCompletionInBash(t *testing.T) {
	t.Parallel()
	bash, err := exec.LookPath("bash")
	if err != nil {
		t.Skip("bash is not installed")
	}
	script, err := result(t, "completion", "bash")
	if err != nil {
		t.Fatalf("%v\n%s", err, script)
	}
	for _, test := range []struct {
		words []string // the last is what is being typed
		want  []string // all of these
		not   string
	}{
		{[]string{""}, []string{"up", "check", "events", "completion"}, "test-stack"},
		{[]string{"ch"}, []string{"check"}, "up"},
		{[]string{"completion", ""}, []string{"bash", "zsh", "fish"}, "up"},
		{[]string{"events", "r"}, []string{"relay", "republish", "rejected"}, "status"},
		{[]string{"events", "--config", "up", "rejected", ""}, []string{"list", "revive", "discard"}, "relay"},
		{[]string{"events", "--config", "=", "up", "rejected", ""}, []string{"list"}, "relay"},
		{[]string{"check", "--re"}, []string{"--replica", "--redis"}, "--strict"},
		{[]string{"check", "--json", "--st"}, []string{"--strict", "--stream"}, "--json"},
		{[]string{"events", "relay", "--on-poison", ""}, []string{"skip", "block"}, "relay"},
		{[]string{"events", "relay", "--on-poison", "=", "s"}, []string{"skip"}, "block"},
		{[]string{"check", "--redis", ""}, nil, "check"},
		{[]string{"up", "--", "ch"}, nil, "check"},
	} {
		command := exec.CommandContext(t.Context(), bash, "--norc", "-c", script+`
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
_loadline
printf '%s\n' "${COMPREPLY[@]}"`, "bash")
		command.Args = append(append(command.Args, "loadline"), test.words...)
		out, err := command.CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %v\n%s", test.words, err, out)
		}
		got := strings.Fields(string(out))
		for _, want := range test.want {
			if !slices.Contains(got, want) {
				t.Errorf("%v: %s is not among %v", test.words, want, got)
			}
		}
		if slices.Contains(got, test.not) || test.want == nil && len(got) > 0 {
			t.Errorf("%v: got %v", test.words, got)
		}
	}
}

// Shells that are there find no mistake in the scripts.
func TestCompletionIsUnderstood(t *testing.T) {
	t.Parallel()
	for _, shell := range []string{"bash", "zsh", "fish"} {
		script, err := result(t, "completion", shell)
		if err != nil || !strings.Contains(script, "--strict") && !strings.Contains(script, "-l strict") {
			t.Errorf("%s: %v\n%s", shell, err, script)
			continue
		}
		program, err := exec.LookPath(shell)
		if err != nil {
			t.Logf("%s is not installed", shell)
			continue
		}
		command := exec.CommandContext(t.Context(), program, "-n")
		command.Stdin = strings.NewReader(script)
		if out, err := command.CombinedOutput(); err != nil || len(out) > 0 {
			t.Errorf("%s: %v\n%s", shell, err, out)
		}
	}
	if out, err := result(t, "completion", "csh"); err == nil {
		t.Errorf("csh: %s", out)
	}
}

func TestVersion(t *testing.T) {
	t.Parallel()
	flag, err := result(t, "--version")
	if err != nil || !strings.HasPrefix(flag, "loadline ") || !strings.Contains(flag, ", go1.") {
		t.Errorf("--version: %v\n%s", err, flag)
	}
	if command, err := result(t, "version"); err != nil || command != flag {
		t.Errorf("version: %v\n%s", err, command)
	}
}
