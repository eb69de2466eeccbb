package manifests

import (
	"bytes"
	"embed"
	"encoding/json"
	"fmt"
	"strings"
	"text/template"
)

// File is one that was made.
type File struct {
	Name    string
	Content []byte
}

//go:embed templates/*.yaml
var templateFiles embed.FS

// templates have square brackets, since rules have braces of their own.
var templates = parseTemplates()

func parseTemplates() *template.Template {
	t := template.New("").Delims("[[", "]]")
	t.Funcs(template.FuncMap{
		"quote":   quote,
		"squote":  squote,
		"indent":  indent,
		"trigger": newTrigger,
		"include": func(name string, data any) (string, error) {
			var out bytes.Buffer
			err := t.ExecuteTemplate(&out, name, data)
			return out.String(), err
		},
	})
	return template.Must(t.ParseFS(templateFiles, "templates/*.yaml"))
}

// rendered panics when a template is wrong: what it is filled with has been validated.
func rendered(kind, name string, data any) File {
	var out bytes.Buffer
	fmt.Fprintf(&out, "# Made by loadline manifests %s from section deploy of loadline.yaml: change it there, and make it again.\n", kind)
	if err := templates.ExecuteTemplate(&out, name, data); err != nil {
		panic(err)
	}
	return File{Name: name, Content: out.Bytes()}
}

// quote writes a text as JSON, and so YAML, has it.
func quote(text string) string {
	var out strings.Builder
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	_ = encoder.Encode(text) // of a string it cannot fail
	return strings.TrimSuffix(out.String(), "\n")
}

// squote is for texts with quotes in them, which stay readable.
func squote(text string) string { return "'" + strings.ReplaceAll(text, "'", "''") + "'" }

func indent(spaces int, text string) string {
	pad := strings.Repeat(" ", spaces)
	return pad + strings.ReplaceAll(text, "\n", "\n"+pad)
}

// trigger is one of KEDA's that asks Prometheus.
type trigger struct{ Server, Query, Threshold string }

// newTrigger asks for a recorded series of this job; more is a label and its value.
func newTrigger(d deployed, series, threshold string, more ...string) trigger {
	selector := fmt.Sprintf("job=%q", d.Name)
	if len(more) == 2 {
		selector += fmt.Sprintf(",%s=%q", more[0], more[1])
	}
	return trigger{d.Prometheus, fmt.Sprintf("max(%s{%s})", series, selector), threshold}
}
