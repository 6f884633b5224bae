"""The report's additions to the style of all pages, and the script that highlights cases."""

from __future__ import annotations

REPORT_STYLE = """
:root { --c0: #2563b0; --c1: #c4570b; --c2: #1c7f58; --c3: #8a4fae; --c4: #a06a00; --c5: #b03060;
  --mark: #111827; --on: #ffffff; }
@media (prefers-color-scheme: dark) { :root { --c0: #6aa9f4; --c1: #f39a4d; --c2: #58c79a; --c3: #c79be6;
  --c4: #e3bd4f; --c5: #f08aae; --mark: #ffffff; --on: #10131a; } }
.m0 { --c: var(--c0); } .m1 { --c: var(--c1); } .m2 { --c: var(--c2); } .m3 { --c: var(--c3); }
.m4 { --c: var(--c4); } .m5 { --c: var(--c5); }
body { max-width: 1320px; }
header h1 { overflow-wrap: anywhere; }
nav { position: sticky; top: 0; z-index: 3; background: var(--page); border-bottom: 1px solid var(--line);
  padding: .45rem 0; display: flex; flex-wrap: wrap; gap: .2rem 1.1rem; align-items: center; }
nav a { margin: 0; text-decoration: none; } nav a:hover { text-decoration: underline; }
nav label { margin-left: auto; color: var(--soft); font-size: 13px; }
nav input { font: inherit; font-size: 13px; color: var(--text); background: var(--panel); border: 1px solid var(--line);
  border-radius: 6px; padding: .2rem .5rem; width: 13em; }
h2, h3, h4, tr, figure { scroll-margin-top: 3.5rem; }
h4 { margin: 1.2rem 0 .3rem; font-size: .95rem; }
a:focus-visible, summary:focus-visible, svg:focus-visible, input:focus-visible { outline: 2px solid var(--link);
  outline-offset: 2px; border-radius: 3px; }
.models { display: flex; flex-wrap: wrap; gap: .3rem 1.3rem; margin: .5rem 0; padding: 0; list-style: none; }
.key { display: inline-block; width: .75em; height: .75em; border-radius: 50%; background: var(--c);
  margin-right: .45em; }
p b[class^=m], .dice b { color: var(--c); }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(270px, 100%), 1fr)); gap: .8rem; padding: 0;
  margin: .8rem 0 .4rem; list-style: none; max-width: 900px; }
.card { background: var(--panel); border: 1px solid var(--line); border-left: 5px solid var(--c); border-radius: 8px;
  padding: .7rem 1rem; break-inside: avoid; }
.card h4 { margin: 0 0 .3rem; overflow-wrap: anywhere; }
.card span { display: block; font-variant-numeric: tabular-nums; }
.card .big b { font-size: 1.9rem; line-height: 1.15; } .card .small { margin-top: .25rem; }
.card span.soft { font-size: 12.5px; }
.verdicts { border-left: 3px solid var(--line); padding-left: .9rem; margin: .7rem 0; } .verdicts p { max-width: 90ch; }
.charts { grid-template-columns: repeat(auto-fill, minmax(min(390px, 100%), 1fr)); }
.charts.narrow { grid-template-columns: repeat(auto-fill, minmax(min(270px, 100%), 1fr)); }
.charts figure { max-width: 560px; } .charts figcaption { font-size: 13.5px; margin-bottom: .35rem; }
.charts svg { max-height: 360px; } .charts text { font-size: 11px; font-family: inherit; }
.charts text.title { fill: var(--text); } .charts text.note { font-size: 9.5px; } .charts text.on { fill: var(--on); }
.grid { stroke: var(--line); stroke-width: .7; } .axis { stroke: var(--soft); stroke-width: 1; }
.zero { stroke: var(--soft); stroke-width: 1.1; stroke-dasharray: 2 3; }
.d { fill: var(--c); fill-opacity: .62; } .p { fill: var(--c); stroke: var(--panel); stroke-width: 1; }
.box { fill: var(--c); fill-opacity: .13; stroke: var(--c); stroke-opacity: .55; }
.median { stroke: var(--mark); stroke-width: 2; }
.fold { fill: none; stroke: var(--c); stroke-width: 1; stroke-opacity: .45; }
.mean { fill: none; stroke: var(--c); stroke-width: 2.2; stroke-linejoin: round; }
.bias { stroke: var(--c); stroke-width: 1.8; } .limit { stroke: var(--c); stroke-width: 1.2; stroke-dasharray: 6 4; }
.whisker { stroke: var(--c); stroke-width: 1.6; }
.tick { fill: var(--c); fill-opacity: .75; } .tick.detected { transform: scaleY(.55); transform-origin: center;
  transform-box: fill-box; fill-opacity: .45; }
.interval { stroke: var(--mark); stroke-width: 3; stroke-linecap: round; }
.estimate { fill: var(--page); stroke: var(--mark); stroke-width: 2.2; }
.bar { fill: var(--c); }
svg .hot { fill: var(--bad); fill-opacity: 1; stroke: var(--page); stroke-width: 1.5; }
svg circle.hot { r: 5.5px; } figure.hot { outline: 3px solid var(--bad); } tr.hot > * { background: var(--warnfill); }
#tip { position: fixed; z-index: 5; pointer-events: none; max-width: 22rem; padding: .35rem .6rem; border-radius: 6px;
  background: var(--text); color: var(--page); font-size: 12.5px; line-height: 1.35; }
#tip b { display: block; } #tip:empty { display: none; }
#kept { position: fixed; z-index: 4; right: 1rem; bottom: 1rem; background: var(--panel);
  border: 1px solid var(--line);
  border-left: 5px solid var(--bad); border-radius: 8px; padding: .5rem .9rem; box-shadow: 0 2px 12px #0003; }
#kept:empty { display: none; } #kept a, #kept button { margin-left: .8em; }
#kept button { font: inherit; color: inherit;
  background: none; border: 1px solid var(--line); border-radius: 5px; cursor: pointer; }
table.scores td, table.scores th, table.facts td, table.facts th { vertical-align: top; }
table.scores th[colspan] { border-left: 1px solid var(--line); } table.scores th[scope=row] { white-space: normal;
  min-width: 10em; } .charts + .charts, .charts + .scroll { margin-top: 1rem; }
table.scores td.score { min-width: 13em; } small { font-size: 11.5px; color: var(--soft); }
small .fewer { color: var(--warn); font-weight: 600; }
table.facts td { white-space: normal; overflow-wrap: anywhere; min-width: 12em; max-width: 34em; }
tbody th { position: static; font-weight: 500; background: none; }
.gallery { display: grid; gap: .9rem;
  grid-template-columns: repeat(auto-fill, minmax(min(calc(var(--columns) * 150px), 100%), 1fr)); }
.case { margin: 0; border: 1px solid var(--line); border-radius: 8px; padding: .6rem; background: var(--panel);
  break-inside: avoid; max-width: calc(var(--columns) * 230px); }
.case figcaption { font-size: 13.5px; margin-bottom: .4rem; overflow-wrap: anywhere; }
.why { border: 1px solid var(--line); border-radius: 99px; padding: 0 .55em; margin: 0 .3em; font-size: 12px; }
.planes { display: grid; grid-template-columns: repeat(var(--columns), 1fr); gap: 4px; background: #000; padding: 4px;
  border-radius: 4px; }
.planes img { display: block; width: 100%; aspect-ratio: 1; object-fit: contain; }
.planes .head { color: #cfd5de; font-size: 11px; text-align: center; overflow-wrap: anywhere; line-height: 1.25; }
.dice { font-size: 12px; margin: .45rem 0 0; } .dice span { display: block; }
@page { size: A4 portrait; margin: 12mm; }
@media print {
  :root { --c0: #2563b0; --c1: #c4570b; --c2: #1c7f58; --c3: #8a4fae; --c4: #a06a00; --c5: #b03060; --mark: #000;
    --on: #fff; }
  #tip, #kept { display: none; } h2 { margin-top: 1.2rem; }
  .cases table { font-size: 5.5pt; } .cases th, .cases td { padding: .1rem .2rem; } p.soft { break-after: avoid; }
  .charts, .charts.narrow { grid-template-columns: 1fr 1fr; gap: .6rem; } .charts svg { max-height: none; }
  .gallery { grid-template-columns: repeat(auto-fill, minmax(min(calc(var(--columns) * 80px), 100%), 1fr)); }
  svg *, .planes, .planes *, .key, .card { -webkit-print-color-adjust: exact; print-color-adjust: exact; }
}
"""

REPORT_SCRIPT = """
const CASES = JSON.parse(document.getElementById("viewer-names").textContent);
const [tip, kept, find] = ["tip", "kept", "find"].map(id => document.getElementById(id));
const marks = new Map();
for (const mark of document.querySelectorAll("[data-c], [data-case]")) {
  const number = mark.dataset.c ?? mark.dataset.case;
  if (!marks.has(number)) marks.set(number, []);
  marks.get(number).push(mark);
}
CASES.forEach((name, number) => {
  const row = document.getElementById("case-" + number);
  if (row) (marks.get("" + number) ?? marks.set("" + number, []).get("" + number)).push(row);
});
let hot = null, pinned = null;
const paint = (number, on) => (marks.get(number) ?? []).forEach(mark => {
  mark.classList.toggle("hot", on);
  if (on && mark.tagName === "circle") mark.parentNode.append(mark);  // on top of its neighbours
});
const heat = number => {
  if (hot === number) return;
  if (hot !== null && hot !== pinned) paint(hot, false);
  hot = number;
  if (hot !== null) paint(hot, true);
};
const pin = number => {
  if (pinned !== null) paint(pinned, false);
  pinned = number; hot = null; kept.replaceChildren();
  if (number === null) return;
  paint(number, true);
  const name = document.createElement("b");
  name.textContent = CASES[number];
  kept.append(name);
  for (const [id, what] of [["case-", "scores"], ["picture-", "pictures"]]) {
    if (!document.getElementById(id + number)) continue;
    const link = document.createElement("a");
    link.href = "#" + id + number; link.textContent = what;
    kept.append(link);
  }
  const close = document.createElement("button");
  close.textContent = "close"; close.onclick = () => pin(null);
  kept.append(close);
};
const show = mark => {
  tip.replaceChildren();
  heat(mark?.dataset.c ?? null);
  if (!mark) return;
  if (mark.dataset.c !== undefined) {
    const name = document.createElement("b");
    name.textContent = CASES[mark.dataset.c];
    tip.append(name);
  }
  tip.append(mark.dataset.t);
  const box = mark.getBoundingClientRect(), size = tip.getBoundingClientRect();
  tip.style.left = Math.max(4, Math.min(box.right + 10, innerWidth - size.width - 8)) + "px";
  tip.style.top = Math.max(4, Math.min(box.top - size.height - 6, innerHeight - size.height - 8)) + "px";
};
const REACH = 12;  // pixels within which the nearest dot is selected
for (const figure of document.querySelectorAll("svg[tabindex]")) {
  let own = null, at = -1;
  const list = () => own ??= [...figure.querySelectorAll("[data-t]")];
  const nearest = event => {
    const direct = event.target.closest("[data-t]");
    if (direct) return direct;
    let best = null, least = REACH * REACH;
    for (const mark of list()) {
      if (mark.tagName !== "circle") continue;
      const box = mark.getBoundingClientRect();
      const x = box.x + box.width / 2 - event.clientX, y = box.y + box.height / 2 - event.clientY;
      if (x * x + y * y < least) { least = x * x + y * y; best = mark; }
    }
    return best;
  };
  figure.addEventListener("pointermove", event => show(nearest(event)));
  figure.addEventListener("pointerleave", () => show(null));
  figure.addEventListener("blur", () => show(null));
  figure.addEventListener("click", event => { const mark = nearest(event); pin(mark?.dataset.c ?? null); });
  figure.addEventListener("keydown", event => {
    const steps = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 };
    if (event.key in steps && list().length) at = (at + steps[event.key] + list().length) % list().length;
    else if (event.key === "Enter" && at >= 0) { pin(list()[at].dataset.c ?? null); return; }
    else if (event.key === "Escape") { show(null); pin(null); return; }
    else return;
    event.preventDefault();
    show(list()[at]);
  });
}
find.addEventListener("input", () => {
  const number = CASES.indexOf(find.value);
  if (number >= 0) pin("" + number); else if (!find.value) pin(null);
});
addEventListener("beforeprint", () => document.querySelectorAll("details").forEach(part => { part.open = true; }));
"""
