"use strict";
/* Looks up what was computed when the page was made, compares it with the target, and shows it. No formula lives here. */
(() => {
const $ = id => document.getElementById(id);
const root = document.documentElement;
const themes = ["auto", "light", "dark"];
const setTheme = t => {
  if (t === "auto") delete root.dataset.theme; else root.dataset.theme = t;
  $("theme").textContent = "Theme: " + t;
  $("theme").dataset.now = t;
};
const findRun = $("find-run");
if (findRun) findRun.addEventListener("input", () => {
  const wanted = findRun.value.trim().toLowerCase();
  for (const group of document.querySelectorAll("#runs details.group")) {
    let shown = false, hidden = false;
    for (const row of group.querySelectorAll("tbody tr")) {
      // A run's first row holds its name; the rows of its other tests follow it.
      if (row.querySelector("b")) hidden = !row.textContent.toLowerCase().includes(wanted);
      row.classList.toggle("off", hidden);
      shown = shown || !hidden;
    }
    group.classList.toggle("off", !shown);
    group.open = wanted !== "" && shown;
  }
});
let kept = "auto";
try { kept = localStorage.getItem("edge-harness-theme") || "auto"; } catch { /* a file without storage */ }
setTheme(themes.includes(kept) ? kept : "auto");
$("theme").addEventListener("click", () => {
  const next = themes[(themes.indexOf($("theme").dataset.now) + 1) % 3];
  setTheme(next);
  try { localStorage.setItem("edge-harness-theme", next); } catch { /* not kept, then */ }
});

/* What a mark says, by pointer, finger or keyboard. */
const tip = $("tip");
const showTip = (x, y, text) => {
  tip.textContent = text; tip.hidden = false;
  const box = tip.getBoundingClientRect();
  tip.style.left = Math.max(6, Math.min(x + 12, innerWidth - box.width - 6)) + "px";
  tip.style.top = Math.max(6, y - box.height - 12) + "px";
};
document.addEventListener("pointerover", e => {
  const mark = e.target.closest && e.target.closest("svg.plot .mark");
  if (mark) showTip(e.clientX, e.clientY, mark.getAttribute("aria-label")); else tip.hidden = true;
});
document.addEventListener("keydown", e => { if (e.key === "Escape") tip.hidden = true; });

const holder = $("choices");
if (!holder) return;
const C = JSON.parse(holder.textContent);
const nq = C.quants.length, nc = C.contexts.length;
const WORD = {0: "fits", 1: "fits with streaming", 2: "does not fit", 3: "fits split", "-": "cannot be"};
const GLYPH = {0: "●", 1: "◐", 2: "✕", 3: "◑", "-": "·"};
const digits = v => v === 0 ? "0" : v >= 100 ? v.toFixed(0) : v >= 10 ? v.toFixed(1) : v >= 1 ? v.toFixed(2) : v.toPrecision(2);
const size = mib => mib >= 1024 ? (mib / 1024).toFixed(2) + " GiB" : mib + " MiB";
const tokens = n => n >= 1024 ? n / 1024 + "k" : String(n);
const cell = (d, m, q, c) => {
  const [v, speed, low, need, room, pool] = C.cells[((d * C.models.length + m) * nq + q) * nc + c];
  return {v, speed, low, need, room, pool, quality: C.quality[m * nq + q]};
};
/* The word after the target is asked for: a speed that is missed turns any verdict into a no. */
const judged = (a, target) => a.v !== "-" && a.v !== "2" && target > 0 && a.speed < target ? "2" : a.v;
const place = a => a.pool === "vram" ? "the card's memory" : "memory one app may use";
const reason = (a, target) => {
  if (a.v === "-") return "This model has no such quantisation or cache.";
  const room = size(a.need) + " needed of " + size(a.room) + " of " + place(a);
  if (a.v === "2") return room + ".";
  const how = a.v === "1" ? " The rest comes from storage for every token." : a.v === "3" ? " The rest lies with the CPU: `edge-harness fit` gives the flags." : "";
  if (target > 0 && a.speed < target) return digits(a.speed) + " tokens/s expected, " + digits(target) + " wanted; " + room + "." + how;
  return room + "." + how;
};

const asks = {d: $("ask-device"), m: $("ask-model"), q: $("ask-quant"), c: $("ask-context"), t: $("ask-target")};
const fill = (select, names, start) => {
  names.forEach((name, i) => select.add(new Option(name, i)));
  select.value = start;
};
const kinds = new Map();
C.devices.forEach((d, i) => {
  if (!kinds.has(d.kind)) { const g = document.createElement("optgroup"); g.label = d.kind; kinds.set(d.kind, g); asks.d.append(g); }
  kinds.get(d.kind).append(new Option(d.title + " · " + Math.round(d.ram_mib / 1024) + " GiB", i));
});
asks.d.value = holder.dataset.device;
fill(asks.m, C.models.map(m => m.title + (m.parameters_b ? " · " + digits(m.parameters_b) + "B" : "")), holder.dataset.model);
fill(asks.q, C.quants, C.default_quant);
fill(asks.c, C.contexts.map(tokens), C.default_context);
const now = () => ({d: +asks.d.value, m: +asks.m.value, q: +asks.q.value, c: +asks.c.value, t: Math.max(0, +asks.t.value || 0)});

const pill = v => { const s = document.createElement("span"); s.className = "pill v" + (v === "-" ? "x" : v); s.textContent = GLYPH[v] + " " + WORD[v]; return s; };
const bar = (share, mark) => {
  const ns = "http://www.w3.org/2000/svg", svg = document.createElementNS(ns, "svg");
  svg.setAttribute("class", "bar"); svg.setAttribute("viewBox", "0 0 100 8"); svg.setAttribute("preserveAspectRatio", "none"); svg.setAttribute("aria-hidden", "true");
  const r = document.createElementNS(ns, "rect"); r.setAttribute("height", 8); r.setAttribute("width", Math.max(0.5, 100 * share)); svg.append(r);
  if (mark > 0 && mark <= 1) { const k = document.createElementNS(ns, "rect"); k.setAttribute("class", "target"); k.setAttribute("height", 8); k.setAttribute("width", 1.2); k.setAttribute("x", 100 * mark - 0.6); svg.append(k); }
  return svg;
};
const td = (...parts) => { const e = document.createElement("td"); e.append(...parts); return e; };
const loss = q => q === null ? "not published" : q === 0 ? "none" : (q > 0 ? "+" : "−") + (Math.abs(q) / 10).toFixed(1) + " %";

const answer = () => {
  const s = now(), a = cell(s.d, s.m, s.q, s.c), v = judged(a, s.t), dev = C.devices[s.d], mod = C.models[s.m];
  const big = $("big"); big.replaceChildren(pill(v), " ");
  if (v === "2" && a.v !== "2") big.append("too slow");
  else if (a.v !== "2" && a.v !== "-") big.append("about " + digits(a.speed) + " tokens/s");
  $("reason").textContent = reason(a, s.t);
  const facts = [];
  facts.push(["Memory", size(a.need) + " of " + size(a.room) + " (" + Math.round(100 * a.need / Math.max(1, a.room)) + " %)"]);
  if (a.speed > 0) facts.push(["Speed", digits(a.speed) + " tokens/s expected, " + digits(a.low) + " or more with 95 % confidence"]);
  if (s.t > 0 && a.v !== "-" && a.v !== "2") facts.push(["Target", a.low >= s.t ? "reached, even at the pessimistic end" : a.speed >= s.t ? "reached as expected, not at the pessimistic end" : "missed"]);
  facts.push(["Quality", "perplexity over F16: " + loss(a.quality)]);
  facts.push(["Device", dev.api + ", " + dev.bandwidth_gb_per_s + " GB/s, storage " + dev.flash_mb_per_s + " MB/s"]);
  if (mod.context_max_tokens && C.contexts[s.c] > mod.context_max_tokens) facts.push(["Note", "the model was made for " + tokens(mod.context_max_tokens) + " tokens of context at most"]);
  $("facts").replaceChildren(...facts.flatMap(([k, t]) => { const dt = document.createElement("dt"), dd = document.createElement("dd"); dt.textContent = k; dd.textContent = t; return [dt, dd]; }));
  const all = C.quants.map((_, q) => cell(s.d, s.m, q, s.c));
  const most = Math.max(...all.map(x => x.v === "2" || x.v === "-" ? 0 : x.speed), s.t, 1e-9);
  $("quants").replaceChildren(...all.map((x, q) => {
    const row = document.createElement("tr"), gone = x.v === "2" || x.v === "-";
    if (q === s.q) row.setAttribute("aria-current", "true");
    row.append(td(C.quants[q]), td(pill(judged(x, s.t))), td(size(x.need)), td(gone ? "–" : digits(x.speed)), td(gone ? "" : bar(x.speed / most, s.t / most)), td(loss(x.quality)));
    row.children[2].className = row.children[3].className = "n";
    return row;
  }));
};

/* The matrix: rows and columns stand in the page; this only writes what each cell says now. */
const body = $("cells");
const rows = [...body.querySelectorAll("tr[data-d]")];
const paint = () => {
  const s = now(), count = {0: 0, 1: 0, 2: 0, 3: 0, "-": 0};
  for (const row of rows) {
    const d = +row.dataset.d;
    for (let m = 0; m < C.models.length; m++) {
      const a = cell(d, m, s.q, s.c), v = judged(a, s.t), e = row.cells[m + 1];
      e.className = "v" + (v === "-" ? "x" : v) + (e.classList.contains("offc") ? " offc" : "");
      e.textContent = v === "0" ? digits(a.speed) : v === "1" || v === "3" ? GLYPH[v] + " " + digits(a.speed) : GLYPH[v];
      count[v]++;
    }
  }
  $("count").textContent = count[0] + " fit, " + count[3] + " fit split, " + count[1] + " fit with streaming, " + count[2] + " do not, of " + (count[0] + count[1] + count[2] + count[3]) +
    " combinations in " + C.quants[s.q] + " with " + tokens(C.contexts[s.c]) + " tokens of context" + (s.t > 0 ? " at " + digits(s.t) + " tokens/s or more" : "");
};
const say = e => {
  const d = +e.parentNode.dataset.d, m = e.cellIndex - 1, s = now(), a = cell(d, m, s.q, s.c), v = judged(a, s.t);
  const w = $("why"); const b = document.createElement("b");
  b.textContent = C.models[m].title + " on " + C.devices[d].title + ": ";
  w.replaceChildren(b, pill(v), " " + reason(a, s.t) + (a.speed > 0 ? " " + digits(a.speed) + " tokens/s expected, " + digits(a.low) + " at the pessimistic end." : ""));
};
let at = null;
const select = (e, focus) => {
  if (at) { at.tabIndex = -1; at.removeAttribute("aria-selected"); }
  at = e; e.tabIndex = 0; e.setAttribute("aria-selected", "true");
  if (focus) e.focus();
};
const visible = list => list.filter(x => x.offsetParent !== null);
body.addEventListener("pointerover", e => { if (e.target.tagName === "TD") say(e.target); });
body.addEventListener("focusin", e => { if (e.target.tagName === "TD") { select(e.target); say(e.target); } });
const take = e => { select(e); say(e); asks.d.value = e.parentNode.dataset.d; asks.m.value = e.cellIndex - 1; answer(); };
body.addEventListener("click", e => { if (e.target.tagName === "TD") take(e.target); });
body.addEventListener("keydown", e => {
  if (e.target.tagName !== "TD") return;
  const row = visible(rows), cells = visible([...e.target.parentNode.cells].slice(1));
  const r = row.indexOf(e.target.parentNode), c = cells.indexOf(e.target);
  const go = {ArrowRight: [r, c + 1], ArrowLeft: [r, c - 1], ArrowDown: [r + 1, c], ArrowUp: [r - 1, c], Home: [r, 0], End: [r, cells.length - 1], PageDown: [Math.min(r + 10, row.length - 1), c], PageUp: [Math.max(r - 10, 0), c]}[e.key];
  if (e.key === "Enter" || e.key === " ") { e.preventDefault(); take(e.target); $("whatif").scrollIntoView({block: "start"}); return; }
  if (!go) return;
  e.preventDefault();
  const to = row[go[0]] && visible([...row[go[0]].cells].slice(1))[go[1]];
  if (to) select(to, true);
});
const filter = () => {
  const d = $("find-device").value.trim().toLowerCase(), m = $("find-model").value.trim().toLowerCase();
  for (const row of rows) { const x = C.devices[+row.dataset.d]; row.classList.toggle("off", !(x.title + " " + x.name + " " + x.kind).toLowerCase().includes(d)); }
  for (const k of body.querySelectorAll("tr.kind")) { let n = k.nextElementSibling, any = false; while (n && !n.classList.contains("kind")) { any = any || !n.classList.contains("off"); n = n.nextElementSibling; } k.classList.toggle("off", !any); }
  C.models.forEach((x, i) => {
    const off = !(x.title + " " + x.name).toLowerCase().includes(m);
    $("heads").cells[i + 1].classList.toggle("offc", off);
    for (const row of rows) row.cells[i + 1].classList.toggle("offc", off);
  });
};
for (const k of ["q", "c", "t"]) asks[k].addEventListener("input", () => { answer(); paint(); });
for (const k of ["d", "m"]) asks[k].addEventListener("input", answer);
$("find-device").addEventListener("input", filter);
$("find-model").addEventListener("input", filter);
if (rows[0]) select(rows[0].cells[1]);
answer(); paint();
})();
