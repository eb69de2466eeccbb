package overload

import (
	"net/http"
	"strings"
)

// Class is how important a request is.
type Class int

// Classes, the first to be shed first.
const (
	// Background is what nobody waits for, such as a browser's prefetch.
	Background Class = iota
	// Anonymous is a read of somebody who has sent no credentials.
	Anonymous
	// Reads of somebody who has.
	Reads
	// Writes are what has been thought about, and may be lost.
	Writes
	// Exempt is not limited: health, and what is open for long.
	Exempt
)

const classes = int(Exempt)

func (c Class) String() string {
	return [...]string{"background", "anonymous", "reads", "writes", "exempt"}[c]
}

// DefaultClass goes by the method, by whether there are an Authorization or a cookie, which nobody has looked at yet, and by
// Sec-Purpose. It exempts nothing: what is open for long is the application's to say.
func DefaultClass(r *http.Request) Class {
	switch {
	case strings.HasPrefix(r.Header.Get("Sec-Purpose"), "prefetch"):
		return Background
	case r.Method != http.MethodGet && r.Method != http.MethodHead && r.Method != http.MethodOptions:
		return Writes
	case len(r.Header["Authorization"]) == 0 && len(r.Header["Cookie"]) == 0:
		return Anonymous
	}
	return Reads
}
