package config

import (
	"errors"

	"github.com/loadlinehq/loadline/internal/invalid"
)

// validate asks the structs whether they are content, the inner ones first.
func (l *loader) validate(n *node) {
	for _, child := range n.children {
		if child.group {
			l.validate(child)
		}
	}
	if v, ok := n.goValue.Addr().Interface().(interface{ Validate() error }); ok {
		l.judge(n, v.Validate())
	}
}

// judge finds the place of each error in what Validate has returned.
func (l *loader) judge(n *node, err error) {
	if err == nil {
		return
	}
	if many, ok := err.(interface{ Unwrap() []error }); ok {
		for _, err := range many.Unwrap() {
			l.judge(n, err)
		}
		return
	}
	field, ok := errors.AsType[*invalid.Error](err)
	if !ok {
		l.fail(n, n.origin, "%v", err)
		return
	}
	if at := n.find(field.Key); at == nil {
		l.fail(n, n.origin, "%s: %s", field.Key, field.Problem)
	} else if !at.failed { // otherwise it was not the value that was meant
		l.fail(at, at.origin, "%s", field.Problem)
	}
}
