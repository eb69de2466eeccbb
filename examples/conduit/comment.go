package conduit

import "time"

// MaxComments is how many comments of an article are shown, the newest ones:
// the contract has no pages for them.
const MaxComments = 500

// Comment is what everyone sees of a comment.
type Comment struct {
	ID        int64
	Body      string
	CreatedAt time.Time
	UpdatedAt time.Time
	Author    Profile
}

// CheckComment returns an Invalid when body cannot be accepted as a comment.
func CheckComment(body string) error {
	v := Invalid{}
	v.required("body", body, MaxComment)
	return v.err()
}
