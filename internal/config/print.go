package config

import (
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"reflect"
	"regexp"
	"strings"
	"text/tabwriter"
	"time"
)

// Field is one value of a program's configuration.
type Field struct {
	Key    string // with a dot between levels
	Env    string // the variable that sets it; empty for none
	Value  any    // as the struct has it, a secret, too
	Origin Origin

	node *node
}

// Text returns the value as the file would have it, without secrets.
func (f Field) Text() string { return f.node.yaml() }

// Fields returns all values in the order of the struct.
func (v *Values) Fields() iter.Seq[Field] {
	return func(yield func(Field) bool) {
		var all []Field
		v.root.leaves(func(n *node) { all = append(all, n.field()) })
		for _, f := range all {
			if !yield(f) {
				return
			}
		}
	}
}

// Lookup returns the value of a key.
func (v *Values) Lookup(key string) (Field, bool) {
	if n := v.root.find(key); n != nil && !n.group {
		return n.field(), true
	}
	return Field{}, false
}

func (n *node) field() Field {
	return Field{Key: n.key, Env: n.env, Value: n.goValue.Interface(), Origin: n.origin, node: n}
}

// WriteYAML writes all values as a file that could be read again, each with its
// origin in a comment. Secrets are redacted.
func (v *Values) WriteYAML(out io.Writer) error {
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	v.root.writeYAML(table, "")
	return table.Flush()
}

func (n *node) writeYAML(out io.Writer, indent string) {
	for _, child := range n.children {
		if child.group {
			fmt.Fprintf(out, "%s%s:\n", indent, child.name)
			child.writeYAML(out, indent+"  ")
			continue
		}
		fmt.Fprintf(out, "%s%s: %s\t# %s\n", indent, child.name, child.yaml(), child.origin)
	}
}

// WriteJSON writes {"values": {…}, "origins": {"database.max": "default", …}}.
// Secrets are redacted; durations are texts, as in the file.
func (v *Values) WriteJSON(out io.Writer) error {
	origins := make(map[string]string)
	v.root.leaves(func(n *node) { origins[n.key] = n.origin.String() })
	encoder := json.NewEncoder(out)
	encoder.SetIndent("", "  ")
	encoder.SetEscapeHTML(false)
	return encoder.Encode(struct {
		File    string            `json:"file,omitempty"`
		Values  any               `json:"values"`
		Origins map[string]string `json:"origins"`
	}{v.file, v.root.shown(), origins})
}

// shown returns the value, or the values of a group, as JSON has them.
func (n *node) shown() any {
	if n.group {
		values := make(map[string]any, len(n.children))
		for _, child := range n.children {
			values[child.name] = child.shown()
		}
		return values
	}
	if n.secret && !n.goValue.IsZero() {
		return redacted
	}
	switch v := n.goValue.Interface().(type) {
	case time.Duration:
		return v.String()
	case []string:
		list := make([]string, len(v))
		for i, item := range v {
			list[i] = Redact(item)
		}
		return list
	}
	if n.goValue.Kind() == reflect.String {
		return Redact(n.goValue.String())
	}
	return n.goValue.Interface()
}

// yaml returns the value as the file would have it.
func (n *node) yaml() string {
	switch v := n.shown().(type) {
	case string:
		if isDuration(n.goValue.Type()) {
			return v
		}
		return yamlText(v)
	case []string:
		items := make([]string, len(v))
		for i, item := range v {
			items[i] = yamlText(item)
		}
		return "[" + strings.Join(items, ", ") + "]"
	default:
		return fmt.Sprint(v)
	}
}

// bare matches texts that are the same without quotes, to people as well.
var bare = regexp.MustCompile(`^\.?[A-Za-z/][\w/.-]{0,60}$`)

// yamlText quotes a text where it must be; YAML understands what JSON does.
func yamlText(s string) string {
	switch strings.ToLower(s) {
	case "true", "false", "null", "yes", "no", "on", "off", "y", "n", ".inf", ".nan":
	default:
		if bare.MatchString(s) {
			return s
		}
	}
	var quoted strings.Builder
	encoder := json.NewEncoder(&quoted)
	encoder.SetEscapeHTML(false)
	_ = encoder.Encode(s) // a string always encodes
	return strings.TrimSuffix(quoted.String(), "\n")
}
