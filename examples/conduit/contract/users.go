package contract

import (
	"net/http"
	"strings"
	"testing"
)

const (
	blank     = "can't be blank"
	taken     = "has already been taken"
	notFound  = "not found"
	forbidden = "forbidden"
	isMissing = "is missing"
)

func (s *suite) testUsers(t *testing.T) {
	t.Run("register", s.testRegister)
	t.Run("register with bad input", s.testRegisterBad)
	t.Run("register a taken name", s.testRegisterTaken)
	t.Run("log in", s.testLogin)
	t.Run("update", s.testUpdateUser)
	t.Run("update to a taken name", s.testUpdateTaken)
	t.Run("change the password", s.testPassword)
	t.Run("rename", s.testRename)
}

func (s *suite) testRegister(t *testing.T) {
	t.Parallel()
	name := s.name("new")
	got := s.anyone.post(t, "/users", newUser(name)).user(t, http.StatusCreated)
	if got.Username != name || got.Email != name+"@example.com" || got.Token == "" {
		t.Errorf("registered %q, got %+v", name, got)
	}
	if got.Bio != nil || got.Image != nil {
		t.Errorf("bio %v and image %v of a new user, wanted null", got.Bio, got.Image)
	}
	me := actor{user: got, suite: s}
	if current := me.get(t, "/user").user(t, http.StatusOK); current.Username != name || current.Email != got.Email {
		t.Errorf("the new token belongs to %q, wanted %q", current.Username, name)
	}
	// Unicode names are names.
	other := s.name("zoë_李")
	s.anyone.post(t, "/users", obj{"user": obj{
		"username": other, "email": s.name("zoe") + "@example.com", "password": password,
		"unknown": "fields are ignored",
	}}).want(t, http.StatusCreated)
	if got := s.anyone.get(t, profileOf(other)).profile(t, http.StatusOK); got.Username != other {
		t.Errorf("profile of %q is %q", other, got.Username)
	}
}

func (s *suite) testRegisterBad(t *testing.T) {
	t.Parallel()
	valid := func() obj { return newUser(s.name("bad"))["user"].(obj) }
	for _, field := range []string{"username", "email", "password"} {
		for name, value := range map[string]any{"empty": "", "null": nil, "absent": nil} {
			fields := valid()
			if fields[field] = value; name == "absent" {
				delete(fields, field)
			}
			s.anyone.post(t, "/users", obj{"user": fields}).wantError(t, http.StatusUnprocessableEntity, field, blank)
		}
		fields := valid()
		fields[field] = 42
		s.anyone.post(t, "/users", obj{"user": fields}).want(t, http.StatusUnprocessableEntity)
	}
	fields := valid()
	fields["username"] = "   "
	s.anyone.post(t, "/users", obj{"user": fields}).wantError(t, http.StatusUnprocessableEntity, "username", "")
}

func (s *suite) testRegisterTaken(t *testing.T) {
	t.Parallel()
	free := s.name("free")
	for _, username := range []string{s.ann.Username, strings.ToUpper(s.ann.Username)} {
		s.anyone.post(t, "/users", obj{"user": obj{"username": username, "email": free + "@example.com", "password": password}}).
			wantError(t, http.StatusConflict, "username", taken)
	}
	for _, email := range []string{s.ann.Email, strings.ToUpper(s.ann.Email)} {
		s.anyone.post(t, "/users", obj{"user": obj{"username": free, "email": email, "password": password}}).
			wantError(t, http.StatusConflict, "email", taken)
	}
	// A refused registration holds neither the name nor the address.
	s.anyone.post(t, "/users", newUser(free)).want(t, http.StatusCreated)
}

func (s *suite) testLogin(t *testing.T) {
	t.Parallel()
	login := func(email, password any) *answer {
		return s.anyone.post(t, "/users/login", obj{"user": obj{"email": email, "password": password}})
	}
	got := login(s.bob.Email, password).user(t, http.StatusOK)
	if got.Username != s.bob.Username || got.Email != s.bob.Email {
		t.Errorf("logged in as %+v, wanted %s", got, s.bob.Username)
	}
	me := actor{user: got, suite: s}
	if current := me.get(t, "/user").user(t, http.StatusOK); current.Username != s.bob.Username {
		t.Errorf("the token of the login belongs to %q, wanted %q", current.Username, s.bob.Username)
	}
	login(strings.ToUpper(s.bob.Email), password).want(t, http.StatusOK)

	login(s.bob.Email, "a wrong password").wantError(t, http.StatusUnauthorized, "credentials", "invalid")
	login(s.name("nobody")+"@example.com", password).wantError(t, http.StatusUnauthorized, "credentials", "invalid")
	for _, nothing := range []any{"", nil} {
		login(nothing, password).wantError(t, http.StatusUnprocessableEntity, "email", blank)
		login(s.bob.Email, nothing).wantError(t, http.StatusUnprocessableEntity, "password", blank)
	}
	login(42, password).want(t, http.StatusUnprocessableEntity)
	login(s.bob.Email, []string{password}).want(t, http.StatusUnprocessableEntity)
}

func (s *suite) testUpdateUser(t *testing.T) {
	t.Parallel()
	me := s.register(t, "update")
	// update sends the fields and checks both the answer and what is read afterwards.
	update := func(fields obj, bio, image *string) {
		t.Helper()
		got := me.put(t, "/user", obj{"user": fields}).user(t, http.StatusOK)
		if got.Token == "" {
			t.Errorf("no token after an update")
		}
		for _, seen := range []user{got, me.get(t, "/user").user(t, http.StatusOK)} {
			if seen.Username != me.Username || seen.Email != me.Email {
				t.Errorf("an update of %v made the user %q <%s>", fields, seen.Username, seen.Email)
			}
			if !same(seen.Bio, bio) || !same(seen.Image, image) {
				t.Errorf("after %v: bio %s, image %s; wanted %s, %s", fields, show(seen.Bio), show(seen.Image), show(bio), show(image))
			}
		}
		if seen := s.anyone.view(t, me); !same(seen.Bio, bio) || !same(seen.Image, image) {
			t.Errorf("profile after %v: bio %s, image %s", fields, show(seen.Bio), show(seen.Image))
		}
	}
	bio, image := new("Ünïcode bio — 🚀"), new("https://example.com/photo.jpg")
	update(obj{"bio": *bio}, bio, nil)
	update(obj{"image": *image}, bio, image)
	update(obj{"bio": ""}, nil, image)
	update(obj{"bio": *bio}, bio, image)
	update(obj{"bio": nil, "image": ""}, nil, nil)
	update(obj{"bio": *bio, "image": *image, "unknown": true}, bio, image)
	update(obj{"image": nil}, bio, nil)

	for _, field := range []string{"username", "email", "password"} {
		for _, value := range []any{"", nil, 42, []string{"x"}} {
			me.put(t, "/user", obj{"user": obj{field: value}}).want(t, http.StatusUnprocessableEntity)
		}
	}
	me.put(t, "/user", obj{"user": obj{"bio": 42}}).want(t, http.StatusUnprocessableEntity)
	me.put(t, "/user", obj{"user": obj{"image": obj{}}}).want(t, http.StatusUnprocessableEntity)
	// A refused update changes nothing, its valid fields included.
	me.put(t, "/user", obj{"user": obj{"bio": "lost", "email": ""}}).want(t, http.StatusUnprocessableEntity)
	if got := me.get(t, "/user").user(t, http.StatusOK); !same(got.Bio, bio) {
		t.Errorf("a refused update left bio %s, wanted %s", show(got.Bio), show(bio))
	}
}

func (s *suite) testUpdateTaken(t *testing.T) {
	t.Parallel()
	me := s.register(t, "update")
	// The contract documents no 409 for this operation.
	me.put(t, "/user", obj{"user": obj{"username": s.ann.Username}}).wantError(t, http.StatusUnprocessableEntity, "username", taken)
	me.put(t, "/user", obj{"user": obj{"email": strings.ToUpper(s.ann.Email)}}).wantError(t, http.StatusUnprocessableEntity, "email", taken)
	// One's own name is not taken.
	got := me.put(t, "/user", obj{"user": obj{"username": me.Username, "email": me.Email}}).user(t, http.StatusOK)
	if got.Username != me.Username || got.Email != me.Email {
		t.Errorf("user after an update with the same names: %+v", got)
	}
}

func (s *suite) testPassword(t *testing.T) {
	t.Parallel()
	me := s.register(t, "password")
	login := func(password string) *answer {
		return s.anyone.post(t, "/users/login", obj{"user": obj{"email": me.Email, "password": password}})
	}
	me.put(t, "/user", obj{"user": obj{"password": "short7c"}}).wantError(t, http.StatusUnprocessableEntity, "password", "")
	old := password
	for _, next := range []string{"bonjour1", strings.Repeat("a", 64)} {
		me.put(t, "/user", obj{"user": obj{"password": next}}).want(t, http.StatusOK)
		login(old).wantError(t, http.StatusUnauthorized, "credentials", "invalid")
		login(next).want(t, http.StatusOK)
		old = next
	}
	me.get(t, "/user").want(t, http.StatusOK)
}

func (s *suite) testRename(t *testing.T) {
	t.Parallel()
	before := s.register(t, "rename")
	tag := s.name("rename")
	slug := before.publish(t, s.title("Rename"), tag).Slug
	before.comment(t, slug, "By the author")
	before.favorite(t, slug)

	after := actor{suite: s}
	name := s.name("renamed")
	after.user = before.put(t, "/user", obj{"user": obj{"username": name, "email": name + "@example.com"}}).user(t, http.StatusOK)
	if got := after.get(t, "/user").user(t, http.StatusOK); got.Username != name || got.Email != name+"@example.com" {
		t.Errorf("renamed to %q, read %q <%s>", name, got.Username, got.Email)
	}
	s.anyone.get(t, profileOf(before.Username)).wantError(t, http.StatusNotFound, "profile", notFound)
	if got := s.anyone.view(t, after); got.Username != name {
		t.Errorf("profile of %q is %q", name, got.Username)
	}
	if got := s.anyone.read(t, slug).Author.Username; got != name {
		t.Errorf("author of the article is %q, wanted %q", got, name)
	}
	if got := s.anyone.get(t, at(slug, "comments")).comments(t); len(got) != 1 || got[0].Author.Username != name {
		t.Errorf("comments %+v, wanted one by %q", got, name)
	}
	for _, key := range []string{"author", "favorited"} {
		wantPage(t, s.anyone.get(t, list("/articles", key, before.Username)), 0)
		wantPage(t, s.anyone.get(t, list("/articles", key, name)), 1, slug)
	}
	if got := s.anyone.get(t, list("/articles", "tag", tag)).page(t); len(got.Articles) != 1 || got.Articles[0].Author.Username != name {
		t.Errorf("list by tag %+v, wanted one article by %q", got, name)
	}
	s.anyone.post(t, "/users/login", obj{"user": obj{"email": before.Email, "password": password}}).
		wantError(t, http.StatusUnauthorized, "credentials", "invalid")

	// The old name is free, and the old token does not become its new owner's.
	s.anyone.post(t, "/users", newUser(before.Username)).want(t, http.StatusCreated)
	if got := before.get(t, "/user"); got.status != http.StatusUnauthorized {
		if got := got.user(t, http.StatusOK); got.Username != name {
			t.Errorf("the token of %q, renamed to %q, now belongs to %q", before.Username, name, got.Username)
		}
	}
}

func same(a, b *string) bool {
	return a == nil && b == nil || a != nil && b != nil && *a == *b
}

func show(s *string) string {
	if s == nil {
		return "null"
	}
	return *s
}
