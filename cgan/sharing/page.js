// The page around engine.js: it reads the controls and shows images.

const model = JSON.parse(document.getElementById("model").textContent);
const generator = new Generator(model);
const { classes, shown } = generator;
const byId = (id) => document.getElementById(id);

const GRID = 24; // images below the picture
const MAX_TILES = 48; // classes side by side; page.py has the same limit
const MAX_BUTTONS = 24; // with more classes, a list replaces the buttons
const MAX_SEED = 2n ** 63n - 1n - 1000n;
const FRAME_MS = 12; // then the browser gets a turn
const WALK_MS = 2500; // from one end to the other

const state = { className: classes.length ? shown[0] : null, seed: 0n, gridStart: 1n };

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
  await nextFrame(); // what changed before is shown first
  let start = performance.now();
  for (const task of tasks) {
    if (runs[name] !== run) return false;
    task();
    if (performance.now() - start > FRAME_MS) {
      await nextFrame();
      start = performance.now();
    }
  }
  return runs[name] === run;
}

/** A button with an image and a caption; it calls what its "choose" is at that time. */
function addTile(parent) {
  const tile = {
    button: document.createElement("button"),
    canvas: document.createElement("canvas"),
    name: document.createElement("bdi"),
  };
  const text = document.createElement("span");
  text.append(tile.name);
  tile.button.type = "button";
  tile.button.append(tile.canvas, text);
  tile.button.addEventListener("click", () => tile.choose());
  [tile.canvas.width, tile.canvas.height] = [generator.width, generator.height];
  parent.append(tile.button);
  return tile;
}

function label(tile, caption, description, choose) {
  tile.name.textContent = caption;
  tile.button.setAttribute("aria-label", description);
  tile.choose = choose;
}

/** Text in which names stand alone, whatever the direction of their letters. */
function setText(element, ...parts) {
  element.replaceChildren(...parts.map((part) => {
    if (typeof part === "string") return part;
    const name = document.createElement("bdi");
    name.textContent = part.name;
    return name;
  }));
}

const describe = (className, seed) => `${className === null ? "" : `${className}, `}seed ${seed}`;

// ---- one image ----

const drawCurrent = () => generator.draw(state.className, state.seed);

function refresh() {
  const { className, seed } = state, text = describe(className, seed);
  show(byId("picture"), drawCurrent());
  performance.mark("cgan-first-image");
  byId("picture").setAttribute("aria-label", `generated image: ${text}`);
  setText(byId("caption"), ...(className === null ? [] : [{ name: className }, ", "]), `seed ${seed}`);
  setText(byId("command"), `cgan generate ${model.reference}`, ...quotedClass(), ` -n 1 --seed ${seed}`);
  byId("seed").value = seed;
  seedError("");
  state.gridStart = seed + 1n;
  refreshGrid();
  refreshStyles();
  refreshWalk();
}

function quotedClass() {
  const { className } = state;
  if (className === null) return [];
  const quoted = `'${className.replaceAll("'", "'\\''")}'`;
  return [" --class ", { name: /^[\w.-]+$/.test(className) ? className : quoted }];
}

function choose(change) {
  Object.assign(state, change);
  if (change.className !== undefined) selectClass(change.className);
  refresh();
}

function setSeed(seed) {
  choose({ seed: seed < 0n ? 0n : seed > MAX_SEED ? MAX_SEED : seed });
}

function seedError(text) {
  byId("seed-error").textContent = text;
  byId("seed").setAttribute("aria-invalid", text !== "");
}

function typedSeed() {
  const text = byId("seed").value.trim();
  return /^\d{1,19}$/.test(text) && BigInt(text) <= MAX_SEED ? BigInt(text) : null;
}

function readSeed() {
  const seed = typedSeed();
  if (seed === null) seedError(`A seed is a whole number from 0 to ${MAX_SEED}.`);
  else setSeed(seed);
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
  for (const className of shown) {
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
  for (const name of shown) list.add(new Option(name, name, false, name === selected));
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

const gridTiles = Array.from({ length: GRID }, () => addTile(byId("grid")));
const shownClasses = shown.slice(0, MAX_TILES);
const styleTiles = shownClasses.map(() => addTile(byId("styles")));

async function refreshGrid() {
  const last = MAX_SEED - BigInt(GRID);
  if (state.gridStart > last) state.gridStart = last;
  const { className, gridStart } = state;
  byId("download-grid").disabled = true;
  const tasks = gridTiles.map((tile, k) => {
    const seed = gridStart + BigInt(k);
    label(tile, seed, describe(className, seed), () => setSeed(seed));
    return () => show(tile.canvas, generator.draw(className, seed));
  });
  if (await inTurn("grid", tasks)) byId("download-grid").disabled = false;
}

function refreshStyles() {
  const { seed } = state;
  inTurn("styles", styleTiles.map((tile, index) => {
    const className = shown[index];
    label(tile, className, describe(className, seed), () => choose({ className }));
    return () => show(tile.canvas, generator.draw(className, seed));
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
  const caption = classes.length
    ? [`${100 - percent} % `, { name: from.value }, `, ${percent} % `, { name: to.value }]
    : [`${percent} % of the way from seed ${state.seed} to the next`];
  setText(byId("walk-caption"), ...caption);
  byId("share").setAttribute("aria-valuetext", byId("walk-caption").textContent);
}

const refreshWalk = () => inTurn("walk", [() => walkTo(byId("share").value / 100)]);

async function walk() {
  const button = byId("play"), share = byId("share"), run = (runs.play = (runs.play || 0) + 1);
  const walking = button.getAttribute("aria-pressed") !== "true";
  button.setAttribute("aria-pressed", walking);
  let before = await nextFrame(), position = share.value / 100, direction = 1;
  while (walking && runs.play === run) {
    const now = await nextFrame();
    if (share.value !== String(Math.round(100 * position))) position = share.value / 100; // dragged
    position += (direction * (now - before)) / WALK_MS;
    before = now;
    if (position >= 1 || position <= 0) direction = position >= 1 ? -1 : 1;
    position = Math.min(1, Math.max(0, position));
    share.value = Math.round(100 * position);
    walkTo(position);
    window.cgan.frames = (window.cgan.frames || 0) + 1;
  }
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

const fileName = (word, seed) => (
  `${state.className === null ? model.name : state.className}-${word}seed${seed}.png`);

// ---- start ----

addClasses();
if (classes.length) {
  addOptions(byId("from"), shown[0]);
  addOptions(byId("to"), shown[shown.length - 1]);
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
    setSeed((typedSeed() ?? state.seed) + step);
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
byId("download").addEventListener("click", () => download([byId("picture")], 1, fileName("", state.seed)));
byId("download-grid").addEventListener("click", () => (
  download(gridTiles.map((tile) => tile.canvas), 8, fileName("grid-", state.gridStart))));
refresh();
