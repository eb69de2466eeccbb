package cachemodel

// databaseSteps are what happens in PostgreSQL by itself.
func (m *machine) databaseSteps(s *State, emit emit) {
	if s.left.Noise > 0 {
		t := *s
		t.left.Noise--
		t.wal++
		emit(say("other traffic: WAL end %d", t.wal), t, "")
	}
	if s.replay < s.wal {
		t := *s
		t.replay++
		emit(say("replica replays %d", t.replay), t, "")
	}
	if s.left.Restart > 0 && s.replay > 1 {
		t := *s
		t.left.Restart--
		t.replay = max(t.replay-2, 1)
		if !m.broken(RestartUnnoticed) {
			for i := range t.sessions {
				if x := &t.sessions[i]; x.pc == readRow && x.replica == 1 {
					x.pc = readNode // the connection broke
				}
			}
		}
		emit(say("replica restarts, replay back at %d", t.replay), t, "")
	}
}
