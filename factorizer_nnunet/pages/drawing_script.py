"""How the viewer's script unpacks volumes and draws on pixels; without any state, see `viewer_script`."""

from __future__ import annotations

DRAWING = """
const rgb = colour => [1, 3, 5].map(at => parseInt(colour.slice(at, at + 2), 16));
const SHARED = 2;  // pixels of each colour where two outlines coincide

async function unpacked(text) {
  const bytes = Uint8Array.from(atob(text), one => one.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  const volume = new Uint8Array(await new Response(stream).arrayBuffer());
  for (let at = 1; at < volume.length; at++) volume[at] += volume[at - 1];
  return volume;
}

function tint(pixels, mask, colour, share) {
  const parts = rgb(colour);
  mask.forEach((on, at) => { if (on) for (let c = 0; c < 3; c++)
    pixels[4 * at + c] = pixels[4 * at + c] * (1 - share) + parts[c] * share; });
}

// The edges between pixels inside and outside; `taken` are edges with another outline. The dashes of small pixels are
// stripes along the diagonal.
function outline(context, { mask, colour, dash: [drawn, skipped] }, { width, height, zoom }, taken) {
  context.beginPath();
  const large = zoom >= drawn + skipped;
  const on = (i, j) => i >= 0 && j >= 0 && i < width && j < height && mask[j * width + i];
  for (let j = 0; j < height; j++) for (let i = 0; i < width; i++) {
    if (!mask[j * width + i] || !large && (i + j) * zoom / 2 % (drawn + skipped) >= drawn) continue;
    for (const [di, dj, x0, y0, x1, y1] of [[-1, 0, 0, 0, 0, 1], [1, 0, 1, 0, 1, 1], [0, -1, 0, 0, 1, 0],
      [0, 1, 0, 1, 1, 1]]) {
      const edge = 2 * ((j + y0) * (width + 1) + i + x0) + (y0 === y1);
      if (on(i + di, j + dj) || taken[edge] && (i + j) % (2 * SHARED) >= SHARED) continue;
      taken[edge] = 1;
      context.moveTo((i + x0) * zoom, (j + y0) * zoom); context.lineTo((i + x1) * zoom, (j + y1) * zoom);
    }
  }
  context.setLineDash(large && skipped ? [drawn, skipped] : []);
  context.strokeStyle = colour; context.lineWidth = 2; context.stroke();
  context.setLineDash([]);
}

// More opaque for larger values.
function heat(pixels, values, colours, opacity) {
  values.forEach((value, at) => {
    const share = opacity * Math.min(1, value / 160), parts = colours[value];
    for (let c = 0; c < 3; c++) pixels[4 * at + c] = pixels[4 * at + c] * (1 - share) + parts[c] * share;
  });
}
"""
