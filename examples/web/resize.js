/**
 * Pillow's resizing, to the bit, because a canvas smooths in a way of its own.
 *
 * Pillow (`src/libImaging/Resample.c`, version 13) resizes bytes in two passes, rows first. Each
 * pass weights the source pixels below a stretched filter, with weights rounded to 22 binary
 * places, and rounds its sums to bytes. All of that is exact in a JavaScript number.
 */

const PLACES = 2 ** 22;

/** Pillow's number of a filter to its support, in source pixels, and its shape. */
const FILTERS = {
  1: { support: 3, shape: (x) => (x >= -3 && x < 3 ? sinc(x) * sinc(x / 3) : 0) }, // Lanczos
  2: { support: 1, shape: (x) => Math.max(0, 1 - Math.abs(x)) }, // bilinear
  3: { support: 2, shape: (x) => cubic(Math.abs(x)) }, // bicubic
  4: { support: 0.5, shape: (x) => (x > -0.5 && x <= 0.5 ? 1 : 0) }, // box
  5: { support: 1, shape: (x) => (Math.abs(x) < 1 ? sinc(x) * window(x) : 0) }, // Hamming
};

function sinc(x) {
  return x === 0 ? 1 : Math.sin(x * Math.PI) / (x * Math.PI);
}

function window(x) {
  return 0.54 + 0.46 * Math.cos(x * Math.PI);
}

function cubic(x) {
  const a = -0.5;
  if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
  return x < 2 ? (((x - 5) * x + 8) * x - 4) * a : 0;
}

/**
 * A picture of bytes: `data` holds `channels` planes of `height` rows of `width` values.
 * @typedef {{data: Uint8Array, width: number, height: number, channels: number}} Picture
 */

/**
 * Resize as `PIL.Image.resize((width, height), filter)` does.
 * @param {Picture} picture
 * @param {number} width of the result, in pixels
 * @param {number} height likewise
 * @param {number} filter Pillow's number, 0 to 5
 * @returns {Picture}
 */
export function resize(picture, width, height, filter) {
  const taps = tapsOf(picture.width, width, filter);
  const wide = picture.width === width ? picture : alongRows(picture, taps);
  if (wide.height === height) return wide;
  return transposed(alongRows(transposed(wide), tapsOf(wide.height, height, filter)));
}

/** For each pixel of the result: the first source pixel, and the weights from there on. */
function tapsOf(from, to, number) {
  if (number === 0) return nearest(from, to);
  if (!(number in FILTERS)) {
    throw new Error(`Pillow's filter ${number} is not known here; use one from 0 to 5.`);
  }
  const scale = from / to;
  const stretch = Math.max(scale, 1);
  const { support, shape } = FILTERS[number];
  return Array.from({ length: to }, (_, index) => {
    const centre = (index + 0.5) * scale;
    const first = Math.max(0, Math.trunc(centre - support * stretch + 0.5));
    const end = Math.min(from, Math.trunc(centre + support * stretch + 0.5));
    const raw = Array.from({ length: end - first }, (_, k) =>
      shape((k + first - centre + 0.5) / stretch),
    );
    const sum = raw.reduce((total, weight) => total + weight, 0);
    return { first, weights: raw.map((weight) => roundAway((weight / sum) * PLACES)) };
  });
}

/** Pillow steps from pixel to pixel by adding, so the rounding of its sums is repeated here. */
function nearest(from, to) {
  const taps = [];
  for (let index = 0, at = (from / to) * 0.5; index < to; index += 1, at += from / to) {
    taps.push({ first: Math.trunc(at), weights: [PLACES] });
  }
  return taps;
}

function roundAway(value) {
  return Math.trunc(value < 0 ? value - 0.5 : value + 0.5);
}

function alongRows({ data, width, height, channels }, taps) {
  const result = new Uint8ClampedArray(channels * height * taps.length);
  for (let row = 0, place = 0; row < channels * height; row += 1) {
    for (const { first, weights } of taps) {
      let sum = PLACES / 2;
      for (let k = 0; k < weights.length; k += 1) {
        sum += data[row * width + first + k] * weights[k];
      }
      result[place] = Math.floor(sum / PLACES); // clamped to a byte
      place += 1;
    }
  }
  return { data: new Uint8Array(result.buffer), width: taps.length, height, channels };
}

function transposed({ data, width, height, channels }) {
  const result = new Uint8Array(data.length);
  for (let plane = 0; plane < data.length; plane += width * height) {
    for (let y = 0; y < height; y += 1) {
      for (let x = 0; x < width; x += 1) {
        result[plane + x * height + y] = data[plane + y * width + x];
      }
    }
  }
  return { data: result, width: height, height: width, channels };
}
