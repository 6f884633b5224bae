"""Style and script of a case's page: unpack volumes from their mosaics, draw the slices that the sliders select."""

from __future__ import annotations

STYLE = """
.controls { position: sticky; top: 0; z-index: 1; background: var(--page); display: flex; flex-wrap: wrap;
  gap: .4rem 1.2rem; padding: .5rem 0; border-bottom: 1px solid var(--line); align-items: center; }
.controls label { display: flex; gap: .4em; align-items: center; font-size: 13px; }
.controls input[type=range] { width: 8em; }
#views section { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(640px, 100%), 1fr)); gap: .8rem; }
.view { margin: 0; background: var(--panel); border: 1px solid var(--line); border-radius: 8px; padding: .5rem;
  break-inside: avoid; }
.view div { display: flex; gap: 4px; background: #000; align-items: center; }
.view canvas { min-width: 0; flex: 1 1 0; cursor: crosshair; height: auto; width: 100%; }
.view figcaption { display: flex; flex-wrap: wrap; gap: .2rem 1rem; font-size: 13px; margin-bottom: .3rem; }
.bar { display: inline-flex; gap: .4em; align-items: center; color: var(--soft); margin-left: auto; }
.bar i { display: inline-block; width: 7em; height: .8em; border: 1px solid var(--line); }
#views .failed { color: var(--bad); }
"""

SCRIPT = """
const data = JSON.parse(document.getElementById("data").textContent);
const get = id => document.getElementById(id);
const size = data.size;
const cut = [...data.start];
const zoom = Math.max(1, Math.round(320 / Math.max(...size)));
// across: the axis of the slider; x, y: axes shown to the right and down; up: whether y runs upwards
const planes = [{ across: 2, x: 0, y: 1, up: false }, { across: 1, x: 0, y: 2, up: true },
  { across: 0, x: 1, y: 2, up: true }].filter(plane => size[plane.x] > 1 && size[plane.y] > 1);
const thick = zoom > 2 ? 2 : 1;  // width of outlines, in pixels
const volumes = new Map();

async function unpack(source, [width, height, count]) {
  if (!volumes.has(source.src)) volumes.set(source.src, (async () => {
    const picture = new Image();
    picture.src = source.src;
    await picture.decode();
    const canvas = document.createElement("canvas");
    canvas.width = picture.width; canvas.height = picture.height;
    const context = canvas.getContext("2d", { willReadFrequently: true });
    context.drawImage(picture, 0, 0);
    const pixels = context.getImageData(0, 0, canvas.width, canvas.height).data;
    const volume = new Uint8Array(width * height * count);
    for (let k = 0, at = 0; k < count; k++) {
      const top = Math.floor(k / source.columns) * height, left = (k % source.columns) * width;
      for (let j = 0; j < height; j++)
        for (let i = 0; i < width; i++) volume[at++] = pixels[4 * ((top + j) * canvas.width + left + i)];
    }
    return volume;
  })());
  return volumes.get(source.src);
}

// For each pixel along an axis: offsets of its two nearest voxels of `count`, and the weight of the second.
function steps(pixels, count, stride, flipped) {
  const low = new Int32Array(pixels), high = new Int32Array(pixels), share = new Float32Array(pixels);
  for (let p = 0; p < pixels; p++) {
    const at = Math.min(Math.max((p + .5) / pixels * count - .5, 0), count - 1);
    const to = flipped ? pixels - 1 - p : p, first = Math.floor(at);
    low[to] = first * stride; high[to] = Math.min(first + 1, count - 1) * stride; share[to] = at - first;
  }
  return { low, high, share };
}

function sampler(volume, dims, plane) {
  const strides = [1, dims[0], dims[0] * dims[1]];
  const x = steps(size[plane.x] * zoom, dims[plane.x], strides[plane.x], false);
  const y = steps(size[plane.y] * zoom, dims[plane.y], strides[plane.y], plane.up);
  const z = steps(size[plane.across], dims[plane.across], strides[plane.across], false);
  return (i, j, k) => {
    const mixed = base => {
      const upper = volume[base + x.low[i] + y.low[j]] * (1 - x.share[i])
        + volume[base + x.high[i] + y.low[j]] * x.share[i];
      const lower = volume[base + x.low[i] + y.high[j]] * (1 - x.share[i])
        + volume[base + x.high[i] + y.high[j]] * x.share[i];
      return upper * (1 - y.share[j]) + lower * y.share[j];
    };
    const own = mixed(z.low[k]);
    return z.share[k] ? own * (1 - z.share[k]) + mixed(z.high[k]) * z.share[k] : own;
  };
}

const rgb = colour => [1, 3, 5].map(at => parseInt(colour.slice(at, at + 2), 16));

// The classes of each label value as bits, so that overlapping regions have their own outlines.
const bits = new Uint32Array(256);
data.classes.forEach((one, c) => one.values.forEach(value => { if (value < 256) bits[value] |= 1 << (c % 32); }));

function outlined(pixels, width, height, labels, plane, dotted) {
  const strides = [1, size[0], size[0] * size[1]];
  const base = cut[plane.across] * strides[plane.across];
  const of = new Uint32Array(width * height);
  for (let j = 0; j < height; j++) {
    const row = Math.floor((plane.up ? height - 1 - j : j) / zoom) * strides[plane.y] + base;
    for (let i = 0; i < width; i++) of[j * width + i] = bits[labels[row + Math.floor(i / zoom) * strides[plane.x]]];
  }
  data.classes.forEach((one, c) => {
    const bit = 1 << (c % 32), [r, g, b] = rgb(one.colour);
    for (let j = 0; j < height; j++) for (let i = 0; i < width; i++) {
      const at = j * width + i;
      if (!(of[at] & bit) || (dotted && (i + j) % 6 > 2)) continue;
      const inner = i >= thick && j >= thick && i < width - thick && j < height - thick && of[at - thick] & bit
        && of[at + thick] & bit && of[at - thick * width] & bit && of[at + thick * width] & bit;
      if (!inner) { pixels[4 * at] = r; pixels[4 * at + 1] = g; pixels[4 * at + 2] = b; }
    }
  });
}

const where = plane => `${data.planes[plane.across]} ${cut[plane.across] + 1}/${size[plane.across]}, `
  + data.positions[plane.across][cut[plane.across]];

// The letters of the patient's sides at the edges, and plane and position in the corner.
function annotate(context, plane, width, height) {
  const [left, right, top, bottom] = data.sides[plane.across];
  context.font = `${Math.max(10, Math.round(Math.max(width, height) / 26))}px sans-serif`;
  context.lineWidth = 3; context.strokeStyle = "#000"; context.fillStyle = "#fff"; context.lineJoin = "round";
  for (const [text, x, y, align, baseline] of [[left, 3, height / 2, "left", "middle"],
    [right, width - 3, height / 2, "right", "middle"], [top, width / 2, 3, "center", "top"],
    [bottom, width / 2, height - 3, "center", "bottom"], [where(plane), 3, height - 3, "left", "bottom"]]) {
    context.textAlign = align; context.textBaseline = baseline;
    context.strokeText(text, x, y); context.fillText(text, x, y);
  }
}

let views = [];
function draw() {
  const opacity = get("opacity").value / 100;
  for (const view of views) for (const [index, plane] of planes.entries()) {
    const canvas = view.canvases[index];
    const width = size[plane.x] * zoom, height = size[plane.y] * zoom;
    const context = canvas.getContext("2d"), frame = context.createImageData(width, height), pixels = frame.data;
    const grey = view.grey[index], map = view.map && view.map[index], k = cut[plane.across];
    for (let j = 0, at = 0; j < height; j++) for (let i = 0; i < width; i++, at += 4) {
      const value = grey(i, j, k);
      pixels[at] = pixels[at + 1] = pixels[at + 2] = value;
      pixels[at + 3] = 255;
      if (map) {
        const level = Math.round(map(i, j, k)), colour = data.colours[level];
        const share = opacity * Math.min(1, level / 160);
        for (let c = 0; c < 3; c++) pixels[at + c] = value * (1 - share) + colour[c] * share;
      }
    }
    for (const box of document.querySelectorAll("[data-outline]"))
      if (box.checked) outlined(pixels, width, height, view.labels[box.dataset.outline], plane,
        box.dataset.outline === "truth");
    context.putImageData(frame, 0, 0);
    context.fillStyle = "rgba(255,255,255,.45)";
    const y = plane.up ? size[plane.y] - 1 - cut[plane.y] : cut[plane.y];
    context.fillRect(0, (y + .5) * zoom, width, 1);
    context.fillRect((cut[plane.x] + .5) * zoom, 0, 1, height);
    annotate(context, plane, width, height);
    canvas.setAttribute("aria-label", `${view.title}: ${where(plane)}`);
  }
  document.body.dataset.drawn = Number(document.body.dataset.drawn || 0) + 1;
}

let waiting = false;
function soon() {
  if (!waiting) { waiting = true; requestAnimationFrame(() => { waiting = false; draw(); }); }
}

function element(kind, parent, text) {
  const made = document.createElement(kind);
  if (text !== undefined) made.textContent = text;
  parent.append(made);
  return made;
}

function bar(caption, colours, low, high, unit) {
  const made = element("span", caption);
  made.className = "bar";
  element("span", made, low);
  element("i", made).style.background = `linear-gradient(90deg, ${colours.join(", ")})`;
  element("span", made, `${high} ${unit}`);
}

async function figure(parent, title, imageIndex, name) {
  const image = data.images[imageIndex], made = element("figure", parent), caption = element("figcaption", made);
  made.className = "view";
  element("b", caption, title);
  if (name) bar(caption, [0, 64, 128, 192, 255].map(at => `rgb(${data.colours[at]})`), "0", data.maps[name].largest,
    "feature norm");
  else bar(caption, ["#000", "#fff"], image.low, image.high, "image intensity");
  const row = element("div", made);
  const canvases = planes.map(plane => {
    const canvas = element("canvas", row);
    canvas.setAttribute("role", "img");
    canvas.width = size[plane.x] * zoom; canvas.height = size[plane.y] * zoom;
    canvas.style.flexGrow = size[plane.x];
    canvas.onclick = event => {
      const i = Math.floor(event.offsetX / canvas.clientWidth * size[plane.x]);
      const j = Math.floor(event.offsetY / canvas.clientHeight * size[plane.y]);
      move(plane.x, i);
      move(plane.y, plane.up ? size[plane.y] - 1 - j : j);
    };
    return canvas;
  });
  const grey = await unpack(image, size), labels = {};
  for (const [key, source] of Object.entries(data.labels)) labels[key] = await unpack(source, size);
  const map = name && await unpack(data.maps[name], data.maps[name].size);
  return { title, canvases, labels, grey: planes.map(plane => sampler(grey, size, plane)),
    map: name && planes.map(plane => sampler(map, data.maps[name].size, plane)) };
}

function move(axis, to) {
  cut[axis] = Math.min(Math.max(to, 0), size[axis] - 1);
  get(`slice-${axis}`).value = cut[axis];
  soon();
}

async function build() {
  const place = get("views"), chosen = get("class").value, channel = get("channel").selectedIndex;
  const fresh = document.createDocumentFragment();
  const made = [figure(element("section", fresh), `${data.images[channel].name} and prediction`, channel)];
  if (data.layers.every(layer => !data.best[chosen][layer].length))
    element("p", fresh, "The prediction contains no voxel of this class, or nothing else: no map can separate it.");
  else for (const layer of data.layers) {
    element("h3", fresh, layer);
    const section = element("section", fresh);
    for (const one of data.best[chosen][layer])
      made.push(figure(section, `${one.map}, AUC ${one.auc}`, channel, one.map));
  }
  views = await Promise.all(made);
  place.replaceChildren(fresh);
  draw();
}

for (const axis of [0, 1, 2]) get(`slice-${axis}`).oninput = event => move(axis, Number(event.target.value));
get("opacity").oninput = soon;
for (const box of document.querySelectorAll("[data-outline]")) box.onchange = soon;
for (const id of ["class", "channel"]) get(id).onchange = build;
get("channel").selectedIndex = data.shown;
build().catch(error => {
  element("p", get("views"), `The images cannot be drawn: ${error}`).className = "failed";
});
"""
