package httpapi

import (
	"errors"
	"net/http"
	"slices"
	"strconv"

	"github.com/loadlinehq/loadline/examples/conduit"
)

func (a *api) listComments(w http.ResponseWriter, r *http.Request, viewer int64) error {
	comments, err := a.store.Comments(r.Context(), pathText(r, "slug"))
	if err != nil {
		return err
	}
	authors := make([]int64, len(comments))
	for i, comment := range comments {
		authors[i] = comment.Author.ID
	}
	slices.Sort(authors)
	marks, err := a.marks(r.Context(), viewer, nil, slices.Compact(authors))
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, viewComments(comments, marks))
	return nil
}

type commentInput struct {
	Body string `json:"body"`
}

func (a *api) createComment(w http.ResponseWriter, r *http.Request, viewer int64) error {
	in, err := read[commentInput](w, r, "comment")
	if err != nil {
		return err
	}
	if err := conduit.CheckComment(in.Body); err != nil {
		return err
	}
	comment, err := a.store.CreateComment(r.Context(), viewer, pathText(r, "slug"), in.Body)
	if err != nil {
		return err
	}
	marks, err := a.marks(r.Context(), viewer, nil, []int64{comment.Author.ID})
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusCreated, map[string]commentView{"comment": viewComment(comment, marks)})
	return nil
}

func (a *api) deleteComment(w http.ResponseWriter, r *http.Request, viewer int64) error {
	id, err := strconv.ParseInt(r.PathValue("id"), 10, 64)
	if err != nil && !errors.Is(err, strconv.ErrRange) { // beyond the range lies no comment
		return invalid("id", "must be a number")
	}
	if err := a.store.DeleteComment(r.Context(), viewer, pathText(r, "slug"), id); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}
