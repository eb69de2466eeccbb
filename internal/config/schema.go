package config

import (
	"fmt"
	"reflect"
	"strings"
	"time"
)

// node is a key that the file may have: a value, or a group of keys.
type node struct {
	key, name string // "database.max", "max"
	goValue   reflect.Value
	children  []*node // in the struct's order
	group     bool
	partial   bool // a group of which other programs read more

	// Of a value.
	env    string
	secret bool
	origin Origin

	// failed: it has been reported, and holds something else than was meant.
	failed bool
}

// schema describes the struct that into points to.
func schema(into any) *node {
	v := reflect.ValueOf(into)
	if v.Kind() != reflect.Pointer || v.Elem().Kind() != reflect.Struct {
		panic(fmt.Sprintf("config: %T is not a pointer to a struct", into))
	}
	root := &node{goValue: v.Elem(), group: true}
	root.addFields(make(map[string]string))
	return root
}

// addFields makes a child of each field with a yaml tag. taken maps variables to
// the keys that they set.
func (n *node) addFields(taken map[string]string) {
	for field, value := range n.goValue.Fields() {
		name := field.Tag.Get("yaml")
		if name == "" || name == "-" {
			continue
		}
		child := &node{name: name, key: join(n.key, name), goValue: value, env: field.Tag.Get("env"), secret: field.Tag.Get("secret") == "true"}
		switch {
		case !field.IsExported() || strings.ContainsAny(name, ",. "):
			panic(fmt.Sprintf("config: field %s of %s cannot be %q in a file", field.Name, n.goValue.Type(), name))
		case n.child(name) != nil:
			panic(fmt.Sprintf("config: %s has two fields for %q", n.goValue.Type(), name))
		case isScalar(field.Type) || field.Type == reflect.TypeFor[[]string]():
		case field.Type.Kind() == reflect.Struct && child.env == "" && !child.secret:
			child.group, child.partial = true, field.Tag.Get("partial") == "true"
			child.addFields(taken)
		default:
			panic(fmt.Sprintf("config: %s is of type %s, which a file cannot hold", child.key, field.Type))
		}
		if other := taken[child.env]; child.env != "" && other != "" {
			panic(fmt.Sprintf("config: %s sets both %s and %s", child.env, other, child.key))
		}
		taken[child.env] = child.key
		n.children = append(n.children, child)
	}
}

func isScalar(t reflect.Type) bool {
	switch t.Kind() {
	case reflect.Bool, reflect.String, reflect.Float64,
		reflect.Int, reflect.Int16, reflect.Int32, reflect.Int64,
		reflect.Uint, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return true
	}
	return false
}

func isDuration(t reflect.Type) bool { return t == reflect.TypeFor[time.Duration]() }

func (n *node) child(name string) *node {
	for _, child := range n.children {
		if child.name == name {
			return child
		}
	}
	return nil
}

// find returns the node of a key with dots, relative to n; nil when there is none.
func (n *node) find(key string) *node {
	for name := range strings.SplitSeq(key, ".") {
		if n = n.child(name); n == nil {
			return nil
		}
	}
	return n
}

// leaves calls do with each value below n.
func (n *node) leaves(do func(*node)) {
	if !n.group {
		do(n)
	}
	for _, child := range n.children {
		child.leaves(do)
	}
}

func join(parent, name string) string {
	if parent == "" {
		return name
	}
	return parent + "." + name
}
