package seed

import "strings"

// The words that generated texts, names and tags are made of. The nouns and
// adjectives are chosen so that any of them go together.
var (
	nouns = strings.Fields(`
		practice harbour garden signal river market archive bridge kitchen window
		library engine mountain letter village orchard station lantern compass
		workshop meadow journal forest island ladder museum needle ocean painter
		quarry railway shelter theatre umbrella valley wagon yard anchor basket
		candle desert evening factory gallery hammer inventor jacket kettle
		landscape mirror neighbour observer pocket question recipe shadow teacher
		utensil voyage weather zeppelin apricot bakery canal drawer echo ferry
		glacier hillside icicle juggler keyboard lighthouse marathon notebook`)
	adjectives = strings.Fields(`
		quiet early patient narrow bright hidden steady ancient careful distant
		eager faithful gentle hollow idle jolly keen lively modest neat open plain
		rapid simple tidy useful vivid warm young amber brave clever daring
		elegant frosty golden honest immense kindly lucky mellow noble orderly
		polite restless silent`)
	verbs = strings.Fields(`
		carries follows repairs answers crosses remembers measures explains
		borrows collects describes finds guards hears improves joins keeps lights
		moves needs opens paints reaches shapes teaches understands visits warms
		changes balances`)
	prepositions = strings.Fields(`above across behind beside beyond near past towards under within without`)
	determiners  = strings.Fields(`the a every this another the that one the each`)
)
