package conduit

// What a write changes of what everyone sees, as a cache has to know it.
type (
	// ArticleChanged is an article before and after. Without an OldSlug it is new, without a
	// Slug it is gone. Tags that were left as they were may be missing in both.
	ArticleChanged struct {
		ID, AuthorID  int64
		OldSlug, Slug string
		OldTags, Tags []string
	}
	// FavoriteChanged: an article has one more or less.
	FavoriteChanged struct {
		ArticleID int64
		Slug      string
		UserID    int64 // whose it is
	}
	// CommentsChanged of an article.
	CommentsChanged struct {
		ArticleID int64
	}
	// UserChanged is a user before and after. Without an OldUsername he is new.
	UserChanged struct {
		ID                    int64
		OldUsername, Username string
	}
)
