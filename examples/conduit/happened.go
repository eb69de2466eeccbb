package conduit

// What has happened that others want to know: followers, authors, projections. The
// specification's answers do not wait for it.
type (
	// ArticlePublished: its author's followers are told, and its tags counted.
	ArticlePublished struct {
		ArticleID int64    `json:"articleId"`
		AuthorID  int64    `json:"authorId"`
		Tags      []string `json:"tags"`
	}
	// CommentWritten: the article's author is told.
	CommentWritten struct {
		CommentID int64 `json:"commentId"`
		ArticleID int64 `json:"articleId"`
	}
	// CommentDeleted: who looks at the article sees it no longer.
	CommentDeleted struct {
		CommentID int64 `json:"commentId"`
		ArticleID int64 `json:"articleId"`
	}
	// ArticleFavorited, for the first time or again after it was taken back: its author
	// is told.
	ArticleFavorited struct {
		ArticleID int64 `json:"articleId"`
		UserID    int64 `json:"userId"`
	}
	// Notified: these users have a notification each that they had not. It is the event of one that has others, recorded where
	// those are written, so that nobody is told of what is not there yet.
	Notified struct {
		Kind    NotificationKind `json:"kind"`
		UserIDs []int64          `json:"userIds"`
	}
	// ArticleViewed is counted.
	ArticleViewed struct {
		ArticleID int64 `json:"articleId"`
	}
)
