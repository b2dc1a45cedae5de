// Draws images from a seed, like cgan.Sampler. Networks are the lists of layers of layers.py.
"use strict";

// ---- z from a seed: cgan/sampling/latents.py (Philox4x32-10, then Box-Muller) ----

/** The high and the low 32 bits of the product of two 32-bit words. */
function multiply(a, b) {
  const low = (a & 0xffff) * b; // below 2^48, so exact
  const high = (a >>> 16) * b;
  const sum = (high % 0x10000) * 0x10000 + low; // below 2^49
  return [(Math.floor(high / 0x10000) + Math.floor(sum / 2 ** 32)) >>> 0, sum % 2 ** 32];
}

function philox(counter, key) {
  let [a, b, c, d] = counter, [low, high] = key;
  for (let round = 0; round < 10; round++) {
    const [firstHigh, firstLow] = multiply(a, 0xd2511f53);
    const [secondHigh, secondLow] = multiply(c, 0xcd9e8d57);
    [a, b, c, d] = [
      (secondHigh ^ b ^ low) >>> 0, secondLow, (firstHigh ^ d ^ high) >>> 0, firstLow,
    ];
    low = (low + 0x9e3779b9) >>> 0;
    high = (high + 0xbb67ae85) >>> 0;
  }
  return [a, b, c, d];
}

/** z of a seed, a whole number from 0 to 2^63 - 1 (above 2^53 as a BigInt). */
function drawLatent(seed, latentDim) {
  const words = BigInt(seed);
  const key = [Number(words & 0xffffffffn), Number(words >> 32n)];
  const z = new Float32Array(latentDim);
  for (let start = 0; start < latentDim; start += 4) {
    const uniform = philox([start / 4, 0, 0, 0], key).map((word) => word * 2 ** -32);
    for (let i = 0; i < 4 && start + i < latentDim; i++) {
      const length = uniform[i & 2], angle = 2 * Math.PI * uniform[(i & 2) + 1];
      const radius = Math.sqrt(-2 * Math.log(length + 2 ** -32));
      z[start + i] = radius * (i & 1 ? Math.sin(angle) : Math.cos(angle));
    }
  }
  return z;
}

/** Spherical interpolation: cgan/sampling/walk.py. */
function slerp(first, last, t) {
  if (t === 0 || t === 1) return t ? last : first;
  const dot = (a, b) => a.reduce((sum, value, i) => sum + value * b[i], 0);
  const cosine = dot(first, last) / Math.sqrt(dot(first, first) * dot(last, last));
  const angle = Math.acos(Math.min(1, Math.max(-1, cosine)));
  if (Math.sin(angle) < 1e-4) return first.map((value, i) => (1 - t) * value + t * last[i]);
  const a = Math.sin((1 - t) * angle) / Math.sin(angle), b = Math.sin(t * angle) / Math.sin(angle);
  return first.map((value, i) => a * value + b * last[i]);
}

// ---- layers: each takes x = {data, height, width, channels} and returns the next x ----
// data is a Float32Array in the order (H, W, C). mix is a list of [class index, weight].

/** The weighted sum of rows of a table. */
function mixRows(table, mix, columns) {
  const row = new Float32Array(columns);
  for (const [index, weight] of mix) {
    for (let i = 0; i < columns; i++) row[i] += weight * table[index * columns + i];
  }
  return row;
}

const vector = (data) => ({ data, height: 1, width: 1, channels: data.length });
const each = (x, change) => ({ ...x, data: x.data.map(change) });

/** Adds value times the row of weights at "from" to the outputs at "to". */
function addScaled(out, to, weights, from, count, value) {
  for (let o = 0; o < count; o++) out[to + o] += value * weights[from + o];
}

function newImage(height, width, channels, bias) {
  const data = new Float32Array(height * width * channels);
  if (bias) for (let at = 0; at < data.length; at += channels) data.set(bias, at);
  return { data, height, width, channels };
}

const OPS = {
  linear(x, { outputs, weight, bias }) {
    const out = newImage(1, 1, outputs, bias);
    x.data.forEach((value, i) => {
      if (value) addScaled(out.data, 0, weight, i * outputs, outputs, value);
    });
    return out;
  },

  concat_embedding(x, { table }, mix, classes) {
    const row = mixRows(table, mix, table.length / classes);
    const data = new Float32Array(x.data.length + row.length);
    data.set(x.data);
    data.set(row, x.data.length);
    return vector(data);
  },

  add_embedding(x, { table }, mix) {
    const row = mixRows(table, mix, x.channels);
    return each(x, (value, i) => value + row[i]);
  },

  normalise(x, { classes, scale, shift }, mix) {
    const c = x.channels, chosen = classes > 1 ? mix : [[0, 1]];
    const factor = mixRows(scale, chosen, c), term = mixRows(shift, chosen, c);
    return each(x, (value, i) => value * factor[i % c] + term[i % c]);
  },

  relu: (x, { slope = 0 }) => each(x, (value) => (value > 0 ? value : slope * value)),
  silu: (x) => each(x, (value) => value / (1 + Math.exp(-value))),
  tanh: (x) => each(x, Math.tanh),
  clamp: (x) => each(x, (value) => Math.min(1, Math.max(-1, value))),
  flatten: (x) => vector(x.data),
  reshape: (x, { height, width, channels }) => ({ data: x.data, height, width, channels }),

  conv(x, { kernel, padding, groups, outputs, weight, bias }) {
    const out = newImage(x.height, x.width, outputs, bias);
    const inputs = x.channels / groups, share = outputs / groups;
    for (let ky = 0; ky < kernel; ky++) for (let kx = 0; kx < kernel; kx++) {
      const tap = (ky * kernel + kx) * inputs;
      for (let oy = 0; oy < x.height; oy++) for (let ox = 0; ox < x.width; ox++) {
        const iy = oy + ky - padding, ix = ox + kx - padding;
        if (iy < 0 || ix < 0 || iy >= x.height || ix >= x.width) continue;
        const from = (iy * x.width + ix) * x.channels, to = (oy * x.width + ox) * outputs;
        for (let g = 0; g < groups; g++) for (let i = 0; i < inputs; i++) {
          const value = x.data[from + g * inputs + i], row = (tap + i) * outputs;
          if (value) addScaled(out.data, to + g * share, weight, row + g * share, share, value);
        }
      }
    }
    return out;
  },

  conv_transpose(x, { kernel, stride, padding, outputs, weight, bias }) {
    const out = newImage(stride * x.height, stride * x.width, outputs, bias);
    for (let iy = 0; iy < x.height; iy++) for (let ix = 0; ix < x.width; ix++) {
      const from = (iy * x.width + ix) * x.channels;
      for (let ky = 0; ky < kernel; ky++) for (let kx = 0; kx < kernel; kx++) {
        const oy = stride * iy + ky - padding, ox = stride * ix + kx - padding;
        if (oy < 0 || ox < 0 || oy >= out.height || ox >= out.width) continue;
        const to = (oy * out.width + ox) * outputs, tap = (ky * kernel + kx) * x.channels;
        for (let i = 0; i < x.channels; i++) {
          const value = x.data[from + i];
          if (value) addScaled(out.data, to, weight, (tap + i) * outputs, outputs, value);
        }
      }
    }
    return out;
  },

  /** Twice the size, bilinear: torch's interpolate with align_corners=False. */
  resize: (x) => separable(x, (at, size) => [
    [Math.max((at - 1) >> 1, 0), at & 1 ? 0.75 : 0.25],
    [Math.min((at + 1) >> 1, size - 1), at & 1 ? 0.25 : 0.75],
  ]),

  /** Twice the size with the filter [1, 2, 1]; pixels beyond the edge are 0: resnet.upsample. */
  upsample: (x) => separable(x, (at, size) => (
    at & 1 ? [[at >> 1, 0.5], [(at + 1) >> 1, (at + 1) >> 1 < size ? 0.5 : 0]] : [[at >> 1, 1]]
  )),

  max_pool(x) {
    const out = newImage(x.height >> 1, x.width >> 1, x.channels);
    out.data.fill(-Infinity);
    for (let y = 0; y < 2 * out.height; y++) for (let ix = 0; ix < 2 * out.width; ix++) {
      const from = (y * x.width + ix) * x.channels;
      const to = ((y >> 1) * out.width + (ix >> 1)) * x.channels;
      for (let c = 0; c < x.channels; c++) {
        out.data[to + c] = Math.max(out.data[to + c], x.data[from + c]);
      }
    }
    return out;
  },

  scale_base(x, { height, width, base }) {
    const channels = x.channels;
    return { data: base.map((value, i) => value * x.data[i % channels]), height, width, channels };
  },

  /** A network in a network: its z is what it is given. */
  network: (x, { layers }, mix, classes) => forward(layers, x, mix, classes),

  residual(x, { layers }, mix, classes) {
    const added = forward(layers, x, mix, classes);
    return each(x, (value, i) => value + added.data[i]);
  },

  coupling(x, { layers, changes_first: changesFirst, middle }, mix, classes) {
    const first = x.data.slice(0, middle), second = x.data.slice(middle);
    const [given, changed] = changesFirst ? [second, first] : [first, second];
    const out = forward(layers, vector(given), mix, classes).data, count = changed.length;
    const next = changed.map((value, i) => value * Math.exp(Math.tanh(out[i])) + out[count + i]);
    const data = x.data.slice();
    data.set(next, changesFirst ? 0 : middle);
    return vector(data);
  },

  /** A part of the canvas; z chooses where it begins: photo.Generator. */
  crop(x, { height, width, quantiles, place, mirrored }, mix, classes, z) {
    const begin = (value) => (
      place ? Math.floor(quantiles.filter((limit) => value > limit).length / place) % 2 : 0
    );
    const top = begin(z[0]), left = begin(z[1]), flips = mirrored && z[2] > 0, c = x.channels;
    const out = newImage(height, width, c);
    for (let y = 0; y < height; y++) for (let ox = 0; ox < width; ox++) {
      const ix = left + (flips ? width - 1 - ox : ox), from = ((y + top) * x.width + ix) * c;
      out.data.set(x.data.subarray(from, from + c), (y * width + ox) * c);
    }
    return out;
  },

  rotate(x, { by }) {
    return vector(x.data.map((_, i) => x.data[(i + by) % x.data.length]));
  },
};

/** Twice the size; sources(at, size) lists [index, weight] of the pixels that a pixel mixes. */
function separable(x, sources) {
  const out = newImage(2 * x.height, 2 * x.width, x.channels);
  for (let y = 0; y < out.height; y++) for (let ox = 0; ox < out.width; ox++) {
    const to = (y * out.width + ox) * x.channels;
    for (const [iy, wy] of sources(y, x.height)) for (const [ix, wx] of sources(ox, x.width)) {
      if (!(wy * wx)) continue;
      const from = (iy * x.width + ix) * x.channels;
      addScaled(out.data, to, x.data, from, x.channels, wy * wx);
    }
  }
  return out;
}

function forward(layers, x, mix, classes) {
  return layers.reduce((h, layer) => OPS[layer.op](h, layer, mix, classes, x.data), x);
}

// ---- the model of a page ----

/** The arrays in base64: little-endian float16 or float32, one after the other. */
function decode(text, sizes) {
  const binary = atob(text), bytes = new Uint8Array(binary.length);
  for (let i = 0; i < bytes.length; i++) bytes[i] = binary.charCodeAt(i);
  let start = 0;
  return sizes.map(([length, dtype]) => {
    const size = dtype === "float16" ? 2 : 4;
    const part = bytes.slice(start, (start += size * length)).buffer;
    if (dtype === "float32") return new Float32Array(part);
    const halves = new Uint16Array(part), values = new Float32Array(length);
    for (let i = 0; i < length; i++) values[i] = fromHalf(halves[i]);
    return values;
  });
}

function fromHalf(half) {
  const sign = half >> 15 ? -1 : 1, exponent = (half >> 10) & 31, fraction = half & 1023;
  if (!exponent) return sign * 2 ** -24 * fraction;
  return sign * 2 ** (exponent - 15) * (1 + fraction / 1024);
}

const WEIGHTS = ["weight", "bias", "scale", "shift", "table", "base", "quantiles"];

/** Replaces the indices of weights in layers by the weights. */
function attach(layers, arrays) {
  for (const layer of layers) {
    for (const key of WEIGHTS) if (Number.isInteger(layer[key])) layer[key] = arrays[layer[key]];
    if (layer.layers) attach(layer.layers, arrays);
  }
  return layers;
}

class Generator {
  /** The JSON that page.py writes. */
  constructor(model) {
    const arrays = decode(model.weights, model.arrays);
    this.classes = model.classes; // by index; empty if it is unconditional
    this.shown = model.shown; // the same names, in the order in which people see them
    this.latentDim = model.latent_dim;
    [this.channels, this.height, this.width] = model.image_shape;
    this.layers = attach(model.generator, arrays);
    this.encoder = model.encoder && attach(model.encoder, arrays);
  }

  /** Bytes (H·W·C) of the image of z; mix is a list of [class index, weight]. */
  generate(z, mix) {
    const signed = forward(this.layers, vector(z), mix, this.classes.length).data;
    return Uint8Array.from(signed, (value) => Math.round(127.5 * (value + 1)));
  }

  /** Bytes (H·W·C) of the image of a class and a seed. */
  draw(className, seed) {
    return this.generate(drawLatent(seed, this.latentDim), this.only(className));
  }

  /** A class as a mix; none if it is unconditional. */
  only(className) {
    if (!this.classes.length && className == null) return [];
    const index = this.classes.indexOf(String(className));
    if (index < 0) throw new Error(`there is no class ${className}: ${this.shown.join(", ")}`);
    return [[index, 1]];
  }

  /** z and the probability of each class of an image, grey levels (H·W) from 0 to 255. */
  encode(levels) {
    const x = newImage(this.height, this.width, this.channels);
    x.data.set(Float32Array.from(levels, (level) => level / 127.5 - 1));
    const output = forward(this.encoder, x, [], 0).data;
    const logits = [...output.subarray(this.latentDim)], top = Math.max(...logits);
    const weights = logits.map((logit) => Math.exp(logit - top));
    const total = weights.reduce((a, b) => a + b, 0);
    return { z: output.slice(0, this.latentDim), probabilities: weights.map((w) => w / total) };
  }
}
