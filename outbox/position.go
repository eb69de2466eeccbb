package outbox

import "github.com/loadlinehq/loadline/causal"

const (
	walPage     = 8192
	walSegment  = 16 << 20 // the least; larger ones are multiples of it
	shortHeader = 24
	longHeader  = 40 // of a segment's first page
)

// position reads an insert position, which is past every commit that can be seen. A record
// that ends with its page has the next one's header after it, which no replica replays
// before there is another record; so the header is taken off. No record can end within a
// header, so this is never too low. (Package db has the same.)
func position(text string) (causal.LSN, error) {
	lsn, err := causal.ParseLSN(text)
	switch {
	case lsn%walSegment == longHeader:
		return lsn - longHeader, err
	case lsn%walPage == shortHeader:
		return lsn - shortHeader, err
	}
	return lsn, err
}
