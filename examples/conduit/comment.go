package conduit

import "time"

// The contract has no pages for comments, so only the newest are shown: at most
// MaxComments, and of these no more than begin within MaxCommentsBytes.
const (
	MaxComments      = 500
	MaxCommentsBytes = 1 << 20
)

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
