"""Style of the viewer of cases, see `viewer`."""

from __future__ import annotations

VIEWER_STYLE = """
[data-view] { cursor: pointer; } td[data-view]:hover, tr[data-view]:hover > * { background: var(--panel); }
tr[aria-current] > * { background: var(--warnfill); }
tr[aria-current] > :first-child { box-shadow: inset 3px 0 var(--link); }
button.open { all: unset; cursor: pointer; color: var(--link); text-decoration: underline; }
button.open:focus-visible, [data-view]:focus-visible { outline: 2px solid var(--link); outline-offset: 2px; }
#viewer { width: min(1400px, 98%); max-width: none; max-height: 96vh; border: 1px solid var(--line);
  border-radius: 8px; background: var(--page); color: var(--text); padding: .8rem; overflow: auto; }
#viewer::backdrop { background: #000a; }
#viewer form { display: flex; flex-wrap: wrap; gap: .5rem; align-items: center; }
#viewer h2 { border: 0; padding: 0; font-size: 1.05rem; margin: 0 auto 0 0; overflow-wrap: anywhere; }
#viewer button, #viewer select, #viewer input { font: inherit; font-size: 13px; color: var(--text);
  background: var(--panel); border: 1px solid var(--line); border-radius: 5px; padding: .2rem .5rem; max-width: 100%; }
#viewer input[type=number] { width: 6.5em; } #viewer-opacity { width: 8em; }
#viewer-legend i.map { width: 6em; }
#viewer label { max-width: 100%; display: inline-flex; flex-wrap: wrap; align-items: center; gap: .3em; }
#viewer label[hidden] { display: none; }
#viewer-legend span { min-width: 0; overflow-wrap: anywhere; }
@media (max-width: 480px) { #viewer h2 { flex-basis: 100%; } }  /* so that all buttons share a line */
.viewer-controls { display: flex; flex-wrap: wrap; gap: .3rem .9rem; margin: .5rem 0; font-size: 13px; }
#viewer-planes { display: grid; gap: .5rem; align-items: start;
  grid-template-columns: repeat(auto-fit, minmax(min(260px, 100%), 1fr)); }
#viewer-planes figure { margin: 0; min-width: 0; overflow: hidden;
  background: #000; border: 2px solid transparent; border-radius: 4px; }
#viewer-planes figure.active { border-color: var(--link); }
#viewer-planes canvas { display: block; width: 100%; max-height: 60vh; object-fit: contain; cursor: crosshair; }
#viewer-planes figcaption { color: #dfe4ec; font-size: 12px; padding: .2rem .4rem; }
#viewer-planes input { width: 100%; padding: 0; }
"""
