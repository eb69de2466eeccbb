"use strict";
// What the page knows is what /loadline/events sends: the history once, and then a view each second.
const $ = id => document.getElementById(id);
const make = (tag, text, kind) => { const e = document.createElement(tag); if (text !== undefined) e.textContent = text; if (kind) e.className = kind; return e; };
const number = v => v === 0 ? "0" : v >= 100 ? v.toFixed(0) : v >= 10 ? v.toFixed(1) : v >= 0.1 ? v.toFixed(2) : v.toPrecision(2);
const ms = v => v === 0 ? "" : v >= 10000 ? (v / 1000).toFixed(1) + " s" : v >= 100 ? v.toFixed(0) + " ms" : v >= 10 ? v.toFixed(1) + " ms" : v.toFixed(2) + " ms";
const share = v => v === 0 ? "0 %" : v < 0.001 ? "< 0.1 %" : (100 * v).toFixed(v < 0.1 ? 1 : 0) + " %";
const bytes = n => n < 1e6 ? (n / 1e3).toFixed(1) + " kB" : (n / 1e6).toFixed(1) + " MB";
const ago = t => { const s = Math.max(0, Math.round((Date.now() - new Date(t)) / 1000)); return s < 120 ? s + " s" : s < 7200 ? Math.round(s / 60) + " min" : s < 172800 ? Math.round(s / 3600) + " h" : Math.round(s / 86400) + " d"; };

// table fills one by columns [title, value of a row, class]; without rows it says why.
function table(id, columns, rows, none) {
  const t = $(id);
  const head = make("thead"), body = make("tbody"), titles = head.insertRow();
  for (const [title, , kind] of columns) { const th = make("th", title, kind); th.scope = "col"; titles.append(th); }
  for (const row of rows) {
    const tr = body.insertRow();
    for (const [, value, kind] of columns) {
      const v = value(row), td = tr.insertCell();
      if (kind) td.className = kind;
      if (Array.isArray(v)) { td.textContent = v[0]; if (v[1]) td.classList.add(v[1]); } else if (v instanceof Node) td.append(v); else td.textContent = v ?? "";
    }
  }
  if (rows.length === 0) { t.replaceChildren(); const td = t.insertRow().insertCell(); td.textContent = none; td.className = "dim"; return; }
  const focused = t.contains(document.activeElement) ? document.activeElement.dataset.key : undefined;
  t.replaceChildren(head, body);
  if (focused) [...t.querySelectorAll("button")].find(b => b.dataset.key === focused)?.focus();
}
const n = "number";

function showPath(view) {
  const list = $("path"), t = view.tightest;
  const name = t && view.path.find(h => h.id === t.hop).name;
  let text = "Nothing is in use";
  if (t) {
    const hop = view.path.find(h => h.id === t.hop);
    text = hop.state === "away" || hop.state === "full" ? `${name}: ${t.why}` : `Tightest: ${name}, ${t.why}`;
    if (t.until && view.now.rate > 1) text += `; full at about ${number(t.until)} requests a second, if all grows alike`;
  }
  if ($("tightest").textContent !== text) $("tightest").textContent = text;
  list.replaceChildren(...view.path.map(h => {
    const li = make("li", undefined, h.state + (t?.hop === h.id ? " tightest" : ""));
    const title = make("h3", h.name);
    title.append(make("span", h.state === "away" ? "away" : h.utilisation === undefined ? "" : share(h.utilisation)));
    const bar = make("div", undefined, "bar"), fill = make("i");
    fill.style.width = 100 * (h.utilisation ?? 0) + "%";
    bar.append(fill);
    if (h.utilisation !== undefined) { bar.role = "meter"; bar.ariaLabel = `${h.name}: share of its ${h.of}`; bar.ariaValueNow = Math.round(100 * h.utilisation); bar.ariaValueMin = 0; bar.ariaValueMax = 100; }
    const facts = make("dl");
    for (const f of h.facts) facts.append(make("dt", f.name), make("dd", f.value));
    li.append(title, bar, facts);
    if (h.why) li.append(make("p", h.why, "why"));
    if (t?.hop === h.id) li.ariaCurrent = "true";
    return li;
  }));
}

// Charts.
let past = [], charts = [], deploys = [];
// A custom property is not resolved where it is light-dark(): an element that has it is.
const resolved = name => { const e = make("i"); e.style.color = `var(${name})`; document.body.append(e); const c = getComputedStyle(e).color; e.remove(); return c; };
function marks() { // [when in seconds, text]
  const all = deploys.map(d => [new Date(d.at) / 1000, d.version]);
  for (let i = 1; i < past.length; i++) if (past[i].instances !== past[i - 1].instances) all.push([past[i].at, `${past[i - 1].instances} → ${past[i].instances} processes`]);
  return all;
}
function drawMarks(u) {
  const c = u.ctx, { left, top, width, height } = u.bbox;
  c.save();
  c.strokeStyle = c.fillStyle = resolved("--dim");
  c.setLineDash([4, 4]);
  c.font = `${11 * devicePixelRatio}px system-ui`;
  let free = -Infinity; // where the last text ends
  for (const [at, text] of marks().sort((a, b) => a[0] - b[0])) {
    const x = u.valToPos(at, "x", true);
    if (x < left || x > left + width) continue;
    c.beginPath(); c.moveTo(x, top); c.lineTo(x, top + height); c.stroke();
    const wide = c.measureText(text).width + 6, at0 = x + 4 + wide > left + width ? x - wide : x + 4;
    if (at0 < free) continue;
    free = at0 + wide;
    c.fillText(text, at0, top + 12 * devicePixelRatio);
  }
  c.restore();
}
function chart(id, series) {
  const place = $(id), axis = { stroke: resolved("--dim"), grid: { stroke: resolved("--line"), width: 1 }, ticks: { stroke: resolved("--line"), width: 1 } };
  place.replaceChildren();
  const u = new uPlot({
    width: Math.max(200, place.clientWidth), height: 190, padding: [14, 8, 0, 0],
    scales: { x: { time: true }, y: { range: (u, low, high) => [0, Math.max(1, high * 1.1)] } },
    axes: [{ ...axis, space: 70 }, { ...axis, size: 48 }],
    series: [{ label: "time", value: (u, v) => v === null ? "" : new Date(1000 * v).toLocaleTimeString() }, ...series.map(s => ({ label: s.label, stroke: resolved(s.color), width: 1.5, dash: s.dash, fill: s.fill && resolved(s.color).replace("rgb(", "rgba(").replace(")", ", .12)"), points: { show: false }, value: (u, v) => v == null ? "" : number(v) }))],
    hooks: { draw: [drawMarks] },
  }, [[], ...series.map(() => [])], place);
  return { u, place, data: () => [past.map(p => p.at), ...series.map(s => past.map(s.value))] };
}
function makeCharts() {
  charts.forEach(c => c.u.destroy());
  charts = [
    chart("rate", [{ label: "all", color: "--blue", fill: true, value: p => p.rate }, { label: "failed", color: "--red", value: p => p.failed }]),
    chart("duration", [{ label: "p50", color: "--blue", value: p => p.p50 || null }, { label: "p95", color: "--amber", value: p => p.p95 || null }, { label: "p99", color: "--red", dash: [5, 3], value: p => p.p99 || null }]),
  ];
  charts.forEach(c => c.u.setData(c.data()));
}
function showCharts(view) {
  deploys = view.deploys;
  const p = { at: Math.floor(new Date(view.time) / 1000), rate: view.now.rate, failed: view.now.rate * view.now.failed, p50: view.now.p50, p95: view.now.p95, p99: view.now.p99, instances: view.alive };
  if (view.window > 0 && (past.length === 0 || past.at(-1).at < p.at)) past.push(p);
  if (past.length > 600) past.shift();
  charts.forEach(c => c.u.setData(c.data()));
  $("now").textContent = view.now.rate > 0 ? `${number(view.now.rate)} a second, ${share(view.now.failed)} failed, p95 ${ms(view.now.p95)}` : "none";
  $("marks").textContent = deploys.length ? deploys.map(d => `${d.version === "unknown" ? "This version" : d.version} was deployed ${ago(d.at)} ago`).join(", ") : "";
}

// Traces. One stays open while others come.
let opened, shownTraces;
async function openTrace(t, place) {
  place.replaceChildren(make("p", "…", "dim"));
  try {
    const response = await fetch(`/loadline/traces/${t.id}?instance=${encodeURIComponent(t.instance ?? "")}`);
    if (!response.ok) throw new Error(await response.text());
    place.replaceChildren(...traceParts(await response.json()));
  } catch (error) {
    place.replaceChildren(make("p", error.message, "bad"));
  }
}
function traceParts(t) {
  const byID = new Map(t.spans.map(s => [s.id, s]));
  const depth = s => { let d = 0; for (let p = byID.get(s.parent); p && d < 20; p = byID.get(p.parent)) d++; return d; };
  const until = Math.max(...t.spans.map(s => s.after + s.took), 0.001), from = Math.min(...t.spans.map(s => s.after), 0);
  const rows = t.spans.map(s => {
    const d = make("details", undefined, s.failed ? "failed" : ""), summary = make("summary"), name = make("span", s.name, "name"), lane = make("span", undefined, "lane"), bar = make("i");
    name.style.paddingLeft = depth(s) + "rem";
    name.title = s.name;
    const where = s.attributes["server.address"] && `${s.attributes["server.address"]}:${s.attributes["server.port"]}`;
    if (where) name.textContent += " · " + where + (s.attributes["loadline.db.reason"] ? " · " + s.attributes["loadline.db.reason"] : "");
    bar.style.left = 100 * (s.after - from) / (until - from) + "%";
    bar.style.width = 100 * s.took / (until - from) + "%";
    lane.append(bar);
    summary.append(name, lane, make("span", ms(s.took) || "0", n));
    d.append(summary);
    if (s.error) d.append(make("p", s.error, "bad"));
    if (s.attributes["db.query.text"]) d.append(make("pre", s.attributes["db.query.text"].trim()));
    const rest = make("table");
    for (const [k, v] of Object.entries(s.attributes)) if (k !== "db.query.text") { const tr = rest.insertRow(); tr.insertCell().textContent = k; tr.insertCell().textContent = v; }
    d.append(rest);
    return d;
  });
  const parts = [make("h4", `Trace ${t.id}, ${new Date(t.began).toLocaleString()}${t.instance ? ", " + t.instance : ""}`), ...rows];
  if (t.more) parts.push(make("p", `and ${t.more} spans more, which are not kept`, "dim"));
  const lines = make("pre", (t.lines ?? []).map(l => `${new Date(l.at).toISOString().slice(11, 23)} ${l.level} ${l.text}`).join("\n"));
  parts.push(make("h4", "Logged"), t.lines?.length ? lines : make("p", "nothing", "dim"));
  return parts;
}
function showTraces(traces) {
  const idOf = t => `trace-${t.instance ?? ""}-${t.id}`, key = traces.map(idOf).join();
  if (key === shownTraces) { for (const li of $("traces").children) if (li.began) li.querySelector(".when").textContent = ago(li.began) + " ago"; return; }
  shownTraces = key;
  const list = $("traces"), old = new Map([...list.children].map(li => [li.id, li]));
  if (traces.length === 0) { list.replaceChildren(make("li", "none so far", "none")); return; }
  const wanted = traces.map(t => {
    const id = idOf(t);
    if (old.has(id)) return old.get(id);
    const li = make("li"), button = make("button"), place = make("div", undefined, "trace");
    li.id = id; li.began = t.began; place.hidden = true; button.type = "button"; button.ariaExpanded = "false";
    button.append(make("span", ago(t.began) + " ago", "when dim"), make("span", t.failed ? "failed" : "slow", t.failed ? "bad" : "warn"), make("span", ms(t.took), "took"), make("span", t.name), make("span", t.error ?? "", "error"));
    button.onclick = () => {
      place.hidden = !place.hidden;
      button.ariaExpanded = String(!place.hidden);
      if (!place.hidden) { if (opened && opened !== place) { opened.hidden = true; opened.previousSibling.ariaExpanded = "false"; } opened = place; openTrace(t, place); }
    };
    li.append(button, place);
    return li;
  });
  const focused = document.activeElement;
  // One that is open stays, though newer ones have taken its place.
  if (opened && !opened.hidden && opened.isConnected && !wanted.includes(opened.parentElement)) wanted.push(opened.parentElement);
  list.replaceChildren(...wanted);
  if (focused && list.contains(focused)) focused.focus();
}

// Faults and servers, of a local stack.
const undoing = new Set();
async function undo(path) {
  undoing.add(path);
  $("failure").textContent = "";
  try {
    const response = await fetch(path, { method: "DELETE" });
    if (!response.ok) $("failure").textContent = (await response.json()).error;
  } catch (error) { $("failure").textContent = "Loadline does not answer: " + error.message; }
  undoing.delete(path);
}
function showStack(stack) {
  $("stack").hidden = !stack?.faults?.length;
  if (!stack?.faults?.length) return;
  const now = new Date(stack.time);
  $("stack-title").textContent = stack.faults.length === 1 ? "1 fault active" : stack.faults.length + " faults active";
  const flags = f => [["delay", f.delay], ["jitter", f.jitter], ["rate", f.bytes_per_second], ["direction", f.direction], ["sessions", f.sessions]].filter(([, v]) => v).map(([k, v]) => `--${k} ${v}`);
  const button = (text, label, path, disabled) => { const b = make("button", text); b.type = "button"; b.ariaLabel = label; b.dataset.key = path; b.disabled = disabled || undoing.has(path); b.onclick = () => { b.disabled = true; undo(path); }; return b; };
  table("faults", [
    ["fault", f => make("code", [f.service, f.kind, ...flags(f)].join(" "))],
    ["state", f => f.problem ? [`${f.phase}, but ${f.problem}`, "bad"] : [f.phase, "warn"], "wide"],
    ["for", f => ago(f.since), n],
    ["ends", f => f.until ? "in " + Math.max(0, Math.round((new Date(f.until) - now) / 1000)) + " s" : "when undone", n],
    ["to undo it", f => f.undo, "wide dim"],
    ["", f => button("Undo", `Undo ${f.kind} of ${f.service}`, "/faults/" + encodeURIComponent(f.id), f.phase !== "active")],
  ], stack.faults, "");
}

function showRealtime(r) {
  $("realtime").hidden = !r;
  if (!r) return;
  const used = r.limit ? r.connections / r.limit : 0, refused = r.refused.map(f => `${number(f.rate)} ${f.reason}`).join(", ");
  $("realtime-now").textContent = `${number(r.published)} publications a second in, ${number(r.messages)} messages out`;
  table("gateways", [
    ["state", r => r.draining ? [r.gateways > 1 ? `${r.draining} of ${r.gateways} drain` : "drains", "warn"] : ["takes clients", "ok"]],
    ["connections", r => [`${r.connections}` + (r.limit ? ` of ${r.limit}` : ""), used >= 1 ? "bad" : used > 0.8 ? "warn" : ""], n],
    ["by transport", r => r.transports.filter(t => t.connections).map(t => `${t.connections} ${t.transport.replaceAll("_", " ")}`).join(", ")],
    ["subscriptions", r => r.subscriptions, n], ["channels", r => r.channels, n], ["come a second", r => number(r.accepted), n], ["refused", () => [refused, "bad"]],
    ["recovered", r => number(r.recovered), n], ["lost", r => r.lost ? [number(r.lost), "warn"] : "", n], ["too slow", r => r.slow ? [number(r.slow), "warn"] : "", n],
  ], [r], "");
  table("namespaces", [
    ["namespace", s => s.namespace], ["published a second", s => number(s.published), n], ["late", s => s.late ? [number(s.late), "warn"] : "", n], ["dropped", s => s.dropped ? number(s.dropped) : "", n],
    ["failed", s => s.failed ? [number(s.failed), "bad"] : "", n], ["behind, p95", s => ms(1000 * s.delayP95), n],
  ], r.namespaces, "nothing has been published");
}

function showTables(view) {
  table("routes", [
    ["route", r => `${r.method} ${r.route}`], ["a second", r => number(r.rate), n], ["failed", r => [share(r.failed), r.failed > 0.01 ? "bad" : ""], n],
    ["p50", r => ms(r.p50), n], ["p95", r => ms(r.p95), n], ["p99", r => ms(r.p99), n],
  ], view.routes, "no requests in the last seconds");
  table("servers", [
    ["server", s => s.name], ["role", s => s.role || "not known"],
    ["answers", s => s.of === 0 ? "" : s.up === s.of ? ["yes", "ok"] : [`${s.up} of ${s.of} processes`, "bad"]],
    ["in use", s => share(s.utilisation), n], ["connections", s => `${s.used} of ${s.max}`, n], ["waiting", s => s.waiting || "", n], ["wait, p95", s => ms(s.waitP95), n],
    ["lag", s => s.lag === undefined ? "" : [s.lag < 0.001 ? "none" : ms(1000 * s.lag), s.lag > 10 ? "bad" : ""], n],
  ], view.servers, "package db is not used, or its metrics are not served");
  table("caches", [
    ["cache", c => c.cache], ["class", c => c.class], ["reads a second", c => number(c.rate), n], ["process", c => share(c.process), n], ["Redis", c => share(c.redis), n],
    ["loaded", c => share(c.loaded), n], ["past the cache", c => [share(c.past), c.past > 0.5 ? "warn" : ""], n], ["load, p95", c => ms(c.loadP95), n], ["held", c => bytes(c.bytes), n],
  ], view.caches, "package cache is not used, or its metrics are not served");
  const o = view.outbox;
  $("outbox").textContent = o ? `${number(o.published)} published a second; ${o.depth} wait, the oldest ${number(o.age)} s; ${o.dead} dead letters` + (o.paused ? `; paused: ${o.paused.replaceAll("_", " ")}` : "") + (o.leading === 1 ? "" : `; ${o.leading} relays lead`) : "";
  table("groups", [
    ["group", g => g.group], ["handled a second", g => number(g.rate), n], ["retried", g => g.retried ? [number(g.retried), "warn"] : "", n], ["dead", g => g.dead ? [number(g.dead), "bad"] : "", n],
    ["pending", g => g.pending, n], ["oldest", g => g.oldest ? number(g.oldest) + " s" : "", n], ["behind, p95", g => ms(1000 * g.ageP95), n],
  ], view.groups, "package events is not used, or its metrics are not served");
  showRealtime(view.realtime);
  const services = view.stack?.services ?? [];
  const state = s => s.state === "ready" ? (s.problem ? ["ready, but " + s.problem, "warn"] : ["ready", "ok"]) : [s.state, s.state === "exited" ? "bad" : "dim"];
  const rows = services.length ? services.map(s => ({ ...s, instance: view.instances.find(i => i.name === s.name) })) : view.instances.map(i => ({ name: i.name, role: i.service, instance: i }));
  table("instances", [
    ["process", s => s.name], ["role", s => s.role, "dim"],
    ["state", s => s.state ? state(s) : s.instance.problem ? [s.instance.problem, "bad"] : ["answers", "ok"], "wide"],
    ["version", s => s.instance?.version ?? ""], ["metrics", s => s.instance ? s.instance.problem ? [s.instance.problem, "warn"] : "yes" : "", "wide"],
    ["address", s => s.addr ? make("code", s.addr) : ""], ["pid", s => s.pid || "", n], ["lag", s => s.lag ? bytes(s.lag.bytes) : "", n],
  ], rows, "no process is looked at");
}

function show(view) {
  const names = [...new Set(view.instances.map(i => [i.service, i.version].filter(Boolean).join(" ")).filter(Boolean))];
  const up = view.instances.filter(i => !i.problem).length;
  $("who").textContent = [names.join(", "), view.instances.length > 1 || !up ? `${up} of ${view.instances.length} processes` : ""].filter(Boolean).join(" · ");
  document.title = (view.tightest ? view.path.find(h => h.id === view.tightest.hop).name + " · " : "") + "Loadline";
  $("window").textContent = `rates and percentiles of the last ${Math.round(view.window)} seconds, merged over all processes; ${new Date(view.time).toLocaleTimeString()}`;
  showPath(view); showStack(view.stack); showCharts(view); showTraces(view.traces); showTables(view);
}

const events = new EventSource("/loadline/events");
const connection = (text, kind) => { if ($("connection").textContent !== text) { $("connection").textContent = text; $("connection").className = kind; } };
events.addEventListener("history", e => { past = JSON.parse(e.data) ?? []; });
events.addEventListener("view", e => { connection("live", "ok"); show(JSON.parse(e.data)); });
events.onerror = () => { connection("not connected; trying again", "bad"); if (events.readyState === EventSource.CLOSED) setTimeout(() => location.reload(), 5000); };
makeCharts();
addEventListener("resize", () => charts.forEach(c => c.u.setSize({ width: Math.max(200, c.place.clientWidth), height: 190 })));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", makeCharts);
