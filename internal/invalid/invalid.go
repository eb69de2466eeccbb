// Package invalid is how a configuration's Validate says which of its fields is
// wrong, so that whoever has read the field from a file or from the environment
// can say where. It needs the standard library alone: a package that validates its
// Config does not come to depend on the format of a file.
//
//	func (c Config) Validate() error {
//		return errors.Join(
//			invalid.If(c.MaxConns < 1, "max", "is %d: at least one connection is needed", c.MaxConns),
//			invalid.If(c.URL == "", "url", "is not set: it says where PostgreSQL is"),
//		)
//	}
//
// It promises nothing about secrets: a message is shown, and must not quote one.
package invalid

import (
	"errors"
	"fmt"
)

// Error is a field that has a value which it must not have.
type Error struct {
	// Key is the field's name in a file, with a dot between levels.
	Key string
	// Problem goes on after the key: "is 0: at least one connection is needed".
	Problem string
}

// Error implements error.
func (e *Error) Error() string { return e.Key + " " + e.Problem }

// If returns an [Error] where the field is wrong, and nil otherwise, as
// [errors.Join] likes it.
func If(wrong bool, key, format string, args ...any) error {
	if !wrong {
		return nil
	}
	return &Error{Key: key, Problem: fmt.Sprintf(format, args...)}
}

// Under puts a section in front of the keys of an error, and of those that it joins, for
// who validates a section from outside of it.
func Under(section string, err error) error {
	if many, ok := err.(interface{ Unwrap() []error }); ok {
		var all []error
		for _, err := range many.Unwrap() {
			all = append(all, Under(section, err))
		}
		return errors.Join(all...)
	}
	if field, ok := errors.AsType[*Error](err); ok {
		return &Error{Key: section + "." + field.Key, Problem: field.Problem}
	}
	return err
}
