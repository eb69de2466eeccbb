package main

import (
	"embed"
	"fmt"
	"slices"
	"strings"
	"text/template"

	"github.com/alecthomas/kong"
)

// The scripts are generated from the commands, and are complete in themselves: a shell
// that completes does not run the program. Libraries that do this for kong have not been kept up
// since 2023.
type completionCmd struct {
	Shell string `arg:"" enum:"bash,zsh,fish" help:"One of ${enum}."`
}

// Help is shown below the flags.
func (completionCmd) Help() string {
	return `bash: source <(loadline completion bash), in ~/.bashrc
zsh:  source <(loadline completion zsh), in ~/.zshrc after compinit
fish: loadline completion fish > ~/.config/fish/completions/loadline.fish`
}

//go:embed completion/*.tmpl
var completionScripts embed.FS

// Run prints the script.
func (c *completionCmd) Run(command *kong.Context) error {
	scripts, err := template.New("").Funcs(template.FuncMap{"join": strings.Join, "quote": singleQuote}).ParseFS(completionScripts, "completion/*.tmpl")
	if err != nil {
		return err
	}
	return scripts.ExecuteTemplate(command.Stdout, c.Shell+".tmpl", completionOf(command.Model.Node))
}

// completions are what the scripts know.
type completions struct {
	Commands []completedCommand
	Valued   []string // flags that take a value
}

// completedCommand is a command with what may follow it.
type completedCommand struct {
	Path  string // of words, with a space before each; the program itself has none
	Words []completedWord
	Flags []completedFlag
}

type completedWord struct{ Name, Help string }

type completedFlag struct {
	Name, Help string // the name is without dashes
	IsValued   bool
	Values     []string // where there are only some
}

// Names are the command's words.
func (c completedCommand) Names() []string {
	var names []string
	for _, w := range c.Words {
		names = append(names, w.Name)
	}
	return names
}

// FlagNames have their dashes.
func (c completedCommand) FlagNames() []string {
	var names []string
	for _, f := range c.Flags {
		names = append(names, "--"+f.Name)
	}
	return names
}

func completionOf(root *kong.Node) completions {
	var c completions
	c.add(root, "", nil)
	slices.Sort(c.Valued)
	c.Valued = slices.Compact(c.Valued)
	return c
}

func (c *completions) add(node *kong.Node, path string, inherited []completedFlag) {
	flags := slices.Clone(inherited)
	for _, f := range node.Flags {
		if f.Hidden {
			continue
		}
		flag := completedFlag{Name: f.Name, Help: firstSentence(f.Help), IsValued: !f.IsBool() && !f.IsCounter(), Values: enumOf(f.Value)}
		if flag.IsValued {
			c.Valued = append(c.Valued, "--"+f.Name)
		}
		flags = append(flags, flag)
	}
	command := completedCommand{Path: path, Flags: flags}
	for _, child := range node.Children {
		if !child.Hidden {
			command.Words = append(command.Words, completedWord{child.Name, firstSentence(child.Help)})
		}
	}
	for _, argument := range node.Positional {
		for _, value := range enumOf(argument) {
			command.Words = append(command.Words, completedWord{Name: value})
		}
	}
	c.Commands = append(c.Commands, command)
	for _, child := range node.Children {
		if !child.Hidden {
			c.add(child, path+" "+child.Name, flags)
		}
	}
}

func enumOf(v *kong.Value) []string {
	if v.Enum == "" {
		return nil
	}
	return v.EnumSlice()
}

// firstSentence is what has room beside a word.
func firstSentence(help string) string {
	help, _, _ = strings.Cut(help, ". ")
	help, _, _ = strings.Cut(help, "; ")
	return strings.TrimSuffix(help, ".")
}

// singleQuote makes one word of a text, for all three shells.
func singleQuote(text string) (string, error) {
	if strings.ContainsAny(text, "\\\n") {
		return "", fmt.Errorf("%q would mean something else to each shell", text)
	}
	return "'" + strings.ReplaceAll(text, "'", `'"'"'`) + "'", nil
}
