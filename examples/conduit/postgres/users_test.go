package postgres_test

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/loadlinehq/loadline/examples/conduit"
)

func TestUsers(t *testing.T) {
	t.Parallel()
	f, ctx := newFixture(t), t.Context()
	jake, jane := f.user(t, "Jake"), f.user(t, "Jane")

	_, err := f.CreateUser(ctx, conduit.Registration{Username: "jAKE", Email: "other@example.com"}, "hash")
	wantErr(t, "the same username in another case", err, conduit.ErrUsernameTaken)
	_, err = f.CreateUser(ctx, conduit.Registration{Username: "other", Email: "JAKE@example.com"}, "hash")
	wantErr(t, "the same e-mail in another case", err, conduit.ErrEmailTaken)
	_, err = f.UpdateUser(ctx, jane, conduit.UserChange{Username: new("JAKE")}, "")
	wantErr(t, "a change to a username taken", err, conduit.ErrUsernameTaken)
	_, err = f.UpdateUser(ctx, jane, conduit.UserChange{Email: new("JAKE@example.com")}, "")
	wantErr(t, "a change to an e-mail taken", err, conduit.ErrEmailTaken)

	want := conduit.User{
		Profile:      conduit.Profile{ID: jake, Username: "JAKE", Bio: "bio", Image: "image"},
		Email:        "jake@example.com",
		PasswordHash: "new hash",
	}
	got, err := f.UpdateUser(ctx, jake, conduit.UserChange{
		Username: new("JAKE"), Email: new("jake@example.com"), Bio: new("bio"), Image: new("image"),
	}, "new hash")
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("change of everything: %v %s", err, diff)
	}
	if _, err := f.UpdateUser(ctx, jake, conduit.UserChange{}, ""); err != nil {
		t.Error(err)
	}
	if got, err = f.UserByEmail(ctx, "JAKE@EXAMPLE.COM"); err != nil || cmp.Diff(want, got) != "" {
		t.Errorf("after a change of nothing: %v %s", err, cmp.Diff(want, got))
	}
	if got, err = f.UpdateUser(ctx, jake, conduit.UserChange{Bio: new(""), Image: new("")}, ""); err != nil || got.Bio+got.Image != "" {
		t.Errorf("removal of bio and image: %v, %v", got, err)
	}

	_, err = f.UserByID(ctx, 999)
	wantErr(t, "unknown id", err, conduit.ErrUserNotFound)
	_, err = f.UserByEmail(ctx, "nobody")
	wantErr(t, "unknown e-mail", err, conduit.ErrUserNotFound)
	_, err = f.UpdateUser(ctx, 999, conduit.UserChange{}, "")
	wantErr(t, "change of an unknown id", err, conduit.ErrUserNotFound)
	_, err = f.Profile(ctx, "nobody")
	wantErr(t, "unknown profile", err, conduit.ErrProfileNotFound)
}

func TestFollow(t *testing.T) {
	t.Parallel()
	f, ctx := newFixture(t), t.Context()
	jake, jane := f.user(t, "jake"), f.user(t, "jane")

	for range 2 { // idempotent
		if profile, err := f.Follow(ctx, jake, "JANE"); err != nil || profile.ID != jane {
			t.Errorf("Follow: %v, %v", profile, err)
		}
	}
	marks, err := f.Marks(ctx, jake, nil, []int64{jake, jane, 999})
	if err != nil || !slices.Equal(marks.Following, []int64{jane}) {
		t.Errorf("Marks: %v, %v", marks, err)
	}
	if marks, err = f.Marks(ctx, jane, nil, []int64{jake, jane}); err != nil || len(marks.Following) > 0 {
		t.Errorf("another viewer's marks: %v, %v", marks, err)
	}
	for range 2 {
		if profile, err := f.Unfollow(ctx, jake, "jane"); err != nil || profile.ID != jane {
			t.Errorf("Unfollow: %v, %v", profile, err)
		}
	}
	if marks, err = f.Marks(ctx, jake, nil, []int64{jane}); err != nil || len(marks.Following) > 0 {
		t.Errorf("Marks: %v, %v", marks, err)
	}

	_, err = f.Follow(ctx, jake, "nobody")
	wantErr(t, "follow nobody", err, conduit.ErrProfileNotFound)
	_, err = f.Unfollow(ctx, jake, "nobody")
	wantErr(t, "unfollow nobody", err, conduit.ErrProfileNotFound)
	_, err = f.Follow(ctx, 999, "jane")
	wantErr(t, "a deleted viewer", err, conduit.ErrNoViewer)
}
