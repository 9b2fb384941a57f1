// The calendar by mouse, touch and keys: choose a time and GPUs and the form opens filled in; move the end of a booking
// of one's own, or the start of one that has not begun. Everything here has a link or form beside it that works without. Places are classes of app.css (.s0 to
// .s336, .w1 to .w336), moments are minutes since 1970.

const UNITS = 336, HOLD = 350, SLACK = 5, EDGE = 10, USUAL = 240;
const dialog = document.getElementById("quick");
const spoken = document.getElementById("dragging");
const tip = document.getElementById("tip");
let busy = null; // what is being chosen or moved, until it is let go
let dropClick = false; // the click that ends a drag is none

const sheet = () => document.querySelector(".timeline[data-cells]");
const edges = () => { // the first moment and each cell's minutes stand there
  let moment = 0;
  return sheet().dataset.cells.split(" ").map((minutes) => (moment += Number(minutes)));
};
const step = () => Number(sheet().dataset.step) / 60;
const now = () => Math.floor(Date.now() / 60000);

function minuteAt(unit) {
  const all = edges(), place = Math.min(Math.max(unit / UNITS, 0), 1) * (all.length - 1);
  const cell = Math.min(Math.floor(place), all.length - 2);
  return all[cell] + (place - cell) * (all[cell + 1] - all[cell]);
}

function unitAt(minute) {
  const all = edges();
  const after = all.findIndex((edge) => edge > minute);
  if (after === -1) return UNITS;
  if (after === 0) return 0;
  return Math.round((after - 1 + (minute - all[after - 1]) / (all[after] - all[after - 1])) * UNITS / (all.length - 1));
}

const snap = (minute, round) => edges()[0] + round((minute - edges()[0]) / step()) * step();

function minuteUnder(lane, event) {
  const box = lane.getBoundingClientRect();
  return minuteAt((event.clientX - box.left) / box.width * UNITS);
}

// ---- words

function parts(minute) {
  const format = new Intl.DateTimeFormat("en", {
    timeZone: sheet().dataset.zone, hourCycle: "h23", year: "numeric", month: "2-digit", day: "2-digit",
    hour: "2-digit", minute: "2-digit",
  });
  return Object.fromEntries(format.formatToParts(minute * 60000).map(({ type, value }) => [type, value]));
}

function said(minute) {
  return new Intl.DateTimeFormat(dialog.dataset.lang, {
    timeZone: sheet().dataset.zone, hourCycle: "h23", weekday: "short", hour: "2-digit", minute: "2-digit",
  }).format(minute * 60000);
}

const fill = (text, values) => text.replace(/\{(\w+)\}/g, (all, name) => values[name] ?? all);
const numberOf = (lane) => lane.getAttribute("aria-label").match(/\d+$/)?.[0] ?? "";

function words({ lanes, from, to }) {
  const host = lanes[0].closest("tbody").querySelector("[id^='host-']").textContent;
  const gpus = fill(dialog.dataset.one, { host, numbers: lanes.map(numberOf).join(", ") });
  return fill(dialog.dataset.span, { gpus, start: from <= now() ? dialog.dataset.now : said(from), end: said(to) });
}

// ---- what is chosen, drawn

function clear() {
  for (const ghost of document.querySelectorAll(".ghost")) ghost.remove();
  busy?.bar?.classList.remove("moving");
}

function draw() {
  clear();
  const { lanes, from, to } = busy;
  const start = Math.min(unitAt(from), UNITS - 1), width = Math.max(unitAt(to) - start, 1);
  for (const lane of lanes) {
    const ghost = document.createElement("li");
    ghost.className = `ghost s${start} w${width}`;
    ghost.setAttribute("aria-hidden", "true");
    lane.append(ghost);
  }
  busy.bar?.classList.add("moving");
  say(busy.bar ? said(busy.edge === "start" ? from : to) : words(busy));
}

let saying;
function say(text) { // shown at once beside the pointer, spoken once it rests
  clearTimeout(saying);
  saying = setTimeout(() => {
    if (!busy) return;
    const data = dialog.dataset;
    if (!busy.bar) spoken.textContent = fill(data.choosing, { span: text });
    else if (busy.edge === "start") spoken.textContent = fill(data.starting, { start: text });
    else spoken.textContent = fill(data.moving, { end: text });
  }, 300);
}

function drop() {
  clear();
  busy = null;
  spoken.textContent = "";
}

function finish() {
  const done = busy;
  drop();
  if (done.bar) {
    if (edgeOf(done) !== done.was) moveEdge(done);
  } else {
    openForm(done);
  }
}

function choose(lanes, one, other) {
  const from = Math.max(Math.min(one, other), now()), to = Math.max(one, other);
  Object.assign(busy, { lanes, from, to: Math.max(to, Math.ceil((from + 1) / step()) * step()) });
  draw();
}

// ---- an edge of a booking: its end, or while it has not begun its start; one that lies in view

const edgeOf = ({ edge, from, to }) => (edge === "start" ? from : to);

function canMove(bar, edge) {
  const link = bar?.querySelector("a[data-end]");
  if (!link || bar.classList.contains(edge === "start" ? "before" : "after")) return false;
  return edge === "end" || Number(link.dataset.start) > now();
}

function edgeUnder(bar, x) {
  const { left, right, width } = bar.getBoundingClientRect(), near = Math.min(EDGE, width / 2);
  if (right - x <= near && canMove(bar, "end")) return "end";
  return x - left <= near && canMove(bar, "start") ? "start" : null;
}

function grab(bar, lane, edge) {
  const { start, end } = bar.querySelector("a").dataset;
  busy = { bar, edge, lanes: [lane], from: Number(start), to: Number(end) };
  busy.was = edgeOf(busy);
}

function stretch(minute) {
  if (busy.edge === "start") {
    busy.from = Math.max(Math.min(minute, snap(busy.to, Math.ceil) - step()), snap(now(), Math.ceil));
  } else {
    busy.to = Math.max(minute, snap(Math.max(busy.from, now()), Math.floor) + step());
  }
  draw();
}

// ---- the form

function openForm(choice) {
  const form = dialog.querySelector("form"), start = parts(choice.from), end = parts(choice.to);
  const past = choice.from <= now();
  form.elements.start_date.value = `${start.year}-${start.month}-${start.day}`;
  form.elements.start_time.value = past ? "" : `${start.hour}:${start.minute}`;
  form.elements.end_date.value = `${end.year}-${end.month}-${end.day}`;
  form.elements.end_time.value = `${end.hour}:${end.minute}`;
  form.elements.count.value = choice.lanes.length;
  form.elements.request_key.value = newKey();
  document.getElementById("quick-gpus").replaceChildren(...choice.lanes.map((lane) => {
    const field = document.createElement("input");
    Object.assign(field, { type: "hidden", name: "gpu", value: lane.dataset.gpu });
    return field;
  }));
  document.getElementById("quick-title").textContent = words(choice);
  dialog.showModal();
  askPrice();
}

// Another choice is another booking, also where the page itself is an old one that "Back" has brought again.
function newKey() {
  return [...crypto.getRandomValues(new Uint8Array(12))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

let asking;
async function askPrice() {
  asking?.abort();
  asking = new AbortController();
  const values = new URLSearchParams(new FormData(dialog.querySelector("form")));
  for (const name of ["csrf_token", "request_key"]) values.delete(name);
  const more = document.getElementById("quick-more");
  more.href = `${more.dataset.href}?check=1&${values}`;
  try {
    const answer = await fetch(`${dialog.dataset.sentence}?${values}`, {
      headers: { "HX-Request": "true" }, signal: asking.signal,
    });
    if (answer.status === 200) {
      const found = new DOMParser().parseFromString(await answer.text(), "text/html").getElementById("sentence");
      const line = document.getElementById("sentence");
      line.className = found.className;
      line.textContent = found.textContent;
    }
  } catch { // a later question, or nobody there: "Book" will say
  }
}

function moveEdge(done) {
  const { bar, edge, was } = done, iso = (minute) => new Date(minute * 60000).toISOString();
  const id = parseInt(bar.querySelector("a").getAttribute("href").match(/\w+$/)[0], 36);
  const token = dialog.querySelector("[name=csrf_token]").value;
  window.htmx.ajax("POST", sheet().dataset.move.replace("/1/end", `/${id}/${edge}`), {
    target: "#week", swap: "outerHTML", values: { at: iso(edgeOf(done)), seen: iso(was), csrf_token: token },
  });
}

if (dialog) {
  let typing;
  dialog.addEventListener("input", () => {
    clearTimeout(typing);
    typing = setTimeout(askPrice, 200);
  });
  dialog.addEventListener("click", (event) => {
    if (event.target.closest("[data-close]")) dialog.close();
  });
}

// ---- mouse and touch

const lanesOf = (lane) => [...lane.closest("tbody").querySelectorAll(".lane[data-gpu]")];

function between(lanes, one, other) {
  const [first, last] = [lanes.indexOf(one), lanes.indexOf(other)].sort((a, b) => a - b);
  return lanes.slice(first, last + 1);
}

function laneAt(lanes, y) {
  return lanes.findLast((lane) => lane.getBoundingClientRect().top <= y) ?? lanes[0];
}

let press = null;
document.addEventListener("pointerdown", (event) => {
  const lane = event.target.closest?.(".lane[data-gpu]");
  if (!lane || event.button || !dialog || busy) return;
  const bar = event.target.closest("li:not(.gap)"), edge = bar && edgeUnder(bar, event.clientX);
  if (bar && !edge) return;
  press = { lane, bar, edge, x: event.clientX, y: event.clientY, at: minuteUnder(lane, event), on: false };
  if (event.pointerType === "touch") press.timer = setTimeout(begin, HOLD); // a shorter one scrolls
});

function begin() {
  press.on = true;
  dropClick = true;
  if (press.bar) {
    grab(press.bar, press.lane, press.edge);
    draw();
    return;
  }
  busy = { lanes: [press.lane] };
  choose([press.lane], snap(press.at, Math.floor), snap(press.at, Math.floor) + step());
}

document.addEventListener("pointermove", (event) => {
  if (!press) {
    const bar = event.target.closest?.(".lane li.mine");
    bar?.classList.toggle("grip", edgeUnder(bar, event.clientX) !== null);
    return;
  }
  const far = Math.hypot(event.clientX - press.x, event.clientY - press.y) > SLACK;
  if (!press.on && far) {
    if (press.timer) {
      letGo();
      return;
    }
    begin();
  }
  if (!press.on) return;
  const minute = minuteUnder(press.lane, event);
  if (press.bar) {
    stretch(snap(minute, Math.round));
    return;
  }
  const lanes = lanesOf(press.lane), forward = minute >= press.at;
  const start = snap(press.at, forward ? Math.floor : Math.ceil);
  choose(between(lanes, press.lane, laneAt(lanes, event.clientY)), start, snap(minute, forward ? Math.ceil : Math.floor));
});

function letGo() {
  clearTimeout(press?.timer);
  press = null;
}

document.addEventListener("pointerup", (event) => {
  if (!press) return;
  const { on, lane, at, bar } = press;
  letGo();
  if (on) finish();
  else if (!bar && event.target === lane) { // a click where there is no link
    const from = Math.max(snap(at, Math.floor), now());
    openForm({ lanes: [lane], from, to: snap(from, Math.floor) + USUAL });
  }
  setTimeout(() => { dropClick = false; }, 0);
});
document.addEventListener("pointercancel", () => {
  letGo();
  if (busy) drop();
});
document.addEventListener("click", (event) => {
  if (dropClick && event.target.closest(".lane")) event.preventDefault();
  dropClick = false;
}, true);
document.addEventListener("dragstart", (event) => {
  if (event.target.closest?.(".lane")) event.preventDefault();
});
document.addEventListener("touchmove", (event) => {
  if (press?.on) event.preventDefault(); // what chooses does not scroll
}, { passive: false });
document.addEventListener("contextmenu", (event) => {
  if (press) event.preventDefault();
});

// ---- keys

const EDGES = { s: "start", e: "end" }; // which one the arrows move; single letters, that app.js has switched off or not
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

function stops(row) {
  return [...row.querySelectorAll("th a[href], .lane a[href]")];
}

function go(link, [across, down]) {
  const row = link.closest("tr");
  if (across) {
    const all = stops(row).sort((a, b) => a.getBoundingClientRect().left - b.getBoundingClientRect().left);
    all[all.indexOf(link) + across]?.focus();
    return;
  }
  const rows = [...sheet().querySelectorAll("tbody tr")], left = link.getBoundingClientRect().left;
  const next = rows[rows.indexOf(row) + down];
  const near = next && [...next.querySelectorAll("a[href]")].sort((a, b) =>
    Math.abs(a.getBoundingClientRect().left - left) - Math.abs(b.getBoundingClientRect().left - left))[0];
  near?.focus();
}

function unitOf(link) {
  return Number(link.closest("li")?.className.match(/\bs(\d+)/)?.[1] ?? unitAt(now()));
}

function choosing(link, [across, down]) {
  const lane = link.closest("tr").querySelector(".lane[data-gpu]");
  if (!busy) {
    const own = link.dataset.end && link.closest("li");
    if (own && across) {
      const edge = ["end", "start"].find((one) => canMove(own, one));
      if (!edge) return;
      grab(own, lane, edge);
    } else if (lane && !own) {
      const from = Math.max(snap(minuteAt(unitOf(link)), Math.ceil), snap(now(), Math.floor));
      busy = { lanes: [lane], first: lane, last: lane, since: from };
      choose([lane], from, from + step());
      return;
    } else {
      return;
    }
  }
  if (busy.bar) {
    stretch(edgeOf(busy) + across * step());
    return;
  }
  const lanes = lanesOf(busy.first);
  busy.last = lanes[Math.min(Math.max(lanes.indexOf(busy.last) + down, 0), lanes.length - 1)];
  const to = Math.max(busy.to + across * step(), busy.since + step());
  choose(between(lanes, busy.first, busy.last), busy.since, Math.min(to, edges().at(-1)));
}

document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") {
    tip?.setAttribute("hidden", "");
    if (busy) {
      letGo();
      drop();
    }
    return;
  }
  const link = event.target.closest?.(".timeline a");
  if (!link || !sheet() || event.ctrlKey || event.altKey || event.metaKey) return;
  const arrow = ARROWS[event.key];
  if (arrow) {
    event.preventDefault();
    if (event.shiftKey) choosing(link, arrow);
    else if (!busy) go(link, arrow);
  } else if (event.key === "Enter" && busy) {
    event.preventDefault();
    finish();
  } else if (event.key in EDGES && !localStorage.getItem(KEYS) && canMove(link.closest(".lane li"), EDGES[event.key])) {
    grab(link.closest("li"), link.closest(".lane"), EDGES[event.key]);
    draw();
  }
});
document.addEventListener("focusout", (event) => {
  if (busy && !press && event.target.closest?.(".timeline")) drop();
});

// ---- the name of what one points at, or has the focus

function showTip(link) {
  tip.textContent = `${link.closest(".lane").getAttribute("aria-label")}: ${link.getAttribute("aria-label")}`;
  tip.hidden = false;
  const box = link.getBoundingClientRect(), width = tip.offsetWidth;
  tip.style.left = `${Math.max(4, Math.min(box.left, innerWidth - width - 4))}px`;
  tip.style.top = `${box.bottom + 4 + tip.offsetHeight > innerHeight ? box.top - tip.offsetHeight - 4 : box.bottom + 4}px`;
}
for (const [on, off] of [["pointerover", "pointerout"], ["focusin", "focusout"]]) {
  document.addEventListener(on, (event) => {
    const link = event.pointerType === "touch" ? null : event.target.closest?.(".lane a[aria-label]");
    if (link && tip && !press?.on) showTip(link);
  });
  document.addEventListener(off, () => tip?.setAttribute("hidden", ""));
}

// ---- what changes by itself never takes away what is being chosen, nor the place one has scrolled to

let scrolled = 0;
document.addEventListener("htmx:beforeRequest", (event) => {
  if (event.target.id === "live" && (busy || press || document.hidden)) event.preventDefault();
});
document.addEventListener("htmx:beforeSwap", (event) => {
  if (event.detail.target?.id === "grid" && (busy || press)) event.detail.shouldSwap = false;
  scrolled = sheet()?.scrollLeft ?? 0;
  tip?.setAttribute("hidden", "");
});
document.addEventListener("htmx:beforeOnLoad", (event) => { // signed out meanwhile: not away from what is half typed
  if (event.target.id === "live" && dialog?.open && event.detail.xhr.getResponseHeader("HX-Redirect")) {
    event.preventDefault();
  }
});
document.addEventListener("htmx:afterSwap", () => {
  if (sheet()) sheet().scrollLeft = scrolled;
});
