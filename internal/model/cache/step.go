package cachemodel

import (
	"fmt"
	"strings"
)

// step says what happened. Its text is made only for paths that are shown.
type step struct {
	format string
	args   [5]uint8
}

func say(format string, args ...uint8) step {
	st := step{format: format}
	copy(st.args[:], args)
	return st
}

func (st step) String() string {
	args := make([]any, strings.Count(st.format, "%d"))
	for i := range args {
		args[i] = st.args[i]
	}
	return fmt.Sprintf(st.format, args...)
}

// emit is given each step that is possible in a state: what happened, the state after
// it, and what is wrong with the answer that it gives, if anything.
type emit func(did step, after State, bad string)

// idx is the number of a session or a process in a step's text.
func idx(i int) uint8 { return uint8(i) }

// next emits every step that is possible.
func (m *machine) next(s *State, emit emit) {
	m.databaseSteps(s, emit)
	m.redisSteps(s, emit)
	m.processSteps(s, emit)
	for i := range s.sessions {
		m.sessionStep(s, i, emit)
	}
	m.relayStep(*s, emit)
}
