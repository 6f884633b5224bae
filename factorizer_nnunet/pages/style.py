"""The style of all pages, and the script that sorts their tables; pages also work without it."""

from __future__ import annotations

STYLE = """
:root { color-scheme: light dark;
  --page: #ffffff; --panel: #f5f6f8; --line: #d9dce2; --text: #1c2027; --soft: #5c6573;
  --bad: #c62828; --badfill: #fdecea; --warn: #8a5a00; --warnfill: #fff5dd; --link: #1f5fbf; }
@media (prefers-color-scheme: dark) { :root {
  --page: #14171c; --panel: #1d2128; --line: #353b46; --text: #e6e9ee; --soft: #9aa4b2;
  --bad: #ff6b61; --badfill: #3a1c1c; --warn: #ffca5f; --warnfill: #352a12; --link: #83b4ff; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1400px; padding: 1.5rem; background: var(--page); color: var(--text);
  overflow-wrap: break-word;
  font: 15px/1.45 system-ui, -apple-system, "Segoe UI", "Helvetica Neue", Arial, sans-serif; }
h1 { font-size: 1.6rem; margin: 0 0 .2rem; }
h2 { font-size: 1.15rem; margin: 2.2rem 0 .6rem; padding-top: .5rem; border-top: 1px solid var(--line); }
h3 { font-size: 1rem; margin: 1.2rem 0 .4rem; }
p { margin: .4rem 0; max-width: 75ch; }
a { color: var(--link); }
.soft { color: var(--soft); }
.bad { color: var(--bad); font-weight: 600; }
nav { margin: .8rem 0; } nav a { margin-right: 1.1em; display: inline-block; }
.numbers { display: flex; flex-wrap: wrap; gap: .6rem; margin: 1.1rem 0; padding: 0; list-style: none; }
.numbers li { background: var(--panel); border: 1px solid var(--line); border-radius: 8px; padding: .5rem .9rem; }
.numbers b { display: block; font-size: 1.45rem; font-variant-numeric: tabular-nums; line-height: 1.2; }
.numbers .alarm { background: var(--badfill); border-color: var(--bad); }
.warning { background: var(--warnfill); border-left: 4px solid var(--warn); padding: .5rem .8rem; max-width: none; }
.sheet { display: grid; grid-template-columns: repeat(auto-fill, minmax(var(--tile), 1fr)); gap: 8px; }
.tile { min-width: 0; border: 3px solid transparent; border-radius: 5px; break-inside: avoid; }
button.picture { all: unset; display: block; width: 100%; cursor: pointer; }
button.picture:focus-visible { outline: 2px solid var(--link); outline-offset: 2px; }
.tile:hover { border-color: var(--link); } .tile a { color: inherit; }
.tile.odd { border-color: var(--bad); }
.sheet img, .pair img { display: block; width: 100%; aspect-ratio: 1; object-fit: contain; background: #000; }
.sheet span { display: block; font-size: 11px; line-height: 1.3; padding: 2px 3px; overflow-wrap: break-word; }
.legend { display: flex; flex-wrap: wrap; gap: .3rem 1.2rem; margin: .4rem 0 .8rem; }
.legend i { display: inline-block; width: .8em; height: .8em; border-radius: 2px; margin-right: .4em; }
.legend i.line { width: 2.4em; height: .9em; vertical-align: -.1em; background:
  repeating-linear-gradient(90deg, var(--k) 0 var(--drawn), transparent 0 var(--period)) center / 100% 3px no-repeat,
  color-mix(in srgb, var(--k) 15%, #000); }
.legend i.frame { border: 3px solid var(--bad); }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(280px, 1fr)); gap: 1rem; }
.charts figure { margin: 0; background: var(--panel); border: 1px solid var(--line); border-radius: 8px;
  padding: .6rem .8rem; max-width: 460px; break-inside: avoid; }
.charts svg { display: block; width: 100%; height: auto; }
.charts text { fill: var(--soft); font-size: 10px; } .charts .axis { stroke: var(--line); }
.pairs { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(440px, 100%), 1fr)); gap: 1rem;
  margin: .8rem 0; }
.pair { margin: 0; border: 1px solid var(--line); border-radius: 8px; padding: .6rem; background: var(--panel);
  break-inside: avoid; }
.pair.odd { border: 2px solid var(--bad); }
.pair button { display: grid; grid-template-columns: 1fr 1fr 1fr; gap: 6px; font-size: 12px; }
.pair figcaption { margin-top: .4rem; font-size: 13px; overflow-wrap: anywhere; }
.scroll { overflow: auto; max-height: 80vh; width: fit-content; max-width: 100%; border: 1px solid var(--line);
  border-radius: 6px; }
table { border-collapse: collapse; font-size: 13px; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .6rem; text-align: left; vertical-align: top; border-bottom: 1px solid var(--line); }
th { background: var(--panel); position: sticky; top: 0; white-space: nowrap; }
th button { all: unset; cursor: pointer; } th button:focus-visible { outline: 2px solid var(--link); }
th[aria-sort=ascending] button::after { content: " \\2191"; }
th[aria-sort=descending] button::after { content: " \\2193"; }
td { white-space: nowrap; } td.number { text-align: right; }
td.path, td.words { white-space: normal; overflow-wrap: anywhere; min-width: min(20em, 45vw); max-width: 46em; }
tr:target { background: var(--warnfill); } tr.odd td:first-child { border-left: 3px solid var(--bad); }
summary { cursor: pointer; margin: .6rem 0; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .25rem 1.2rem; } dt { color: var(--soft); }
dd { margin: 0; overflow-wrap: anywhere; }
@page { size: landscape; margin: 12mm; }
@media print {
  :root { --page: #fff; --panel: #fff; --line: #bbb; --text: #000; --soft: #444; --bad: #c62828; --badfill: #fff;
    --warn: #8a5a00; --warnfill: #fff; --link: #000; }
  body { max-width: none; padding: 0; font-size: 10pt; } nav { display: none; }
  .scroll { overflow: visible; max-height: none; border: 0; } th { position: static; white-space: normal; }
  thead { display: table-header-group; }
  table { font-size: 7pt; } th, td { padding: .15rem .35rem; }
  td.path, td.words { min-width: 0; } h2 { break-after: avoid; } tr { break-inside: avoid; }
  .legend i, .charts rect { -webkit-print-color-adjust: exact; print-color-adjust: exact; }
}
"""

SCRIPT = """
for (const button of document.querySelectorAll("button[data-csv]")) button.onclick = () => {
  const rows = [...button.closest("section").querySelector("table.sortable").rows];
  const text = cell => (cell.dataset.value ?? cell.textContent).trim();
  const quoted = cell => `"${text(cell) === "–" ? "" : text(cell).replaceAll('"', '""')}"`;
  const link = document.createElement("a");
  const lines = rows.map(row => [...row.cells].map(quoted).join(",")).join("\\r\\n");
  link.href = URL.createObjectURL(new Blob(["\\ufeff" + lines], { type: "text/csv" }));
  link.download = button.dataset.csv + ".csv";
  link.click();
};
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.append(...head.childNodes);
    head.append(button);
    button.onclick = () => {
      const sign = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
      heads.forEach(other => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
      const rows = [...table.tBodies[0].rows];
      const text = row => row.cells[column].dataset.value ?? row.cells[column].textContent;
      const byNumber = (one, other) => {  // rows without a number stay at the end
        const a = parseFloat(text(one)), b = parseFloat(text(other));
        return isNaN(a) || isNaN(b) ? isNaN(a) - isNaN(b) : sign * (a - b);
      };
      const byText = (one, other) => sign * text(one).localeCompare(text(other), "en", { numeric: true });
      rows.sort(rows.some(row => row.cells[column].className === "number") ? byNumber : byText);
      table.tBodies[0].append(...rows);
    };
  });
}
"""
