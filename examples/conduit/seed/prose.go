package seed

import (
	"math"
	"math/rand/v2"
	"strings"
)

// prose writes generated texts and makes the random choices behind them. It
// holds one text at a time.
type prose struct {
	*rand.Rand
	pcg *rand.PCG
	buf []byte
}

// A stream is what the choices for one row are made from, together with the
// row's index. Rows thus do not depend on each other, nor streams.
type stream uint64

const (
	userStream stream = iota + 1
	articleStream
	commentStream
	favoriteStream
	followStream
)

func newProse() *prose {
	pcg := rand.NewPCG(0, 0)
	return &prose{Rand: rand.New(pcg), pcg: pcg}
}

// turnTo starts the choices for a row.
func (p *prose) turnTo(s stream, index int) { p.pcg.Seed(uint64(s), uint64(index)) }

func (p *prose) one(words []string) string { return words[p.IntN(len(words))] }

// lengths of a kind of text in characters: lognormal, cut off at both ends.
type lengths struct {
	median   float64
	sigma    float64
	min, max int
}

// Measured on the real site; sigma is ln(p90/median)/1.28.
var (
	titleLength   = lengths{median: 49, sigma: 0.43, min: 15, max: 150}
	bodyLength    = lengths{median: 853, sigma: 0.96, min: 30, max: 13_652}
	answerLength  = lengths{median: 931, sigma: 0.92, min: 30, max: 15_294}
	commentLength = lengths{median: 212, sigma: 0.69, min: 15, max: 600}
)

func (l lengths) draw(r *rand.Rand) int {
	return min(max(int(l.median*math.Exp(l.sigma*r.NormFloat64())), l.min), l.max)
}

// The forms of a sentence: d is a determiner, a an adjective, n a noun, v a
// verb, p a preposition.
var forms = []string{"danvdan", "dnvdanpdn", "danpdnvdn", "dnvdn", "pdandnvdan", "danvdnpdan"}

// sentence appends a sentence without its full stop.
func (p *prose) sentence() {
	start := len(p.buf)
	for i, kind := range p.one(forms) {
		if i > 0 {
			p.buf = append(p.buf, ' ')
		}
		var words []string
		switch kind {
		case 'd':
			words = determiners
		case 'a':
			words = adjectives
		case 'n':
			words = nouns
		case 'v':
			words = verbs
		case 'p':
			words = prepositions
		}
		p.buf = append(p.buf, p.one(words)...)
	}
	p.buf[start] -= 'a' - 'A'
}

// text returns paragraphs of about as many characters.
func (p *prose) text(length int) string {
	p.buf = p.buf[:0]
	// A sentence has about 45 characters: stopping half a one short, the mean
	// comes out right.
	for len(p.buf) == 0 || len(p.buf)+22 < length {
		switch {
		case len(p.buf) == 0:
		case p.IntN(5) == 0:
			p.buf = append(p.buf, "\n\n"...)
		default:
			p.buf = append(p.buf, ' ')
		}
		p.sentence()
		p.buf = append(p.buf, '.')
	}
	return string(p.buf)
}

// title returns a line of about as many characters, a sentence at least.
func (p *prose) title(length int) string {
	p.buf = p.buf[:0]
	p.sentence()
	for len(p.buf)+35 < length {
		p.buf = append(p.buf, ", "...)
		start := len(p.buf)
		p.sentence()
		p.buf[start] += 'a' - 'A'
	}
	return string(p.buf)
}

// name returns a display name. There are few thousand, and the id that the
// username ends with makes up for it.
func (p *prose) name() string {
	first, last := p.one(adjectives), p.one(nouns)
	return strings.ToUpper(first[:1]) + first[1:] + " " + strings.ToUpper(last[:1]) + last[1:]
}
