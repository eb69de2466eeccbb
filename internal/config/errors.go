package config

import "fmt"

// Origin is where a value comes from. The zero value is the program's default.
type Origin struct {
	File         string // with Line and Column, which count from 1
	Line, Column int
	Variable     string // of the environment
}

// String returns "default", "file:line" or "environment NAME".
func (o Origin) String() string {
	switch {
	case o.Variable != "":
		return "environment " + o.Variable
	case o.File != "":
		return fmt.Sprintf("%s:%d", o.File, o.Line)
	default:
		return "default"
	}
}

func (o Origin) rank() int {
	switch {
	case o.File != "":
		return 0
	case o.Variable != "":
		return 1
	default:
		return 2
	}
}

// Error is one thing wrong with the configuration.
type Error struct {
	Origin Origin
	// Key is that of the value, with a dot between levels; empty when it is the file
	// as a whole.
	Key string
	// Env is the variable that could set the key; empty for none.
	Env     string
	Problem string
}

// Error names the place, the key and the problem:
//
//	loadline.yaml:3:8: database.max is 0: at least one connection is needed
//	environment CONDUIT_POOL_MAX: database.max is 0: at least one connection is needed
//	database.url (variable DATABASE_URL) is not set: it says where PostgreSQL is
func (e *Error) Error() string {
	where := ""
	switch {
	case e.Origin.File != "" && e.Origin.Line > 0:
		where = fmt.Sprintf("%s:%d:%d: ", e.Origin.File, e.Origin.Line, e.Origin.Column)
	case e.Origin.File != "":
		where = e.Origin.File + ": "
	case e.Origin.Variable != "":
		where = e.Origin.String() + ": "
	case e.Env != "":
		return fmt.Sprintf("%s (variable %s) %s", e.Key, e.Env, e.Problem)
	}
	if e.Key != "" {
		where += e.Key + " "
	}
	return where + e.Problem
}
