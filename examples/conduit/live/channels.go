package live

import (
	"context"
	"strconv"

	"github.com/loadlinehq/loadline/realtime"
)

// Namespaces.
const (
	ofArticles = "article"
	ofUsers    = "user"
)

// ArticleChannel is where is told what happens to an article.
func ArticleChannel(id int64) string { return article(id).String() }

// UserChannel is where a user, and nobody else, is told what is for him.
func UserChannel(id int64) string { return user(id).String() }

func article(id int64) realtime.Channel {
	return realtime.Channel{Namespace: ofArticles, Name: strconv.FormatInt(id, 10)}
}

func user(id int64) realtime.Channel {
	return realtime.Channel{Namespace: ofUsers, Name: strconv.FormatInt(id, 10)}
}

// existing lets anybody listen to what may be an article: names that are none would each leave a key in Redis.
func existing(_ context.Context, _ realtime.Identity, c realtime.Channel) error {
	if id, err := strconv.ParseInt(c.Name, 10, 64); err != nil || id < 1 || article(id) != c {
		return realtime.ErrForbidden
	}
	return nil
}
