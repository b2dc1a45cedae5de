// The page around engine.js: it reads the controls and shows images.

const model = JSON.parse(document.getElementById("model").textContent);
const generator = new Generator(model);
const { classes } = generator;
const byId = (id) => document.getElementById(id);

const GRID = 24; // images below the picture
const MAX_BUTTONS = 24; // with more classes, a list replaces the buttons
const MAX_SEED = 2n ** 63n - 1n - 1000n;
const FRAME_MS = 12; // then the browser gets a turn
const WALK_MS = 2500; // from one end to the other

const state = { className: classes.length ? classes[0] : null, seed: 0n, gridStart: 1n };

/** For other pages and for tests: the bytes (H·W·C) of an image. */
window.cgan = {
  classes,
  draw: async (className, seed) => generator.draw(className, seed),
};

// ---- images on canvases ----

function show(canvas, bytes) {
  const { width, height, channels } = generator;
  const pixels = new ImageData(width, height);
  for (let i = 0; i < width * height; i++) {
    for (let c = 0; c < 3; c++) pixels.data[4 * i + c] = bytes[channels * i + (c % channels)];
    pixels.data[4 * i + 3] = 255;
  }
  canvas.width = width;
  canvas.height = height;
  canvas.getContext("2d").putImageData(pixels, 0, 0);
}

const nextFrame = () => new Promise(requestAnimationFrame);
const runs = {};

/** Runs tasks in turn and leaves time for the browser; a later call of the same name ends it. */
async function inTurn(name, tasks) {
  const run = (runs[name] = (runs[name] || 0) + 1);
  let start = performance.now();
  for (const task of tasks) {
    if (runs[name] !== run) return;
    task();
    if (performance.now() - start > FRAME_MS) {
      await nextFrame();
      start = performance.now();
    }
  }
}

/** A button with an image and a caption. */
function addTile(parent, caption, label, choose) {
  const button = document.createElement("button"), canvas = document.createElement("canvas");
  const text = document.createElement("span"), name = document.createElement("bdi");
  button.type = "button";
  button.setAttribute("aria-label", label);
  name.textContent = caption;
  text.append(name);
  button.append(canvas, text);
  button.addEventListener("click", choose);
  parent.append(button);
  canvas.width = generator.width;
  canvas.height = generator.height;
  return canvas;
}

const describe = (className, seed) => `${className === null ? "" : `${className}, `}seed ${seed}`;

// ---- one image ----

const drawCurrent = () => generator.draw(state.className, state.seed);

function refresh() {
  const text = describe(state.className, state.seed);
  show(byId("picture"), drawCurrent());
  performance.mark("cgan-first-image");
  byId("picture").setAttribute("aria-label", `generated image: ${text}`);
  byId("caption").textContent = text;
  byId("seed").value = state.seed;
  byId("command").textContent = shellCommand();
  state.gridStart = state.seed + 1n;
  refreshGrid();
  refreshStyles();
  refreshWalk();
}

function shellCommand() {
  const quoted = /^[\w.-]+$/.test(state.className) ? state.className
    : `'${String(state.className).replaceAll("'", "'\\''")}'`;
  const chosen = state.className === null ? "" : ` --class ${quoted}`;
  return `cgan generate MODEL${chosen} -n 1 --seed ${state.seed}`;
}

function choose(change) {
  Object.assign(state, change);
  if (change.className !== undefined) selectClass(change.className);
  refresh();
}

function setSeed(seed) {
  byId("seed-error").textContent = "";
  choose({ seed: seed < 0n ? 0n : seed > MAX_SEED ? MAX_SEED : seed });
}

function readSeed() {
  const text = byId("seed").value.trim();
  if (/^\d{1,19}$/.test(text) && BigInt(text) <= MAX_SEED) return setSeed(BigInt(text));
  byId("seed-error").textContent = "A seed is a whole number from 0.";
}

function addClasses() {
  if (!classes.length) return;
  if (classes.length > MAX_BUTTONS) {
    const list = document.createElement("select");
    list.setAttribute("aria-label", "Class");
    addOptions(list, state.className);
    list.addEventListener("change", () => choose({ className: list.value }));
    byId("classes").append(list);
    return;
  }
  for (const className of classes) {
    const label = document.createElement("label"), radio = document.createElement("input");
    const text = document.createElement("span"), name = document.createElement("bdi");
    Object.assign(radio, { type: "radio", name: "class", value: className });
    radio.checked = className === state.className;
    radio.addEventListener("change", () => choose({ className }));
    name.textContent = className;
    text.append(name);
    label.append(radio, text);
    byId("classes").append(label);
  }
}

function addOptions(list, selected) {
  for (const name of classes) list.add(new Option(name, name, false, name === selected));
}

function selectClass(className) {
  for (const radio of byId("classes").querySelectorAll("input")) {
    radio.checked = radio.value === className;
  }
  const list = byId("classes").querySelector("select");
  if (list) list.value = className;
  byId("from").value = className;
}

// ---- the grid, and the style in every class ----

function refreshGrid() {
  const grid = byId("grid"), { className, gridStart } = state;
  grid.replaceChildren();
  const tasks = [];
  for (let k = 0n; k < GRID; k++) {
    const seed = gridStart + k;
    const canvas = addTile(grid, seed, describe(className, seed), () => setSeed(seed));
    tasks.push(() => show(canvas, generator.draw(className, seed)));
  }
  inTurn("grid", tasks);
}

function refreshStyles() {
  if (!classes.length) return;
  const { seed } = state;
  byId("styles").replaceChildren();
  inTurn("styles", classes.map((className) => {
    const label = describe(className, seed);
    const canvas = addTile(byId("styles"), className, label, () => choose({ className }));
    return () => show(canvas, generator.draw(className, seed));
  }));
}

// ---- between two classes ----

function walkTo(t) {
  const from = byId("from"), to = byId("to");
  const changeStyle = !classes.length || byId("change-style").checked;
  const first = drawLatent(state.seed, generator.latentDim);
  const z = changeStyle ? slerp(first, drawLatent(state.seed + 1n, generator.latentDim), t) : first;
  const mix = classes.length
    ? [...generator.only(from.value), ...generator.only(to.value)].map(([index], end) => (
      [index, end ? t : 1 - t]))
    : [];
  show(byId("walk"), generator.generate(z, mix));
  const percent = Math.round(100 * t);
  byId("walk-caption").textContent = classes.length
    ? `${100 - percent} % ${from.value}, ${percent} % ${to.value}`
    : `${percent} % of the way from seed ${state.seed} to the next`;
  byId("share").setAttribute("aria-valuetext", byId("walk-caption").textContent);
}

const refreshWalk = () => walkTo(byId("share").value / 100);

async function walk() {
  const button = byId("play"), walking = button.getAttribute("aria-pressed") !== "true";
  button.setAttribute("aria-pressed", walking);
  let before = await nextFrame(), position = byId("share").value / 100, direction = 1;
  while (walking && button.getAttribute("aria-pressed") === "true") {
    const now = await nextFrame();
    position += (direction * (now - before)) / WALK_MS;
    before = now;
    if (position >= 1 || position <= 0) direction = position >= 1 ? -1 : 1;
    position = Math.min(1, Math.max(0, position));
    byId("share").value = Math.round(100 * position);
    walkTo(position);
    window.cgan.frames = (window.cgan.frames || 0) + 1;
  }
}

// ---- a drawing by hand ----

const BRUSH = 0.12; // width of a line, relative to the longer side of the drawing
const FINE = 8; // lines are drawn at this many times the resolution and averaged

/** The mean longer side of the ink in generated images, in pixels. */
function inkSize() {
  const { width, height } = generator;
  const sides = classes.flatMap((className) => [0, 1, 2].map((seed) => {
    const bytes = generator.draw(className, seed), xs = [], ys = [];
    bytes.forEach((level, i) => {
      if (level > 96) [xs, ys].forEach((list, k) => list.push(k ? Math.floor(i / width) : i % width));
    });
    if (!xs.length) return Math.min(width, height);
    return 1 + Math.max(Math.max(...xs) - Math.min(...xs), Math.max(...ys) - Math.min(...ys));
  }));
  return sides.reduce((a, b) => a + b, 0) / sides.length;
}

function drawLines(context, strokes, width, place) {
  Object.assign(context, { lineCap: "round", lineJoin: "round", lineWidth: width });
  context.strokeStyle = "#fff";
  for (const stroke of strokes) {
    context.beginPath();
    const points = stroke.map(place);
    context.moveTo(...points[0]);
    for (const point of points.length > 1 ? points : [points[0], points[0]]) context.lineTo(...point);
    context.stroke();
  }
}

/** Grey levels (H·W) of strokes, as large as generated images, with the centre of mass centred. */
function rasterise(strokes) {
  const { width, height } = generator, points = strokes.flat();
  const low = [0, 1].map((k) => Math.min(...points.map((point) => point[k])));
  const high = [0, 1].map((k) => Math.max(...points.map((point) => point[k])));
  const longer = Math.max(high[0] - low[0], high[1] - low[1], 40);
  const size = inkSize(), brush = BRUSH * size, scale = (size - brush) / longer;
  let centre = [width / 2, height / 2], levels;
  for (let pass = 0; pass < 2; pass++) { // the second pass moves the centre of mass
    const fine = document.createElement("canvas");
    [fine.width, fine.height] = [FINE * width, FINE * height];
    const context = fine.getContext("2d", { willReadFrequently: true });
    drawLines(context, strokes, FINE * brush, (point) => [0, 1].map((k) => (
      FINE * (centre[k] + scale * (point[k] - (low[k] + high[k]) / 2)))));
    levels = average(context.getImageData(0, 0, fine.width, fine.height).data);
    const ink = levels.reduce((a, b) => a + b, 0) || 1;
    const mean = [0, 0];
    levels.forEach((level, i) => {
      mean[0] += (level / ink) * (i % width + 0.5);
      mean[1] += (level / ink) * (Math.floor(i / width) + 0.5);
    });
    centre = [0, 1].map((k) => {
      const side = k ? height : width, half = (scale * (high[k] - low[k]) + brush) / 2;
      return Math.min(Math.max(side - mean[k], half), Math.max(side - half, half));
    });
  }
  return levels;
}

/** Means of FINE×FINE pixels. */
function average(rgba) {
  const { width, height } = generator, levels = new Float32Array(width * height);
  for (let y = 0; y < FINE * height; y++) for (let x = 0; x < FINE * width; x++) {
    const to = Math.floor(y / FINE) * width + Math.floor(x / FINE);
    levels[to] += rgba[4 * (y * FINE * width + x)] / FINE ** 2;
  }
  return levels;
}

function recognise(levels) {
  const { z, probabilities } = generator.encode(levels);
  const order = classes.map((_, i) => i).sort((a, b) => probabilities[b] - probabilities[a]);
  const percent = Math.round(100 * probabilities[order[0]]);
  byId("hand-caption").textContent = `This is ${classes[order[0]]} (${percent} %).`;
  byId("hand-styles").replaceChildren();
  inTurn("hand", classes.map((className, index) => {
    const label = `${className} in this style`, parent = byId("hand-styles");
    const canvas = addTile(parent, className, label, () => enlarge(generator.generate(z, [[index, 1]]), label));
    if (index === order[0]) parent.lastChild.classList.add("likely");
    return () => show(canvas, generator.generate(z, [[index, 1]]));
  }));
}

function startHand() {
  const canvas = byId("hand"), context = canvas.getContext("2d");
  let strokes = [];
  const clear = (text) => {
    strokes = [];
    context.clearRect(0, 0, canvas.width, canvas.height);
    byId("hand-styles").replaceChildren();
    byId("hand-caption").textContent = text;
  };
  const place = (event) => {
    const box = canvas.getBoundingClientRect();
    return [
      ((event.clientX - box.left) * canvas.width) / box.width,
      ((event.clientY - box.top) * canvas.height) / box.height,
    ];
  };
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    if (!strokes.length) clear("");
    strokes.push([place(event)]);
    drawLines(context, strokes.slice(-1), 20, (point) => point);
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!canvas.hasPointerCapture(event.pointerId)) return;
    strokes.at(-1).push(place(event));
    drawLines(context, [strokes.at(-1).slice(-2)], 20, (point) => point);
  });
  for (const ended of ["pointerup", "pointercancel"]) {
    canvas.addEventListener(ended, () => strokes.length && recognise(rasterise(strokes)));
  }
  byId("clear").addEventListener("click", () => clear("Draw here."));
  byId("use-picture").addEventListener("click", () => {
    clear("");
    context.imageSmoothingEnabled = false;
    context.drawImage(byId("picture"), 0, 0, canvas.width, canvas.height);
    recognise(drawCurrent());
  });
  clear("Draw here.");
}

// ---- enlarging and downloading ----

function enlarge(bytes, text) {
  show(byId("large-picture"), bytes);
  byId("large-picture").setAttribute("aria-label", `${text}, enlarged`);
  byId("large-caption").textContent = text;
  byId("large").showModal();
}

/** Saves canvases in a grid as PNG; each pixel becomes a square. */
function download(canvases, columns, name) {
  const { width, height } = generator, gap = canvases.length > 1 ? 2 : 0;
  const scale = Math.max(1, Math.round(256 / (columns * (width + gap))));
  const sheet = document.createElement("canvas");
  sheet.width = scale * (columns * (width + gap) - gap);
  sheet.height = scale * (Math.ceil(canvases.length / columns) * (height + gap) - gap);
  const context = sheet.getContext("2d");
  context.fillRect(0, 0, sheet.width, sheet.height);
  context.imageSmoothingEnabled = false;
  canvases.forEach((canvas, i) => {
    const x = (i % columns) * (width + gap), y = Math.floor(i / columns) * (height + gap);
    context.drawImage(canvas, scale * x, scale * y, scale * width, scale * height);
  });
  sheet.toBlob((blob) => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(blob);
    link.download = name.replace(/[^\p{L}\p{N} ._-]/gu, "_");
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
  });
}

const fileName = (word) => (
  `${state.className === null ? model.name : state.className}-${word}seed${state.seed}.png`);

// ---- start ----

addClasses();
if (classes.length) {
  addOptions(byId("from"), classes[0]);
  addOptions(byId("to"), classes[classes.length - 1]);
  byId("from").addEventListener("change", () => choose({ className: byId("from").value }));
  byId("to").addEventListener("change", refreshWalk);
  byId("change-style").addEventListener("change", refreshWalk);
}
if (generator.encoder) startHand();
byId("seed").addEventListener("change", readSeed);
byId("seed").addEventListener("keydown", (event) => {
  const step = { ArrowUp: 1n, ArrowDown: -1n }[event.key];
  if (step) {
    event.preventDefault();
    setSeed(state.seed + step);
  }
});
byId("previous").addEventListener("click", () => setSeed(state.seed - 1n));
byId("next").addEventListener("click", () => setSeed(state.seed + 1n));
byId("random").addEventListener("click", () => setSeed(BigInt(Math.floor(Math.random() * 1e6))));
byId("more").addEventListener("click", () => {
  state.gridStart += BigInt(GRID);
  refreshGrid();
});
byId("share").addEventListener("input", refreshWalk);
byId("play").addEventListener("click", walk);
for (const id of ["picture-button", "enlarge"]) {
  byId(id).addEventListener("click", () => (
    enlarge(drawCurrent(), describe(state.className, state.seed))));
}
byId("download").addEventListener("click", () => download([byId("picture")], 1, fileName("")));
byId("download-grid").addEventListener("click", () => (
  download([...byId("grid").querySelectorAll("canvas")], 8, fileName("grid-"))));
refresh();
