package config

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// DefaultFile is read when no file is named.
const DefaultFile = "loadline.yaml"

// Sources are what Load reads.
type Sources struct {
	// Path is the file's, and its name in errors. Empty means [DefaultFile] in the
	// working directory, where there is one; a file that is named must exist.
	Path string
	// Environ holds NAME=value, as [os.Environ] returns it.
	Environ []string
	// Others are the top-level sections of the file that other programs read.
	Others []string
}

// Values are a program's values, each with where it comes from.
type Values struct {
	root *node
	file string
}

// File is the path of the file that was read; empty when there was none.
func (v *Values) File() string { return v.file }

// Load fills the struct that into points to, which holds the defaults, from the
// file and then from the environment, and calls each Validate() error that the
// struct, or a struct in it, has; see package invalid for how that names a field.
//
// The error joins one [*Error] per problem. Values are returned with it, for print,
// unless the file cannot be read. Load panics when the struct has a field, or a tag,
// that it does not understand: that is a bug in the program.
func Load(into any, s Sources) (*Values, error) {
	l := &loader{root: schema(into), others: s.Others}
	values := &Values{root: l.root}
	path := cmp.Or(s.Path, DefaultFile)
	body, found, err := readFile(path, s.Path == "")
	if err != nil {
		return nil, err
	}
	if found {
		l.file, values.file = path, path
		l.decode(body)
	}
	l.environ(s.Environ)
	l.validate(l.root)
	return values, l.err()
}

// Describe returns the values that the struct has by itself: its defaults.
func Describe(of any) *Values { return &Values{root: schema(of)} }

// loader collects problems.
type loader struct {
	root   *node
	file   string
	others []string
	errs   []*Error
}

// fail notes a problem of the node, which is known by its origin.
func (l *loader) fail(n *node, origin Origin, format string, args ...any) {
	l.errs = append(l.errs, &Error{Key: n.key, Env: n.env, Origin: origin, Problem: fmt.Sprintf(format, args...)})
	n.failed = true
}

// err joins the problems, in the order of the file, then of the environment.
func (l *loader) err() error {
	slices.SortStableFunc(l.errs, func(a, b *Error) int {
		return cmp.Or(
			cmp.Compare(a.Origin.rank(), b.Origin.rank()),
			cmp.Compare(a.Origin.Line, b.Origin.Line),
			cmp.Compare(a.Origin.Column, b.Origin.Column),
			strings.Compare(a.Origin.Variable, b.Origin.Variable),
		)
	})
	errs := make([]error, len(l.errs))
	for i, e := range l.errs {
		e.Problem = l.root.conceal(e.Problem)
		errs[i] = e
	}
	return errors.Join(errs...)
}
