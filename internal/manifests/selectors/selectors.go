// Package selectors finds which series, with which labels, are named by the expressions of
// rules and dashboards, so that tests can ask whether somebody emits them: an alert on a
// series that nobody has is silent for ever. It knows as much of PromQL as that takes, and
// does not check its grammar, which promtool does.
package selectors

import (
	"encoding/json"
	"regexp"
	"slices"
	"strings"
)

// Series is a name, with the labels that are asked for.
type Series struct {
	Name   string
	Labels []string
}

var (
	text   = regexp.MustCompile(`"(?:[^"\\]|\\.)*"`)
	record = regexp.MustCompile(`(?m)^ *- record: (\S+)$`)
	// grouping names labels, of all that it stands beside.
	grouping = regexp.MustCompile(`\b(?:by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)`)
	duration = regexp.MustCompile(`\[[^\]]*\]|\boffset\s+\w+`)
	named    = regexp.MustCompile(`([a-zA-Z_:][a-zA-Z0-9_:]*)\s*(\{[^}]*\}|\()?`)
	label    = regexp.MustCompile(`([a-zA-Z_][a-zA-Z0-9_]*)\s*(?:=~|!~|!=|=)`)
)

// words of PromQL that are no series where no bracket follows.
var words = []string{"and", "or", "unless", "bool", "offset", "inf", "nan"}

// Of returns those that an expression names, each as often as it does.
func Of(expr string) []Series {
	expr = text.ReplaceAllString(expr, `""`)
	expr = grouping.ReplaceAllString(expr, " ")
	expr = duration.ReplaceAllString(expr, "")
	var all []Series
	for _, found := range named.FindAllStringSubmatchIndex(expr, -1) {
		name := expr[found[2]:found[3]]
		if found[0] > 0 && (expr[found[0]-1] >= '0' && expr[found[0]-1] <= '9' || expr[found[0]-1] == '.') {
			continue // the exponent of a number
		}
		behind := ""
		if found[4] >= 0 {
			behind = expr[found[4]:found[5]]
		}
		if behind == "(" || slices.Contains(words, strings.ToLower(name)) || isAggregation(name) {
			continue
		}
		s := Series{Name: name}
		for _, l := range label.FindAllStringSubmatch(behind, -1) {
			s.Labels = append(s.Labels, l[1])
		}
		all = append(all, s)
	}
	return all
}

// isAggregation: its bracket may come after the grouping, which is gone by then.
func isAggregation(name string) bool {
	return slices.Contains([]string{"sum", "min", "max", "avg", "count", "topk", "bottomk"}, name)
}

// Rules returns the expressions of a file of rules, and the names that it records.
func Rules(file []byte) (expressions, records []string) {
	content := string(file)
	for _, line := range record.FindAllStringSubmatch(content, -1) {
		records = append(records, line[1])
	}
	lines := strings.Split(content, "\n")
	for i := 0; i < len(lines); i++ {
		rest, found := strings.CutPrefix(strings.TrimSpace(lines[i]), "expr: ")
		if !found {
			continue
		}
		if rest == "|" {
			indent := len(lines[i]) - len(strings.TrimLeft(lines[i], " "))
			rest = ""
			for i+1 < len(lines) && len(lines[i+1])-len(strings.TrimLeft(lines[i+1], " ")) > indent {
				i++
				rest += strings.TrimSpace(lines[i]) + "\n"
			}
		}
		expressions = append(expressions, rest)
	}
	return expressions, records
}

// Dashboard returns the expressions of one of Grafana's.
func Dashboard(file []byte) ([]string, error) {
	var d struct {
		Annotations struct {
			List []struct{ Expr string }
		}
		Panels []struct {
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal(file, &d); err != nil {
		return nil, err
	}
	var all []string
	for _, a := range d.Annotations.List {
		all = append(all, a.Expr)
	}
	for _, p := range d.Panels {
		for _, t := range p.Targets {
			all = append(all, t.Expr)
		}
	}
	return all, nil
}
