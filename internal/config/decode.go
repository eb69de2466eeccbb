package config

import (
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/token"
)

// freePrefix begins the names of sections that no program of ours reads.
const freePrefix = "x-"

// decode reads the file's content.
func (l *loader) decode(body []byte) {
	if root := l.parse(body); root != nil {
		l.group(l.root, root, Origin{File: l.file, Line: 1, Column: 1})
	}
}

// group reads a mapping. at is where its key is.
func (l *loader) group(n *node, y ast.Node, at Origin) {
	n.origin = at
	mapping, ok := y.(*ast.MappingNode)
	if !ok {
		if _, empty := y.(*ast.NullNode); !empty && !refused(y) { // all its keys are commented out
			l.fail(n, l.position(y), "holds %s where keys are expected, such as %s", describe(y), example(n))
		}
		return
	}
	for _, pair := range mapping.Values {
		if _, merge := pair.Key.(*ast.MergeKeyNode); merge {
			continue // was refused
		}
		at, name := l.position(pair.Key), keyName(pair.Key)
		child := n.child(name)
		switch {
		case child == nil && n == l.root && (slices.Contains(l.others, name) || strings.HasPrefix(name, freePrefix)):
		case child == nil && n.partial: // another program checks it
		case child == nil:
			l.unknown(n, pair.Key, at)
		case child.group:
			l.group(child, pair.Value, at)
		default:
			l.value(child, pair.Value, at)
		}
	}
}

func (l *loader) unknown(n *node, key ast.MapKeyNode, at Origin) {
	name := keyName(key)
	switch key.(type) {
	case *ast.StringNode:
	case *ast.MappingKeyNode:
		return // was refused
	default:
		name = key.GetToken().Value // a number, say
	}
	var names []string
	for _, child := range n.children {
		names = append(names, child.name)
	}
	if n == l.root {
		for _, other := range l.others {
			if !slices.Contains(names, other) {
				names = append(names, other)
			}
		}
	}
	hint := "there are " + strings.Join(names, ", ")
	if near := nearest(name, names); near != "" {
		hint = fmt.Sprintf("did you mean %s?", near)
	}
	if !bare.MatchString(name) {
		name = shown(name, false)
	}
	l.errs = append(l.errs, &Error{Key: join(n.key, name), Origin: at, Problem: "is not a key; " + hint})
}

// value reads a value. at is where its key is.
func (l *loader) value(n *node, y ast.Node, at Origin) {
	if _, null := y.(*ast.NullNode); null {
		l.fail(n, at, "has no value; without the key it has its default")
		return
	}
	if refused(y) {
		n.failed = true
		return
	}
	at = l.position(y)
	var err error
	if n.goValue.Kind() == reflect.Slice {
		err = l.list(n, y)
	} else {
		err = setNode(n.goValue, y, n.secret)
	}
	if err != nil {
		l.fail(n, at, "%v", err)
		return
	}
	n.origin = at
}

func (l *loader) list(n *node, y ast.Node) error {
	sequence, ok := y.(*ast.SequenceNode)
	if !ok {
		return fmt.Errorf("is %s where a list is expected, such as [one, two]", describe(y))
	}
	list := reflect.MakeSlice(n.goValue.Type(), len(sequence.Values), len(sequence.Values))
	for i, item := range sequence.Values {
		if refused(item) {
			n.failed = true
			continue
		}
		if err := setNode(list.Index(i), item, n.secret); err != nil {
			l.fail(n, l.position(item), "%v", err)
		}
	}
	if !n.failed {
		n.goValue.Set(list)
	}
	return nil
}

// setNode sets v to a scalar of the file.
func setNode(v reflect.Value, y ast.Node, secret bool) error {
	fits := false
	switch y.(type) {
	case *ast.StringNode, *ast.LiteralNode:
		fits = v.Kind() == reflect.String || isDuration(v.Type())
	case *ast.IntegerNode:
		fits = v.CanInt() || v.CanUint() || v.CanFloat() // of a duration setText knows more to say
	case *ast.FloatNode:
		fits = v.CanFloat() || isDuration(v.Type())
	case *ast.BoolNode:
		fits = v.Kind() == reflect.Bool
	}
	if !fits {
		hint := ""
		if v.Kind() == reflect.String && !isCollection(y) {
			hint = "; put it in quotes"
		}
		return fmt.Errorf("is %s where %s is expected%s", describe(y), expected(v.Type()), hint)
	}
	return setText(v, text(y), secret)
}

// text returns what a scalar says.
func text(y ast.Node) string {
	switch y := y.(type) {
	case *ast.StringNode:
		return y.Value
	case *ast.LiteralNode:
		return y.Value.Value
	default:
		return y.GetToken().Value
	}
}

// refused reports whether checkTree has complained about the node.
func refused(y ast.Node) bool {
	switch y.(type) {
	case *ast.AnchorNode, *ast.AliasNode, *ast.TagNode:
		return true
	}
	return false
}

func isCollection(y ast.Node) bool {
	switch y.(type) {
	case *ast.MappingNode, *ast.SequenceNode:
		return true
	}
	return false
}

// describe says what a node is, not what is in it: that may be a secret.
func describe(y ast.Node) string {
	switch y.(type) {
	case *ast.MappingNode:
		return "a group of keys"
	case *ast.SequenceNode:
		return "a list"
	case *ast.StringNode, *ast.LiteralNode:
		return "a text"
	case *ast.IntegerNode, *ast.FloatNode, *ast.InfinityNode, *ast.NanNode:
		return "a number"
	case *ast.BoolNode:
		return "true or false"
	case *ast.NullNode:
		return "nothing"
	default:
		return "something else"
	}
}

// example is a key of the group.
func example(n *node) string {
	if len(n.children) == 0 {
		return "none"
	}
	return n.children[0].name
}

// position returns where a node begins.
func (l *loader) position(y ast.Node) Origin {
	if mapping, ok := y.(*ast.MappingNode); ok && !mapping.IsFlowStyle && len(mapping.Values) > 0 {
		y = mapping.Values[0].Key // its token is the first colon
	}
	return l.at(y.GetToken().Position)
}

func (l *loader) at(p *token.Position) Origin {
	return Origin{File: l.file, Line: p.Line, Column: p.Column}
}
