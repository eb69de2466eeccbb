package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/loadlinehq/loadline/internal/stack/stacktest"
	"github.com/loadlinehq/loadline/outbox"
)

// run runs a command that must not fail, and returns its output.
func (m *mesh) run(want string, args ...string) string {
	m.t.Helper()
	out, err := m.result(args...)
	if err != nil || !strings.Contains(out, want) {
		m.t.Errorf("loadline %s: %v; %q is not in:\n%s", strings.Join(args, " "), err, want, out)
	}
	return out
}

func (m *mesh) exec(sql string, args ...any) {
	m.t.Helper()
	if _, err := m.connect().Exec(m.t.Context(), sql, args...); err != nil {
		m.t.Fatalf("%s: %v", sql, err)
	}
}

func (m *mesh) count(table string) int {
	m.t.Helper()
	var n int
	if err := m.connect().QueryRow(m.t.Context(), "select count(*) from loadline."+table).Scan(&n); err != nil {
		m.t.Fatal(err)
	}
	return n
}

// kill has what waits refused for good.
func (m *mesh) kill(reason, text string) {
	m.t.Helper()
	m.exec(`with d as (delete from loadline.outbox returning *)
		insert into loadline.outbox_dead select d.*, $1, $2, 5, '2026-11-24T14:00:00Z', '2026-11-24T14:01:25Z' from d`, reason, text)
}

func (m *mesh) rejected(args ...string) []outbox.Dead {
	m.t.Helper()
	var dead []outbox.Dead
	out := m.run("", append([]string{"events", "rejected", "list", "--json"}, args...)...)
	if err := json.Unmarshal([]byte(out), &dead); err != nil || dead == nil {
		m.t.Fatalf("%v:\n%s", err, out)
	}
	return dead
}

// What was refused for good is found, and put back or deleted: some of it, or all of a kind.
func TestRejected(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	m.run("None", "events", "rejected", "list")
	if got := m.rejected(); len(got) != 0 {
		t.Errorf("there are %+v", got)
	}
	m.add(4)
	m.kill("rejected", "message too large\n"+strings.Repeat("x", 200))
	m.exec("insert into loadline.outbox (type, key, payload) values ('Bad Type', 'a,b' || chr(27) || '[2J', '{}'), ('Bad Type', 'c', '{}')")
	m.kill("unencodable", "no type")

	all := m.rejected()
	if len(all) != 6 || all[0].Type != "order.placed" || all[0].Reason != "rejected" || all[0].Attempts != 5 || len(all[0].Error) < 200 ||
		!all[0].FirstFailedAt.Equal(time.Date(2026, 11, 24, 14, 0, 0, 0, time.UTC)) || all[4].Key != "a,b\x1b[2J" {
		t.Fatalf("there are %+v", all)
	}
	out := m.run("2026-11-24T14:00:00Z  2026-11-24T14:01:25Z", "events", "rejected", "list")
	if strings.Contains(out, "\x1b") || strings.Count(out, "\n") != 7 || !strings.Contains(out, `"a,b\x1b[2J"`) || !strings.Contains(out, all[3].ID) {
		t.Errorf("the list is\n%q", out)
	}
	for _, test := range []struct {
		args []string
		want int
	}{
		{[]string{"--type", "order.placed,Bad Type", "--after", fmt.Sprint(all[2].Seq)}, 3},
		{[]string{"--reason", "unencodable", "--key", all[4].Key}, 1},
		{[]string{"--tenant", "acme"}, 0},
	} {
		if got := m.rejected(test.args...); len(got) != test.want {
			t.Errorf("%v: there are %+v", test.args, got)
		}
	}
	m.run(fmt.Sprintf("--after %d", all[1].Seq), "events", "rejected", "list", "--limit", "2")

	nobody := "00000000-0000-0000-0000-000000000000"
	m.run("revived 1\n", "events", "rejected", "revive", all[0].ID, all[0].ID)
	m.refuse([]string{"events", "rejected", "revive", all[0].ID, all[1].ID, nobody}, "revived 1\n", "no such event is dead: 1 of 3 were")
	m.refuse([]string{"events", "rejected", "discard", "abc"}, "discarded 0\n", `no such event is dead: "abc"`)
	m.refuse([]string{"events", "rejected", "discard"}, "which ones?")
	m.refuse([]string{"events", "rejected", "discard", nobody, "--type", "a"}, "ids are enough")
	m.run("discarded 2\n", "events", "rejected", "discard", "--all", "--reason", "unencodable")
	m.run("revived 2\n", "events", "rejected", "revive", "--all", "--type", "order.placed")
	if n := m.count("outbox"); n != 4 {
		t.Errorf("%d events wait, want those 4 that were revived", n)
	}
	var id string
	if err := m.connect().QueryRow(t.Context(), "select id::text from loadline.outbox where seq = $1", all[0].Seq).Scan(&id); err != nil || id != all[0].ID {
		t.Errorf("the first has come back as %s, %v", id, err)
	}
	empty := &mesh{&stacktest.Set{Database: *stacktest.Postgres(t), NATSURL: m.NATSURL}, t}
	for _, command := range []string{"list", "discard " + nobody} {
		empty.refuse(append([]string{"events", "rejected"}, strings.Fields(command)...), "run loadline migrate")
	}
}

// What is more than one page is changed as well, once each.
func TestRejectedPages(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	m.exec("insert into loadline.outbox (type, payload) select 'a', '{}' from generate_series(1, $1)", 2*changeAtOnce+1)
	m.kill("rejected", "")
	m.run("revived 2001\n", "events", "rejected", "revive", "--all")
}

// The status shows what waits and who relays, and is a probe.
func TestEventsStatus(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	m.run("no relay has ever run", "events", "status", "--max-age", "1m")
	m.add(3)
	m.exec("update loadline.outbox set created_at = now() - interval '2 hours'")
	status := func() (s outboxStatus) {
		t.Helper()
		out := m.run("", "events", "status", "--json")
		if err := json.Unmarshal([]byte(out), &s); err != nil {
			t.Fatalf("%v:\n%s", err, out)
		}
		return s
	}
	if s := status(); s.OldestSeconds < 7200 || s.OldestSeconds > 7300 || s.Depth < 3 || s.Bytes == 0 || s.Dead != 0 || s.Relays == nil {
		t.Errorf("the status is %+v", s)
	}
	m.refuse([]string{"events", "status", "--max-age", "1h"}, "oldest  ", "an event has waited for 2h0m", "longer than 1h0m0s")
	m.run("2h0m", "events", "status", "--max-age", "3h")

	r, url := m.monitored("--lease-name", "somebody")
	r.eventually(20*time.Second, "it leads", func() bool {
		code, _ := answer(t, url+"/healthz")
		return code == http.StatusOK && m.count("outbox") == 0
	})
	if s := status(); s.OldestSeconds != 0 || len(s.Relays) != 1 || !s.Relays[0].Active || s.Relays[0].Holder != "somebody" {
		t.Errorf("the status is %+v", s)
	}
	m.run("somebody  1      ", "events", "status", "--max-age", "1h")
	m.refuse([]string{"events", "status", "--url", stacktest.Postgres(t).URL}, "run loadline migrate")
}
