// Reads /state once a second and shows it. Elements that can have the focus are kept and changed in place; nothing is ever written as HTML.

import { Chart, shortly } from "/charts.js";

const EVERY_MS = 1000;
const PATIENCE_MS = 3000;
const EVENTS_KEPT = 200;
const SIGNS = { online: "●", draining: "◐", copying: "◔", detached: "○", unreachable: "✕", "out of service": "✕" };

const at = (id) => document.getElementById(id);
let last = null;
let lastAt = 0;
let isPaused = false;
let isSilent = false;

function make(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

function bytes(count) {
  const units = ["B", "kB", "MB", "GB", "TB", "PB"];
  let unit = 0;
  let value = count;
  while (value >= 1000 && unit < units.length - 1) {
    value /= 1000;
    unit += 1;
  }
  return `${shortly(value)} ${units[unit]}`;
}

function span(seconds) {
  const [days, hours, minutes] = [Math.floor(seconds / 86400), Math.floor(seconds / 3600) % 24, Math.floor(seconds / 60) % 60];
  if (days > 0) return `${days} d ${hours} h`;
  if (hours > 0) return `${hours} h ${minutes} min`;
  return minutes > 0 ? `${minutes} min` : `${Math.floor(seconds)} s`;
}

function facts(list, pairs) {
  const shown = pairs.filter(([, value]) => value !== null);
  list.replaceChildren(...shown.flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value)]));
}

const charts = {
  commits: new Chart(at("commits"), "Commits a second", ["commits"]),
  aborts: new Chart(at("aborts"), "Aborts and refusals a second", ["aborts", "refusals"]),
  latency: new Chart(at("latency"), "Latency in milliseconds", ["to verdict", "to visible everywhere"]),
};

// ---- what a daemon says of the group

function showBanner(state) {
  const banner = at("banner");
  const [kind, text] =
    state.removed !== null ? ["bad", `${state.node} is no member any more: ${state.removed}`]
    : !state.quorum ? ["bad", "No majority is in touch: writes are refused here."]
    : state.not_writable !== null ? ["warn", `No commit can be had on ${state.node}: ${state.not_writable}.`]
    : ["good", `${state.node} takes reads and writes.`];
  banner.dataset.kind = kind;
  say(banner, text);
}

function showHeader(state) {
  say(at("group"), state.group);
  say(at("node"), state.node);
  say(at("term"), String(state.term));
  say(at("version"), state.version);
  say(at("uptime"), span(state.uptime_s));
  document.title = `${state.group} · ${state.node}`;
}

const cards = new Map();

function card(name) {
  const state = make("span", { class: "state" });
  const badge = make("span", { class: "badge" });
  const list = make("dl");
  const copy = make("p", { hidden: "" }, make("label", {}, "Copy "), make("progress", { "aria-label": "Copy" }), make("output"));
  const details = make("details", { "data-member": name });
  details.append(make("summary", {}, make("span", { class: "name" }, name), " ", badge, state), list, copy);
  const item = make("li", {}, details);
  return { item, details, state, badge, list, copy };
}

function showCopy({ copy: place }, copy) {
  place.hidden = copy === null;
  if (copy === null) return;
  const [label, progress, output] = place.children;
  const what = copy.database === "" ? "the whole server" : copy.database;
  say(label, `Copy of ${what} from ${copy.from} `);
  progress.max = Math.max(copy.bytes_total, copy.bytes_done, 1);
  progress.value = copy.bytes_done;
  progress.setAttribute("aria-label", `Copy of ${what}`);
  const left = copy.seconds_left === null ? "" : `, ${span(copy.seconds_left)} left`;
  say(output, ` ${bytes(copy.bytes_done)} of ${bytes(copy.bytes_total)}${left}`);
}

function showMembers(state) {
  for (const member of state.members) {
    if (!cards.has(member.name)) {
      cards.set(member.name, card(member.name));
      at("member-list").append(cards.get(member.name).item);
    }
    const its = cards.get(member.name);
    its.details.dataset.state = member.state;
    say(its.badge, member.is_leader ? "leader" : "");
    const lag = member.lag === null || !member.is_up ? "" : `, ${shortly(member.lag)} behind`;
    say(its.state, `${SIGNS[member.state] ?? "?"} ${member.state}${lag}`);
    facts(its.list, [
      ["Address", member.address],
      ["Role", member.role + (member.is_me ? " (this node)" : "")],
      ["Daemon", member.is_me ? "this one" : member.is_up ? "connected" : "not connected"],
      ["Positions behind", member.lag === null ? null : shortly(member.lag)],
      ["Entries of the log to get", member.log_behind === null ? null : shortly(member.log_behind)],
    ]);
    showCopy(its, member.copy);
  }
  const names = new Set(state.members.map((member) => member.name));
  for (const [name, its] of cards) {
    if (names.has(name)) continue;
    its.item.remove();
    cards.delete(name);
  }
}

function showPositions(state) {
  const tables = state.databases.map((database) => {
    const standings = [...database.standings].sort((a, b) => a.member.localeCompare(b.member));
    const rows = standings.map((standing) => {
      const behind = Math.max(0, database.ordered - standing.committed);
      return make(
        "tr",
        {},
        make("th", { scope: "row" }, standing.member),
        make("td", {}, standing.is_out_of_service ? "out of service" : shortly(standing.committed)),
        make("td", {}, shortly(standing.flushed)),
        make("td", {}, shortly(behind)),
      );
    });
    const head = ["Member", "Visible up to", "On disk up to", "Behind"].map((name) => make("th", { scope: "col" }, name));
    const title = `${database.name}: ${database.state} here, ordered up to ${shortly(database.ordered)}, visible here up to ${shortly(database.applied)}`;
    const locks = database.locks_held + database.locks_waiting === 0 ? "" : `; locks held ${database.locks_held}, waited for ${database.locks_waiting}`;
    return make("table", {}, make("caption", {}, title + locks), make("thead", {}, make("tr", {}, ...head)), make("tbody", {}, ...rows));
  });
  at("database-list").replaceChildren(...(tables.length > 0 ? tables : [make("p", {}, "No database is replicated.")]));
}

// ---- what changes with time

const sum = (counts, leaving) => Object.entries(counts).reduce((all, [name, count]) => (name === leaving ? all : all + count), 0);

function middle(values) {
  if (values.length === 0) return null;
  return values.sort((a, b) => a - b)[Math.floor(values.length / 2)];
}

function everywhere(course) {
  if (!course.is_certified || course.missing.length > 0 || course.shown.length === 0) return null;
  return Math.max(...course.shown.map((shown) => shown.at_us)) / 1000;
}

function showTraffic(state, now) {
  if (last === null || state.uptime_s < last.uptime_s) return;
  const seconds = (now - lastAt) / 1000;
  const rate = (value, before) => Math.max(0, value - before) / seconds;
  const commits = rate(state.outcomes.certified, last.outcomes.certified);
  const aborts = rate(sum(state.outcomes, "certified"), sum(last.outcomes, "certified"));
  const refusals = rate(sum(state.refused), sum(last.refused));
  const recent = state.courses.filter((course) => course.began_ms > state.now_ms - 10_000);
  const verdict = middle(recent.map((course) => course.ordered_us / 1000));
  const visible = middle(recent.map(everywhere).filter((value) => value !== null));
  charts.commits.add(now, [commits]);
  charts.aborts.add(now, [aborts, refusals]);
  charts.latency.add(now, [verdict, visible]);
  say(at("commits-now"), shortly(commits));
  say(at("aborts-now"), `${shortly(aborts)} and ${shortly(refusals)}`);
  say(at("latency-now"), `${shortly(verdict)} and ${shortly(visible)}`);
}

function steps(course) {
  const found = [
    ["submitted", 0],
    [course.is_certified ? "ordered and certified" : "ordered and aborted: a conflict", course.ordered_us],
    ...course.shown.map((shown) => [`visible on ${shown.member}`, shown.at_us]),
  ];
  return found.sort((a, b) => a[1] - b[1]);
}

function showCourse(state) {
  const select = at("course");
  const newest = [...state.courses].reverse();
  const chosen = select.value;
  at("course-none").hidden = newest.length > 0;
  const known = [...select.options].map((option) => option.value).join();
  const wanted = newest.map((course) => `${course.database} ${course.position}`);
  if (document.activeElement !== select && known !== ["newest", ...wanted].join()) {
    select.replaceChildren(make("option", { value: "newest" }, "the newest"), ...wanted.map((name) => make("option", { value: name }, name)));
    select.value = [...select.options].some((option) => option.value === chosen) ? chosen : "newest";
  }
  const course = newest.find((one) => `${one.database} ${one.position}` === select.value) ?? newest[0];
  if (course === undefined) return;
  const found = steps(course);
  const longest = Math.max(1, ...found.map(([, at_us]) => at_us));
  const rows = found.map(([what, at_us]) => {
    const bar = make("span", { class: "bar" });
    bar.style.width = `${(at_us / longest) * 100}%`;
    return make("li", {}, make("span", {}, what), make("span", { class: "at" }, `${shortly(at_us / 1000)} ms`), bar);
  });
  const missing = course.missing.map((member) => make("li", {}, `not visible on ${member} within 10 s`));
  const about = make("li", { class: "note" }, `position ${course.position} of ${course.database}, ${bytes(course.bytes)}`);
  at("course-steps").replaceChildren(...rows, ...missing, about);
}

function showConflicts(state) {
  const rows = state.conflicts.map((one) =>
    make(
      "tr",
      {},
      make("td", {}, one.table === "" ? "(others)" : `${one.table} (${one.database})`),
      make("td", {}, one.key),
      make("td", {}, shortly(one.certification)),
      make("td", {}, shortly(one.victim)),
      make("td", {}, shortly(one.yielded)),
      make("td", {}, one.winner === "" ? "–" : `${one.winner}, position ${one.position}`),
    ),
  );
  const none = make("tr", {}, make("td", { colspan: "6" }, "None."));
  at("conflict-table").tBodies[0].replaceChildren(...(rows.length > 0 ? rows : [none]));
}

function showLog(state) {
  const log = state.log;
  const rate = last === null ? null : `${bytes(Math.max(0, log.bytes_written - last.log.bytes_written) / Math.max(1, state.uptime_s - last.uptime_s))}/s`;
  facts(at("log-facts"), [
    ["Entries that a majority has", shortly(log.committed)],
    ["Applied here", shortly(log.applied)],
    ["Kept", `${bytes(log.bytes_kept)} in ${log.segments} segments`],
    ["Written", rate],
    ["Free on its disk", log.bytes_free === null ? null : bytes(log.bytes_free)],
    ...state.certificates.map((one) => [
      one.is_authority ? "Authority" : "Certificate",
      `${one.name}, until ${new Date(one.expires_s * 1000).toISOString().slice(0, 10)}`,
    ]),
  ]);
  at("log-room").value = Math.min(1, log.bytes_kept / Math.max(1, log.bytes_max));
  say(at("log-room-text"), `${bytes(log.bytes_kept)} of ${bytes(log.bytes_max)}`);
}

function tell(text, at_ms = Date.now()) {
  const when = new Date(at_ms);
  const day = when.toDateString() === new Date().toDateString() ? "" : `${when.toLocaleDateString()} `;
  const time = make("time", { datetime: when.toISOString() }, day + when.toTimeString().slice(0, 8));
  at("event-list").prepend(make("li", {}, time, text));
  while (at("event-list").children.length > EVENTS_KEPT) at("event-list").lastElementChild.remove();
}

// What the daemon has recorded, also while nobody looked. Its events are numbered; a history that was deleted begins anew.
let newest = 0;

function showEvents(state) {
  const last = state.events.at(-1)?.number ?? 0;
  if (last < newest) newest = 0;
  state.events.filter((event) => event.number > newest).forEach((event) => tell(event.text, event.at_ms));
  newest = last;
}

// ---- the loop

function show(state) {
  const now = performance.now();
  showHeader(state);
  showBanner(state);
  showMembers(state);
  showPositions(state);
  showTraffic(state, now);
  showCourse(state);
  showConflicts(state);
  showLog(state);
  if (isSilent) tell("the daemon answers again");
  showEvents(state);
  isSilent = false;
  last = state;
  lastAt = now;
}

function silent(why) {
  const banner = at("banner");
  banner.dataset.kind = "bad";
  say(banner, `The daemon of this page does not answer (${why}). What is shown is old.`);
  if (!isSilent) tell("the daemon of this page does not answer");
  isSilent = true;
}

async function look() {
  const response = await fetch("/state", { signal: AbortSignal.timeout(PATIENCE_MS) });
  const body = await response.json();
  if (!response.ok) throw new Error(body.reason);
  return body;
}

async function run() {
  for (;;) {
    if (!isPaused && !document.hidden) {
      const state = await look().catch((error) => silent(error.message));
      if (state !== undefined && !isPaused) show(state);
    }
    await new Promise((resolve) => setTimeout(resolve, EVERY_MS));
  }
}

at("pause").addEventListener("click", () => {
  isPaused = !isPaused;
  at("pause").setAttribute("aria-pressed", String(isPaused));
  say(at("pause"), isPaused ? "Go on" : "Pause");
});
at("course").addEventListener("change", () => last !== null && showCourse(last));
run();
