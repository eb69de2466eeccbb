package httpapi

import (
	"context"
	"log/slog"
	"net/http"
	"path"
	"time"

	"github.com/loadlinehq/loadline/causal"
	"github.com/loadlinehq/loadline/edge"
	"github.com/loadlinehq/loadline/examples/conduit"
	"github.com/loadlinehq/loadline/examples/conduit/auth"
)

// Store is what the API needs of the storage; package postgres implements it.
// Inputs are cleaned before they are passed on.
type Store interface {
	CreateUser(ctx context.Context, r conduit.Registration, passwordHash string) (conduit.User, error)
	UpdateUser(ctx context.Context, id int64, c conduit.UserChange, passwordHash string) (conduit.User, error)
	UserByID(ctx context.Context, id int64) (conduit.User, error)
	UserByEmail(ctx context.Context, email string) (conduit.User, error)

	Profile(ctx context.Context, username string) (conduit.Profile, error)
	Follow(ctx context.Context, viewer int64, username string) (conduit.Profile, error)
	Unfollow(ctx context.Context, viewer int64, username string) (conduit.Profile, error)

	Article(ctx context.Context, slug string) (conduit.Article, error)
	CreateArticle(ctx context.Context, author int64, d conduit.Draft) (conduit.Article, error)
	UpdateArticle(ctx context.Context, author int64, slug string, c conduit.ArticleChange) (conduit.Article, error)
	DeleteArticle(ctx context.Context, author int64, slug string) error
	Favorite(ctx context.Context, viewer int64, slug string) (conduit.Article, error)
	Unfavorite(ctx context.Context, viewer int64, slug string) (conduit.Article, error)

	ListArticles(ctx context.Context, f conduit.ArticleFilter, w conduit.Window) (conduit.ArticlePage, error)
	Feed(ctx context.Context, viewer int64, w conduit.Window) (conduit.ArticlePage, error)
	Tags(ctx context.Context) ([]string, error)

	Comments(ctx context.Context, slug string) ([]conduit.Comment, error)
	CreateComment(ctx context.Context, author int64, slug, body string) (conduit.Comment, error)
	DeleteComment(ctx context.Context, author int64, slug string, id int64) error

	// Marks returns what the viewer thinks of the articles and users.
	Marks(ctx context.Context, viewer int64, articles, users []int64) (conduit.Marks, error)

	Notifications(ctx context.Context, user, before int64, limit int) (conduit.Notifications, error)
	MarkRead(ctx context.Context, user, upTo int64) error
	Views(ctx context.Context, slug string) (int64, error)
	PopularTags(ctx context.Context, since time.Time, name string, limit int) ([]conduit.PopularTag, error)
}

// Config holds what the API is made of. All fields up to Viewed are required.
type Config struct {
	Store       Store
	Passwords   *auth.Hasher
	Tokens      *auth.Tokens
	Health      *Health
	Logger      *slog.Logger
	CORSOrigins []string // of browser front ends; "*" allows all
	// Viewed has a view of an article counted.
	Viewed func(ctx context.Context, article int64) error
	// Idempotency keeps the answers to POSTs with an Idempotency-Key. Without it a key means nothing.
	Idempotency edge.IdempotencyStore
	// TrustedProxies are networks whose word is taken for who has connected to them: see edge.ClientAddressConfig.
	TrustedProxies []string
	// Telemetry measures and traces requests. Default none.
	Telemetry edge.Middleware
	// Limits bound what may be asked. Default none.
	Limits *Limits
	// ArticleChannel and UserChannel name the channels of package live, which answers about an article, or about who asks, then say
	// in the header Realtime-Channel. Default: they do not.
	ArticleChannel, UserChannel func(id int64) string
	// Sessions give each request what its client has seen, so that a Store with
	// replicas does not show it the past. Their principal is Principal.
	Sessions *causal.HTTP
}

type api struct {
	store     Store
	passwords *auth.Hasher
	tokens    *auth.Tokens
	viewed    func(ctx context.Context, article int64) error
	log       *slog.Logger

	articleChannel, userChannel func(id int64) string
}

// New returns the handler of the whole server: the API and the health checks.
func New(c Config) (http.Handler, error) {
	a := &api{store: c.Store, passwords: c.Passwords, tokens: c.Tokens, viewed: c.Viewed, log: c.Logger, articleChannel: c.ArticleChannel, userChannel: c.UserChannel}

	mux := http.NewServeMux()
	for pattern, m := range map[string]methods{
		"/api/users":       {"POST": a.register},
		"/api/users/login": {"POST": a.login},
		"/api/user":        {"GET": a.required(a.getUser), "PUT": a.required(a.updateUser)},

		"/api/profiles/{username}":        {"GET": a.optional(a.getProfile)},
		"/api/profiles/{username}/follow": {"POST": a.required(a.follow), "DELETE": a.required(a.unfollow)},

		"/api/articles":      {"GET": a.optional(a.listArticles), "POST": a.required(a.createArticle)},
		"/api/articles/feed": {"GET": a.required(a.feed)},
		"/api/articles/{slug}": {
			"GET":    a.lenient(a.getArticle),
			"PUT":    a.required(a.updateArticle),
			"DELETE": a.required(a.deleteArticle),
		},
		"/api/articles/{slug}/favorite": {"POST": a.required(a.favorite), "DELETE": a.required(a.unfavorite)},
		"/api/articles/{slug}/comments": {
			"GET":  a.optional(a.listComments),
			"POST": a.required(a.createComment),
		},
		"/api/articles/{slug}/comments/{id}": {"DELETE": a.required(a.deleteComment)},

		"/api/tags": {"GET": a.listTags},

		"/api/notifications":         {"GET": a.required(a.listNotifications)},
		"/api/notifications/read":    {"PUT": a.required(a.markRead)},
		"/api/articles/{slug}/views": {"GET": a.getViews},
		"/api/tags/popular":          {"GET": a.popularTags},

		"/healthz": {"GET": c.Health.live},
		"/readyz":  {"GET": c.Health.ready},
		"/":        {},
	} {
		mux.Handle(pattern, a.handle(m))
	}
	chain, err := a.middleware(c, mux)
	if err != nil {
		return nil, err
	}
	return chain(cleanPath(mux, a.handle(nil))), nil
}

// cleanPath keeps ServeMux from answering an address such as //api/tags with a
// redirect, which the contract does not know: it names nothing.
func cleanPath(mux, notFound http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if p := r.URL.EscapedPath(); p != path.Clean(p) {
			notFound.ServeHTTP(w, r)
			return
		}
		mux.ServeHTTP(w, r)
	})
}
