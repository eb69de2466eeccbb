package httpapi

import (
	"net/http"

	"github.com/loadlinehq/loadline/examples/conduit"
)

func (a *api) getArticle(w http.ResponseWriter, r *http.Request, viewer int64) error {
	article, err := a.store.Article(r.Context(), pathText(r, "slug"))
	if err == nil {
		a.countView(r.Context(), r, article.ID)
	}
	return a.writeArticle(w, r, http.StatusOK, viewer, article, err)
}

type draftInput struct {
	Title       string  `json:"title"`
	Description string  `json:"description"`
	Body        string  `json:"body"`
	TagList     tagList `json:"tagList"`
}

func (a *api) createArticle(w http.ResponseWriter, r *http.Request, viewer int64) error {
	in, err := read[draftInput](w, r, "article")
	if err != nil {
		return err
	}
	tags, err := in.TagList.tags()
	if err != nil {
		return err
	}
	draft := conduit.Draft{Title: in.Title, Description: in.Description, Body: in.Body, TagList: tags}
	if err := draft.Clean(); err != nil {
		return err
	}
	article, err := a.store.CreateArticle(r.Context(), viewer, draft)
	return a.writeArticle(w, r, http.StatusCreated, viewer, article, err)
}

type articleChangeInput struct {
	Title       optional[string] `json:"title"`
	Description optional[string] `json:"description"`
	Body        optional[string] `json:"body"`
	TagList     tagList          `json:"tagList"`
}

func (a *api) updateArticle(w http.ResponseWriter, r *http.Request, viewer int64) error {
	in, err := read[articleChangeInput](w, r, "article")
	if err != nil {
		return err
	}
	tags, err := in.TagList.tags()
	if err != nil {
		return err
	}
	change := conduit.ArticleChange{
		Title:       in.Title.value,
		Description: in.Description.value,
		Body:        in.Body.value,
		TagList:     tags,
	}
	if err := change.Clean(); err != nil {
		return err
	}
	article, err := a.store.UpdateArticle(r.Context(), viewer, pathText(r, "slug"), change)
	return a.writeArticle(w, r, http.StatusOK, viewer, article, err)
}

func (a *api) deleteArticle(w http.ResponseWriter, r *http.Request, viewer int64) error {
	if err := a.store.DeleteArticle(r.Context(), viewer, pathText(r, "slug")); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (a *api) favorite(w http.ResponseWriter, r *http.Request, viewer int64) error {
	article, err := a.store.Favorite(r.Context(), viewer, pathText(r, "slug"))
	return a.writeArticle(w, r, http.StatusOK, viewer, article, err)
}

func (a *api) unfavorite(w http.ResponseWriter, r *http.Request, viewer int64) error {
	article, err := a.store.Unfavorite(r.Context(), viewer, pathText(r, "slug"))
	return a.writeArticle(w, r, http.StatusOK, viewer, article, err)
}

// writeArticle answers with an article that the store has returned, as the
// viewer sees it, or returns the store's error.
func (a *api) writeArticle(w http.ResponseWriter, r *http.Request, status int, viewer int64, article conduit.Article, err error) error {
	if err != nil {
		return err
	}
	marks, err := a.marks(r.Context(), viewer, []int64{article.ID}, []int64{article.Author.ID})
	if err != nil {
		return err
	}
	nameChannel(w, a.articleChannel, article.ID)
	writeJSON(w, status, viewArticle(article, marks))
	return nil
}
