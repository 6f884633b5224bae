"""Style and script of the viewer of cases, see `viewer`."""

from __future__ import annotations

VIEWER_STYLE = """
[data-view] { cursor: pointer; } td[data-view]:hover, tr[data-view]:hover > * { background: var(--panel); }
button.open { all: unset; cursor: pointer; color: var(--link); text-decoration: underline; }
button.open:focus-visible, [data-view]:focus-visible { outline: 2px solid var(--link); outline-offset: 2px; }
#viewer { width: min(1400px, 98vw); max-width: none; max-height: 96vh; border: 1px solid var(--line);
  border-radius: 8px; background: var(--page); color: var(--text); padding: .8rem; overflow: auto; }
#viewer::backdrop { background: #000a; }
#viewer form { display: flex; flex-wrap: wrap; gap: .5rem; align-items: center; }
#viewer h3 { margin: 0 auto 0 0; overflow-wrap: anywhere; }
#viewer button, #viewer select, #viewer input { font: inherit; font-size: 13px; color: var(--text);
  background: var(--panel); border: 1px solid var(--line); border-radius: 5px; padding: .2rem .5rem; max-width: 100%; }
#viewer input[type=number] { width: 6.5em; }
#viewer label { max-width: 100%; } #viewer-legend span { min-width: 0; overflow-wrap: anywhere; }
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

VIEWER_SCRIPT = """
(() => {
const get = id => document.getElementById("viewer-" + id), dialog = document.getElementById("viewer");
const settings = JSON.parse(get("settings").textContent);
const names = JSON.parse(document.getElementById("cases").textContent);
const rgb = colour => [1, 3, 5].map(at => parseInt(colour.slice(at, at + 2), 16));
const layout = [{ across: 2, x: 0, y: 1, up: false }, { across: 1, x: 0, y: 2, up: true },
  { across: 0, x: 1, y: 2, up: true }];
let number = null, data = null, views = [], cut = [0, 0, 0], active = 0, opening = 0;

async function unpacked(text) {
  const bytes = Uint8Array.from(atob(text), one => one.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  const volume = new Uint8Array(await new Response(stream).arrayBuffer());
  for (let at = 1; at < volume.length; at++) volume[at] += volume[at - 1];
  return volume;
}

function options(id, texts, chosen = 0) {
  get(id).replaceChildren(...texts.map(text => new Option(text)));
  get(id).selectedIndex = Math.min(chosen, texts.length - 1);
}

async function open(to) {
  number = to;
  const mine = ++opening, stored = get("planes"), source = document.getElementById("volumes-" + to);
  document.getElementById("viewer-title").textContent = `${names[to]} (${to + 1} of ${names.length})`;
  if (!dialog.open) dialog.showModal();
  dialog.focus();  // the canvas that has the focus is removed
  dialog.dataset.ready = ""; data = null; views = []; stored.replaceChildren(); get("legend").replaceChildren();
  document.querySelector(".viewer-controls").hidden = !source;
  if (!source) {
    stored.textContent = "The volumes of this case are not stored in this page: "
      + "write it again with a larger --viewer-cases or --viewer-mb.";
    dialog.dataset.ready = to;
    return;
  }
  const read = JSON.parse(source.textContent);
  for (const one of [...read.images, ...read.labels]) one.volume = await unpacked(one.data);
  if (mine !== opening) return;
  data = read; cut = [...data.cut]; active = 0;
  options("channel", data.images.map(one => one.name), data.start);
  const titles = data.labels.map(one => one.name);
  const shown = titles.length > 1 ? ["reference and " + titles[1]] : [];
  const errors = titles.slice(1).map(title => "errors of " + title);
  options("show", [...shown, ...titles, ...errors, "image alone"]);
  options("region", settings.regions.map(one => one.name));
  views = layout.filter(plane => data.size[plane.x] > 1 && data.size[plane.y] > 1).map(made);
  channel();
  views[0].canvas.focus();
  dialog.dataset.ready = to;
}

function made(plane, place) {
  const figure = document.createElement("figure"), canvas = document.createElement("canvas");
  const caption = document.createElement("figcaption"), slider = document.createElement("input");
  const [width, height] = [data.size[plane.x], data.size[plane.y]];
  const zoom = Math.max(1, Math.round(480 / Math.max(width, height)));
  canvas.width = width * zoom; canvas.height = height * zoom;
  canvas.setAttribute("role", "img"); canvas.tabIndex = 0;
  slider.type = "range"; slider.max = data.size[plane.across] - 1;
  slider.setAttribute("aria-label", settings.planes[plane.across] + " slice");
  slider.oninput = () => { active = place; move(plane.across, Number(slider.value)); };
  canvas.onfocus = () => { active = place; draw(); };
  canvas.addEventListener("wheel", event => {
    event.preventDefault(); active = place; move(plane.across, cut[plane.across] + Math.sign(event.deltaY));
  }, { passive: false });
  canvas.onclick = event => {  // the picture is as large as fits into the canvas
    const box = canvas.getBoundingClientRect(), scale = Math.min(box.width / width, box.height / height);
    const i = Math.floor((event.clientX - box.x - (box.width - width * scale) / 2) / scale);
    const j = Math.floor((event.clientY - box.y - (box.height - height * scale) / 2) / scale);
    active = place; move(plane.x, i); move(plane.y, plane.up ? height - 1 - j : j);
  };
  figure.append(canvas, slider, caption);
  get("planes").append(figure);
  return { plane, figure, canvas, caption, slider, zoom, width, height };
}

function move(axis, to) { cut[axis] = Math.min(Math.max(to, 0), data.size[axis] - 1); draw(); }

function channel() {
  options("window", data.images[get("channel").selectedIndex].windows.map(one => one.text));
  preset();
}

function preset() {
  const { low, high } = data.images[get("channel").selectedIndex].windows[get("window").selectedIndex];
  get("level").value = +((low + high) / 2).toPrecision(5); get("width").value = +(high - low).toPrecision(5);
  draw();
}

// One byte a pixel, upright: a volume's slice in a plane.
function slice(volume, { plane, width, height }) {
  const strides = [1, data.size[0], data.size[0] * data.size[1]], result = new Uint8Array(width * height);
  for (let j = 0, at = 0; j < height; j++) {
    const row = cut[plane.across] * strides[plane.across] + (plane.up ? height - 1 - j : j) * strides[plane.y];
    for (let i = 0; i < width; i++) result[at++] = volume[row + i * strides[plane.x]];
  }
  return result;
}

const inside = (labels, region) => labels.map(value => settings.regions[region].values.includes(value) ? 1 : 0);

function tint(pixels, mask, colour, share) {
  const parts = rgb(colour);
  mask.forEach((on, at) => { if (on) for (let c = 0; c < 3; c++)
    pixels[4 * at + c] = pixels[4 * at + c] * (1 - share) + parts[c] * share; });
}

// The edges between pixels inside and outside, in stripes along the diagonal.
function outline(context, mask, { width, height, zoom }, colour, [drawn, skipped]) {
  context.beginPath();
  const on = (i, j) => i >= 0 && j >= 0 && i < width && j < height && mask[j * width + i];
  for (let j = 0; j < height; j++) for (let i = 0; i < width; i++) {
    if (!mask[j * width + i] || (i + j) % (drawn + skipped) >= drawn) continue;
    for (const [di, dj, x0, y0, x1, y1] of [[-1, 0, 0, 0, 0, 1], [1, 0, 1, 0, 1, 1], [0, -1, 0, 0, 1, 0],
      [0, 1, 0, 1, 1, 1]]) {
      if (on(i + di, j + dj)) continue;
      context.moveTo((i + x0) * zoom, (j + y0) * zoom); context.lineTo((i + x1) * zoom, (j + y1) * zoom);
    }
  }
  context.strokeStyle = colour; context.lineWidth = 2; context.stroke();
}

function overlays() {  // labels to outline, with their style, or the two to compare
  const several = data.labels.length > 1, count = data.labels.length;
  let at = get("show").selectedIndex;
  if (several && at === 0) return { outlined: [[0, true], [1, false]] };
  at -= several;
  if (at < count) return { outlined: [[at, true]] };
  return at - count < count - 1 ? { outlined: [], compared: at - count + 1 } : { outlined: [] };
}

function draw() {
  if (!data) return;
  const image = data.images[get("channel").selectedIndex], { outlined, compared } = overlays();
  const level = Number(get("level").value), width = Math.max(Number(get("width").value), 1e-9);
  const grey = Uint8ClampedArray.from({ length: 256 }, (_, value) =>
    ((image.low + value / 255 * (image.high - image.low) - level) / width + .5) * 255);
  views.forEach((view, place) => {
    const { plane, canvas } = view, context = canvas.getContext("2d");
    const small = new OffscreenCanvas(view.width, view.height), brush = small.getContext("2d");
    const frame = brush.createImageData(view.width, view.height), pixels = frame.data;
    slice(image.volume, view).forEach((value, at) => {
      pixels[4 * at] = pixels[4 * at + 1] = pixels[4 * at + 2] = grey[value]; pixels[4 * at + 3] = 255;
    });
    const lines = [];
    for (const [which, full] of outlined) {
      const labels = slice(data.labels[which].volume, view);
      settings.regions.forEach((region, r) => {
        const mask = inside(labels, r);
        if (full) tint(pixels, mask, region.colour, settings.fill);
        lines.push([mask, region.colour, full ? region.dash : [1, 2]]);
      });
    }
    if (compared) {
      const region = get("region").selectedIndex;
      const [truth, found] = [0, compared].map(which => inside(slice(data.labels[which].volume, view), region));
      tint(pixels, truth.map((on, at) => on & found[at]), settings.errors.agreement, .45);
      tint(pixels, truth.map((on, at) => on & !found[at]), settings.errors.negative, .75);
      tint(pixels, found.map((on, at) => on & !truth[at]), settings.errors.positive, .75);
    }
    brush.putImageData(frame, 0, 0);
    context.drawImage(small, 0, 0, canvas.width, canvas.height);
    for (const line of lines) outline(context, line[0], view, line[1], line[2]);
    const place_text = describe(view);
    canvas.setAttribute("aria-label", `${names[number]}, ${image.name}: ${place_text}`);
    view.caption.textContent = `${image.name}, ${place_text}, level ${level}, width ${get("width").value}`;
    view.slider.value = cut[plane.across];
    view.figure.classList.toggle("active", place === active);
  });
  legend(compared);
  dialog.dataset.cut = cut.join(" ");
}

function describe(view) {
  const { plane, canvas } = view, context = canvas.getContext("2d"), { width, height } = canvas;
  const at = cut[plane.across], position = data.positions[plane.across][at];
  const text = `${settings.planes[plane.across]}, slice ${at + 1} of ${data.size[plane.across]}`
    + (position ? `, ${position}` : "");
  context.strokeStyle = "#fff8"; context.lineWidth = 1; context.beginPath();
  const x = (cut[plane.x] + .5) * view.zoom;
  const y = ((plane.up ? view.height - 1 - cut[plane.y] : cut[plane.y]) + .5) * view.zoom;
  context.moveTo(x, 0); context.lineTo(x, height); context.moveTo(0, y); context.lineTo(width, y); context.stroke();
  if (!data.oriented) return text;
  const [left, right, top, bottom] = settings.sides[plane.across];
  context.font = "bold 20px sans-serif"; context.lineWidth = 4; context.lineJoin = "round";
  context.strokeStyle = "#000"; context.fillStyle = "#fff";
  for (const [letter, tx, ty, align, baseline] of [[left, 6, height / 2, "left", "middle"],
    [right, width - 6, height / 2, "right", "middle"], [top, width / 2, 6, "center", "top"],
    [bottom, width / 2, height - 6, "center", "bottom"]]) {
    context.textAlign = align; context.textBaseline = baseline;
    context.strokeText(letter, tx, ty); context.fillText(letter, tx, ty);
  }
  return text;
}

function legend(compared) {
  const { errors, regions } = settings;
  const shown = compared ? [["false positive", errors.positive], ["false negative", errors.negative],
    ["both", errors.agreement]] : regions.map(one => [one.name, one.colour]);
  get("legend").replaceChildren(...shown.map(([name, colour]) => {
    const item = document.createElement("span"), key = document.createElement("i");
    key.style.background = colour; item.append(key, name);
    return item;
  }));
}

const go = step => open((number + step + names.length) % names.length);
function cycle(id, then) {
  get(id).selectedIndex = (get(id).selectedIndex + 1) % get(id).length;
  then();
}
dialog.addEventListener("keydown", event => {
  if (event.target.matches("input[type=number], select") || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "n" || event.key === "p") { go(event.key === "n" ? 1 : -1); return; }
  if (!data) return;
  const steps = { ArrowUp: 1, ArrowDown: -1, PageUp: 10, PageDown: -10 }, axis = views[active].plane.across;
  if (event.key in steps) move(axis, cut[axis] + steps[event.key]);
  else if (event.key === "c") cycle("channel", channel);
  else if (event.key === "v") cycle("show", draw);
  else if (["1", "2", "3"].includes(event.key)) { active = Math.min(Number(event.key), views.length) - 1; draw(); }
  else return;
  event.preventDefault();
});
for (const button of dialog.querySelectorAll("[data-go]")) button.onclick = () => go(Number(button.dataset.go));
get("channel").onchange = channel;
get("window").onchange = preset;
for (const id of ["show", "region", "level", "width"]) get(id).oninput = draw;
document.addEventListener("click", event => {
  const mark = event.target.closest("[data-view]");
  if (mark && !event.target.closest("a")) open(Number(mark.dataset.view));
});
document.addEventListener("keydown", event => {
  if (event.key === "Enter" && event.target.matches("[data-view]:not(button)")) open(Number(event.target.dataset.view));
});
})();
"""
