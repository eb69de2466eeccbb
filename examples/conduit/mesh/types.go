package mesh

import (
	"strconv"

	"github.com/loadlinehq/loadline/events"
	"github.com/loadlinehq/loadline/examples/conduit"
)

// Source is who publishes, as CloudEvents has it.
const Source = "/conduit"

// The types. What concerns an article comes in order, and an author's publications do.
var (
	ArticlePublished = events.Define("article.published", events.V1,
		events.KeyedBy(func(p conduit.ArticlePublished) string { return "author:" + strconv.FormatInt(p.AuthorID, 10) }))
	CommentWritten = events.Define("comment.written", events.V1,
		events.KeyedBy(func(c conduit.CommentWritten) string { return article(c.ArticleID) }))
	CommentDeleted = events.Define("comment.deleted", events.V1,
		events.KeyedBy(func(c conduit.CommentDeleted) string { return article(c.ArticleID) }))
	ArticleFavorited = events.Define("article.favorited", events.V1,
		events.KeyedBy(func(f conduit.ArticleFavorited) string { return article(f.ArticleID) }))
	Notified      = events.Define[conduit.Notified]("user.notified", events.V1)
	ArticleViewed = events.Define[conduit.ArticleViewed]("article.viewed", events.V1)
)

func article(id int64) string { return "article:" + strconv.FormatInt(id, 10) }
