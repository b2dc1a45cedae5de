// A drawing by hand: the page names its class, and shows its style in every class.

const BRUSH = 0.12; // width of a line, relative to the longer side of the drawing
const FINE = 8; // lines are drawn at this many times the resolution and averaged

let inkFound = null;

/** Of generated images: whether the ink is dark on a light ground, and its mean longer side in pixels. */
function findInk() {
  if (inkFound) return inkFound;
  const { width, height } = generator, mean = (list) => list.reduce((a, b) => a + b, 0) / list.length;
  const images = classes.slice(0, 10).flatMap((className) => [0, 1].map((seed) => (
    [...generator.draw(className, seed)])));
  const isDark = mean(images.map(mean)) > 127;
  const sides = images.map((bytes) => {
    const xs = [], ys = [];
    bytes.forEach((level, i) => {
      if ((isDark ? 255 - level : level) <= 96) return;
      xs.push(i % width);
      ys.push(Math.floor(i / width));
    });
    if (!xs.length) return Math.min(width, height);
    return 1 + Math.max(Math.max(...xs) - Math.min(...xs), Math.max(...ys) - Math.min(...ys));
  });
  return (inkFound = { isDark, size: mean(sides) });
}

function drawLines(context, strokes, width, place, colour = "#fff") {
  Object.assign(context, { lineCap: "round", lineJoin: "round", lineWidth: width });
  context.strokeStyle = colour;
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
  const { isDark, size } = findInk(), brush = BRUSH * size, scale = (size - brush) / longer;
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
  return isDark ? levels.map((level) => 255 - level) : levels;
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

const handTiles = [];

function recognise(levels) {
  const { z, probabilities } = generator.encode(levels);
  const likely = probabilities.indexOf(Math.max(...probabilities));
  const percent = Math.round(100 * probabilities[likely]);
  setText(byId("hand-caption"), "This is ", { name: classes[likely] }, ` (${percent} %).`);
  while (handTiles.length < shownClasses.length) handTiles.push(addTile(byId("hand-styles")));
  byId("hand-styles").hidden = false;
  inTurn("hand", handTiles.map((tile, place) => {
    const className = shownClasses[place], text = `${className} in this style`;
    const image = () => generator.generate(z, generator.only(className));
    label(tile, className, text, () => enlarge(image(), text));
    tile.button.classList.toggle("likely", className === classes[likely]);
    return () => show(tile.canvas, image());
  }));
}

function startHand() {
  const canvas = byId("hand"), context = canvas.getContext("2d");
  let strokes = [], colour = "#fff";
  setTimeout(() => { // after the first image
    if (findInk().isDark) [canvas.style.background, colour] = ["#fff", "#000"];
  });
  const clear = (text) => {
    strokes = [];
    context.clearRect(0, 0, canvas.width, canvas.height);
    byId("hand-styles").hidden = true;
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
    drawLines(context, strokes.slice(-1), 20, (point) => point, colour);
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!canvas.hasPointerCapture(event.pointerId)) return;
    strokes.at(-1).push(place(event));
    drawLines(context, [strokes.at(-1).slice(-2)], 20, (point) => point, colour);
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
