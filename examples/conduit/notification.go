package conduit

import "time"

// NotificationKind is what a user is told of.
type NotificationKind string

const (
	OfArticle  NotificationKind = "article"  // by somebody he follows
	OfComment  NotificationKind = "comment"  // on an article of his
	OfFavorite NotificationKind = "favorite" // an article of his
)

// Notification tells a user that somebody has done something.
type Notification struct {
	ID           int64
	Kind         NotificationKind
	Actor        Profile
	ArticleSlug  string
	ArticleTitle string
	CommentID    int64 // 0: none
	CreatedAt    time.Time
	Read         bool
}

// MaxUnread is up to where unread notifications are counted.
const MaxUnread = 100

// Notifications are the newest of a user, and how many he has not read, of all.
type Notifications struct {
	List   []Notification
	Unread int
}

// PopularTag is a tag with the number of articles that were published with it lately.
type PopularTag struct {
	Name     string
	Articles int
}
