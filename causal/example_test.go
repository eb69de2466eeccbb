package causal_test

import (
	"context"
	"fmt"

	"github.com/loadlinehq/loadline/causal"
)

func Example() {
	keys, err := causal.NewKeys([]byte("0123456789abcdef0123456789abcdef"))
	if err != nil {
		fmt.Println(err)
		return
	}

	// A request begins with what its client brings, and notes what it writes.
	session := causal.NewSession(causal.Token{})
	ctx := causal.WithSession(context.Background(), session)
	causal.FromContext(ctx).Add(causal.Mark{System: 7, Timeline: 1, LSN: 0x1A2B3C}) // db does this

	// The client keeps the token, and comes back with it.
	signed := keys.Sign(session.Token())
	token, err := keys.Verify(signed)
	if err != nil {
		fmt.Println(err)
		return
	}
	mark, ok := token.Mark(7)
	fmt.Println(mark.LSN, ok, len(signed) < causal.MaxSize)
	// Output: 0/1A2B3C true true
}
