package causal

// maxPresented bounds the tokens of one message that are looked at.
const maxPresented = 4

// presented is what the tokens of one message say.
type presented struct {
	token Token // all that are by one of the keys, merged
	some  bool  // there is one of these
	one   bool  // all of these are the same
	bad   bool  // there are some that are by none of the keys, or too many
}

func (k Keys) present(lines []string) (p presented) {
	p.bad = len(lines) > maxPresented
	for _, signed := range lines[:min(len(lines), maxPresented)] {
		t, err := k.Verify(signed)
		switch {
		case err != nil:
			p.bad = true
		case signed == "":
		case !p.some:
			p.token, p.some, p.one = t, true, true
		default:
			p.one = p.one && p.token.Equal(t)
			p.token = p.token.Merge(t)
		}
	}
	return p
}
