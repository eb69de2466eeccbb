package config

import (
	"reflect"
	"strings"
)

// environ lets variables override the file. An empty variable counts as one that is
// not set, since a shell or a container cannot always unset one; only for a list it
// is the empty list, which has no other spelling. A list is separated by commas.
func (l *loader) environ(environ []string) {
	variables := make(map[string]string, len(environ))
	for _, pair := range environ {
		name, value, _ := strings.Cut(pair, "=")
		variables[name] = value
	}
	l.root.leaves(func(n *node) {
		text, set := variables[n.env]
		list := n.goValue.Kind() == reflect.Slice
		if n.env == "" || !set || text == "" && !list {
			return
		}
		from := Origin{Variable: n.env}
		if list {
			items := []string{}
			for item := range strings.SplitSeq(text, ",") {
				if item = strings.TrimSpace(item); item != "" {
					items = append(items, item)
				}
			}
			n.goValue.Set(reflect.ValueOf(items))
		} else if err := setText(n.goValue, text, n.secret); err != nil {
			l.fail(n, from, "%v", err)
			return
		}
		n.origin = from
	})
}
