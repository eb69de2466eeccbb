package mesh_test

import (
	"testing"

	"github.com/loadlinehq/loadline/events/eventstest"
	"github.com/loadlinehq/loadline/examples/conduit"
	"github.com/loadlinehq/loadline/examples/conduit/mesh"
)

// What has been published must be understood by who reads it later.
func TestGolden(t *testing.T) {
	t.Parallel()
	eventstest.Golden(t, mesh.ArticlePublished, conduit.ArticlePublished{ArticleID: 1, AuthorID: 2, Tags: []string{"dragons"}})
	eventstest.Golden(t, mesh.CommentWritten, conduit.CommentWritten{CommentID: 1, ArticleID: 2})
	eventstest.Golden(t, mesh.CommentDeleted, conduit.CommentDeleted{CommentID: 1, ArticleID: 2})
	eventstest.Golden(t, mesh.Notified, conduit.Notified{Kind: conduit.OfComment, UserIDs: []int64{1, 2}})
	eventstest.Golden(t, mesh.ArticleFavorited, conduit.ArticleFavorited{ArticleID: 1, UserID: 2})
	eventstest.Golden(t, mesh.ArticleViewed, conduit.ArticleViewed{ArticleID: 1})
}
