package httpapi

import (
	"context"
	"net/http"
	"net/url"
	"time"

	"github.com/loadlinehq/loadline/examples/conduit"
)

// What follows is beside the RealWorld specification: contract/additions.yml.

const (
	defaultPopularDays = 7
	maxPopularDays     = 365
)

type notificationView struct {
	ID        int64       `json:"id"`
	Kind      string      `json:"kind"`
	Actor     profileView `json:"actor"`
	Article   articleRef  `json:"article"`
	CommentID *int64      `json:"commentId"`
	CreatedAt time.Time   `json:"createdAt"`
	Read      bool        `json:"read"`
}

type articleRef struct {
	Slug  string `json:"slug"`
	Title string `json:"title"`
}

type notificationsView struct {
	Notifications []notificationView `json:"notifications"`
	UnreadCount   int                `json:"unreadCount"`
}

func (a *api) listNotifications(w http.ResponseWriter, r *http.Request, viewer int64) error {
	query, window, err := listQuery(r)
	if err != nil {
		return err
	}
	before, err := intParam(query, "before", 0)
	if err != nil {
		return err
	}
	found, err := a.store.Notifications(r.Context(), viewer, int64(before), window.Limit)
	if err != nil {
		return err
	}
	actors := make([]int64, len(found.List))
	for i, n := range found.List {
		actors[i] = n.Actor.ID
	}
	marks, err := a.marks(r.Context(), viewer, nil, actors)
	if err != nil {
		return err
	}
	view := notificationsView{Notifications: make([]notificationView, len(found.List)), UnreadCount: found.Unread}
	for i, n := range found.List {
		view.Notifications[i] = notificationView{
			ID: n.ID, Kind: string(n.Kind), Actor: viewProfile(n.Actor, marks.Follows(n.Actor.ID)),
			Article: articleRef{n.ArticleSlug, n.ArticleTitle}, CreatedAt: n.CreatedAt.UTC(), Read: n.Read,
		}
		if n.CommentID != 0 {
			view.Notifications[i].CommentID = &n.CommentID
		}
	}
	writeJSON(w, http.StatusOK, view)
	return nil
}

type readInput struct {
	UpTo int64 `json:"upTo"`
}

func (a *api) markRead(w http.ResponseWriter, r *http.Request, viewer int64) error {
	in, err := read[readInput](w, r, "notifications")
	if err != nil {
		return err
	}
	if in.UpTo < 1 {
		return invalid("upTo", "must be the id of a notification")
	}
	if err := a.store.MarkRead(r.Context(), viewer, in.UpTo); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (a *api) getViews(w http.ResponseWriter, r *http.Request) error {
	views, err := a.store.Views(r.Context(), pathText(r, "slug"))
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, map[string]int64{"views": views})
	return nil
}

type popularTagView struct {
	Name     string `json:"name"`
	Articles int    `json:"articles"`
}

func (a *api) popularTags(w http.ResponseWriter, r *http.Request) error {
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return invalid("query", "is invalid")
	}
	days, err := intParam(query, "days", defaultPopularDays)
	if err != nil {
		return err
	}
	limit, err := intParam(query, "limit", defaultLimit)
	if err != nil {
		return err
	}
	if !conduit.ValidText(query.Get("name")) {
		return invalid("name", "is invalid")
	}
	if days < 1 || days > maxPopularDays {
		return invalid("days", "must be between 1 and 365")
	}
	if limit < 1 || limit > conduit.MaxLimit {
		return invalid("limit", "must be between 1 and 100")
	}
	tags, err := a.store.PopularTags(r.Context(), time.Now().AddDate(0, 0, 1-days), query.Get("name"), limit)
	if err != nil {
		return err
	}
	view := make([]popularTagView, len(tags))
	for i, tag := range tags {
		view[i] = popularTagView(tag)
	}
	writeJSON(w, http.StatusOK, map[string][]popularTagView{"tags": view})
	return nil
}

// countView has the view counted. What goes wrong with that is not the reader's.
func (a *api) countView(ctx context.Context, r *http.Request, article int64) {
	if err := a.viewed(ctx, article); err != nil {
		a.logError(r, "a view is not counted", err)
	}
}
