"""Script of the viewer of cases, see `viewer`."""

from __future__ import annotations

from factorizer_nnunet.pages.drawing_script import DRAWING

_VIEWER = """
const get = id => document.getElementById("viewer-" + id), dialog = document.getElementById("viewer");
const settings = JSON.parse(get("settings").textContent);
const names = JSON.parse(get("names").textContent);
const layout = [{ across: 2, x: 0, y: 1, up: false }, { across: 1, x: 0, y: 2, up: true },
  { across: 0, x: 1, y: 2, up: true }];
let number = null, data = null, views = [], cut = [0, 0, 0], active = 0, opening = 0;

function options(id, texts, chosen = 0) {
  get(id).replaceChildren(...texts.map(text => new Option(text)));
  get(id).selectedIndex = Math.min(chosen, texts.length - 1);
}

const offer = (id, wanted) => { get(id).parentNode.hidden = !wanted; };

async function open(to, map) {
  number = to;
  const before = Object.fromEntries(["channel", "show", "map"].map(id => [id, dialog.open && get(id).value]));
  const keep = (id, texts, start) => options(id, texts, texts.includes(before[id]) ? texts.indexOf(before[id]) : start);
  const mine = ++opening, planes = get("planes"), source = document.getElementById("volumes-" + to);
  document.getElementById("viewer-title").textContent = `${names[to]} (${to + 1} of ${names.length})`;
  for (const row of document.querySelectorAll("tr[data-view]")) {  // still marked when the viewer is closed
    if (row.dataset.view === "" + to && row.dataset.map === map) row.setAttribute("aria-current", "true");
    else row.removeAttribute("aria-current");
  }
  if (!dialog.open) dialog.showModal();
  dialog.focus();  // the canvas that has the focus is removed
  dialog.dataset.ready = ""; data = null; views = []; planes.replaceChildren(); get("legend").replaceChildren();
  document.querySelector(".viewer-controls").hidden = !source;
  if (!source) {
    planes.textContent = "The volumes of this case are not stored in this page: "
      + "write it again with a larger --viewer-cases or --viewer-mb.";
    dialog.dataset.ready = to;
    return;
  }
  const read = JSON.parse(source.textContent);
  for (const one of [...read.images, ...read.labels, ...read.maps]) one.volume = await unpacked(one.data);
  if (mine !== opening) return;
  data = read; cut = [...data.cut]; active = 0;
  keep("channel", data.images.map(one => one.name), data.start);
  const titles = data.labels.map(one => one.name);
  const shown = titles.length > 1 ? [titles[0] + " and " + titles[1]] : [];
  const errors = titles.slice(1).map(title => "errors of " + title);
  keep("show", [...shown, ...titles, ...errors, "image alone"], 0);
  options("region", settings.regions.map(one => one.name));
  keep("map", ["none", ...data.maps.map(one => one.name)], 1 + data.maps.findIndex(one => one.name === map));
  for (const id of ["map", "opacity"]) offer(id, data.maps.length > 0);
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
    event.preventDefault(); active = place; step(plane.across, Math.sign(event.deltaY));
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

// Over so many slices of the file: what is shown has cubic voxels, so that thick slices are repeated.
function step(axis, count) {
  const { numbers } = data.slices[axis], way = Math.sign(count);
  let at = cut[axis];
  for (let left = Math.abs(count); left && numbers[at + way] !== undefined; at += way) {
    left -= numbers[at + way] !== numbers[at];
  }
  move(axis, at);
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

// One byte a pixel, upright: a volume's slice in a plane. Maps may be of fewer voxels.
function slice(volume, { plane, width, height }, size = data.size) {
  const strides = [1, size[0], size[0] * size[1]], result = new Uint8Array(width * height);
  const offset = (axis, at) => Math.floor((at + .5) / data.size[axis] * size[axis]) * strides[axis];
  const columns = Array.from({ length: width }, (_, i) => offset(plane.x, i));
  for (let j = 0, at = 0; j < height; j++) {
    const row = offset(plane.across, cut[plane.across]) + offset(plane.y, plane.up ? height - 1 - j : j);
    for (let i = 0; i < width; i++) result[at++] = volume[row + columns[i]];
  }
  return result;
}

const inside = (labels, region) => labels.map(value => settings.regions[region].values.includes(value) ? 1 : 0);

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
  const map = data.maps[get("map").selectedIndex - 1];
  views.forEach((view, place) => {
    const { plane, canvas } = view, context = canvas.getContext("2d");
    const small = new OffscreenCanvas(view.width, view.height), brush = small.getContext("2d");
    const frame = brush.createImageData(view.width, view.height), pixels = frame.data;
    slice(image.volume, view).forEach((value, at) => {
      pixels[4 * at] = pixels[4 * at + 1] = pixels[4 * at + 2] = grey[value]; pixels[4 * at + 3] = 255;
    });
    if (map) heat(pixels, slice(map.volume, view, map.size), settings.mapColours, get("opacity").value / 100);
    const lines = [];
    for (const [which, full] of outlined) {
      const labels = slice(data.labels[which].volume, view);
      settings.regions.forEach((region, r) => {
        const mask = inside(labels, r);
        if (full && !map) tint(pixels, mask, region.colour, settings.fill);
        const area = mask.reduce((sum, one) => sum + one, 0);
        lines.push({ mask, area, colour: region.colour, dash: full ? region.dash : [1, 2] });
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
    const taken = new Uint8Array(2 * (view.width + 1) * (view.height + 1));  // larger regions first
    for (const line of lines.sort((one, other) => other.area - one.area)) outline(context, line, view, taken);
    const place_text = describe(view);
    canvas.setAttribute("aria-label", `${names[number]}, ${image.name}: ${place_text}`);
    view.caption.textContent = `${image.name}, ${place_text}, level ${level}, width ${get("width").value}`;
    view.slider.value = cut[plane.across];
    view.figure.classList.toggle("active", place === active);
  });
  offer("region", compared !== undefined);
  legend(compared, map, outlined);
  dialog.dataset.cut = cut.join(" ");
}

function describe(view) {
  const { plane, canvas } = view, context = canvas.getContext("2d"), { width, height } = canvas;
  const at = cut[plane.across], position = data.positions[plane.across][at];
  const { numbers, of } = data.slices[plane.across];
  const text = `${settings.planes[plane.across]}, slice ${numbers[at]} of ${of}`
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

function legend(compared, map, outlined) {
  const { errors, regions, mapColours } = settings;
  const entry = (name, kind, style) => {
    const item = document.createElement("span"), key = document.createElement("i");
    key.className = kind; item.append(key, name);
    for (const [property, value] of Object.entries(style)) key.style.setProperty(property, value);
    return item;
  };
  const shown = compared ? [["false positive", errors.positive], ["false negative", errors.negative],
    ["both", errors.agreement]].map(([name, background]) => entry(name, "", { background }))
    : regions.map(({ name, colour, dash: [drawn, skipped] }) =>
      entry(name, "line", { "--k": colour, "--drawn": drawn + "px", "--period": drawn + skipped + "px" }));
  if (outlined.length > 1) {
    const [first, second] = outlined.map(([which]) => data.labels[which].name);
    shown.push(`lines: ${first}; dotted: ${second}`);
  }
  if (map) {
    const stops = [0, 64, 128, 192, 255].map(at => `rgb(${mapColours[at]})`);
    const background = `linear-gradient(90deg, ${stops.join(", ")})`;
    shown.push(entry(`${map.name}, 0 to ${map.high}`, "map", { background }));
  }
  get("legend").replaceChildren(...shown);
}

const stored = names.map((_, at) => at).filter(at => document.getElementById("volumes-" + at));
function go(step) {  // to the next stored case in this direction
  const later = stored.filter(at => at > number), earlier = stored.filter(at => at < number);
  const inOrder = step > 0 ? [...later, ...earlier] : [...later, ...earlier].reverse();
  if (inOrder.length) open(inOrder[0]);
}
for (const button of dialog.querySelectorAll("[data-go]")) button.hidden = stored.length < 2;
function cycle(id, then) {
  get(id).selectedIndex = (get(id).selectedIndex + 1) % get(id).length;
  then();
}
dialog.addEventListener("keydown", event => {
  if (event.target.matches("input[type=number], #viewer-opacity, select")) return;
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "n" || event.key === "p") { go(event.key === "n" ? 1 : -1); return; }
  if (!data) return;
  const steps = { ArrowUp: 1, ArrowDown: -1, PageUp: 10, PageDown: -10 }, axis = views[active].plane.across;
  if (event.key in steps) step(axis, steps[event.key]);
  else if (event.key === "c") cycle("channel", channel);
  else if (event.key === "v") cycle("show", draw);
  else if (event.key === "m") cycle("map", draw);
  else if (["1", "2", "3"].includes(event.key)) { active = Math.min(Number(event.key), views.length) - 1; draw(); }
  else return;
  event.preventDefault();
});
for (const button of dialog.querySelectorAll("[data-go]")) button.onclick = () => go(Number(button.dataset.go));
get("channel").onchange = channel;
get("window").onchange = preset;
for (const id of ["show", "region", "map", "opacity", "level", "width"]) get(id).oninput = draw;
document.addEventListener("click", event => {
  const mark = event.target.closest("[data-view]");
  if (mark && !event.target.closest("a")) open(Number(mark.dataset.view), mark.dataset.map);
});
document.addEventListener("keydown", event => {
  const mark = event.target;
  if (event.key !== "Enter" || !mark.matches("[data-view]:not(button)")) return;
  open(Number(mark.dataset.view), mark.dataset.map);
});
"""

VIEWER_SCRIPT = f"\n(() => {{{DRAWING}{_VIEWER}}})();\n"
