/**
 * A converted folder in the browser: its image processor, its network, its labels.
 *
 * Knows nothing of the page; `page.js` does the rest.
 */

import { resize } from "./resize.js";
import { opened, RUNTIMES } from "./runtimes.js";

const SQUASH_FROM = 384; // pixels: ConvNeXT's processor squashes from here on instead of cropping
const WEIGHTS = /model[-\w]*\.safetensors/g; // what an ONNX file may point into
const LARGEST_GRAPH = 16 << 20; // bytes; a larger ONNX file holds its weights itself

/** What transformers 5 takes for the keys that a `preprocessor_config.json` leaves out. */
const DEFAULTS = {
  do_resize: true,
  size: { shortest_edge: 384 },
  crop_pct: 224 / 256,
  resample: 3,
  do_rescale: true,
  rescale_factor: 1 / 255,
  do_normalize: true,
  image_mean: [0.5, 0.5, 0.5],
  image_std: [0.5, 0.5, 0.5],
  resize_mode: "convnext",
};

/**
 * @typedef {import("./resize.js").Picture} Picture
 * @typedef {import("./runtimes.js").Pixels} Pixels
 * @typedef {{label: string, probability: number}} Class
 */

/** A classifier, loaded and ready. */
export class Classifier {
  constructor(network, config, processor) {
    this.network = network;
    this.config = config;
    this.processor = { ...DEFAULTS, ...processor };
    this.where = "";
  }

  /**
   * Load `config.json`, `preprocessor_config.json` and the network of a converted folder.
   * @param {string} folder its address, ending in a slash
   * @param {{runtime?: ?string, backend?: ?string}} wanted a key of `RUNTIMES`, and one of its
   *     backends; without, ONNX Runtime and the best that there is
   * @returns {Promise<Classifier>}
   */
  static async load(folder, { runtime = null, backend = null } = {}) {
    const kind = RUNTIMES[runtime ?? "onnxruntime"];
    if (!kind) throw new Error(`There is no runtime ${runtime} here.`);
    const recorded = fetched(folder, ["conversion.json"]).then((response) => response.json(), () => ({}));
    const [config, processor, record, file] = await Promise.all([
      fetched(folder, ["config.json"]).then((response) => response.json()),
      fetched(folder, ["preprocessor_config.json"]).then((response) => response.json()),
      recorded,
      recorded.then(({ files = {} }) => fetched(folder, thereFirst(kind.files, files))),
    ]);
    const name = kind.files.find((each) => file.url.endsWith(`/${each}`));
    if (record.files?.[name]?.interface) {
      throw new Error(`${name} has --normalize or --softmax inside; export it without for this page.`);
    }
    const classifier = new Classifier(null, config, processor);
    const bytes = await file.arrayBuffer();
    const beside = await weightsBeside(folder, bytes);
    const files = { bytes, beside };
    const { network, where } = await opened(kind, files, backend, classifier.black);
    if (!network.outputs.includes("logits")) {
      throw new Error(`The folder ${folder} holds no classifier, so there are no classes to show.`);
    }
    return Object.assign(classifier, { network, where });
  }

  /** @returns {Pixels} an image of nothing, in the size that the folder's processor makes */
  get black() {
    const [edge, channels] = [this.processor.size.shortest_edge, this.config.num_channels ?? 3];
    return { data: new Float32Array(channels * edge ** 2), width: edge, height: edge, channels };
  }

  /** @returns {string} what the folder holds, for people */
  get title() {
    const { layer_type: kind, depths } = this.config;
    const size = this.processor.size.shortest_edge;
    return [
      `RegNet${kind.toUpperCase()}`,
      `${depths.join("-")} blocks`,
      `${size} × ${size} pixels`,
    ].join(", ");
  }

  /** @returns {string} a class's name; where the folder gives none, the one transformers gives */
  labelOf(index) {
    return this.config.id2label?.[index] ?? `LABEL_${index}`;
  }

  /**
   * Bring a picture to the network's input, as the folder's processor says.
   * @param {ImageBitmap} bitmap
   * @returns {Pixels} normalised
   */
  preprocess(bitmap) {
    return preprocess(pixelsOf(bitmap, this.processor.image_mean.length), this.processor);
  }

  /**
   * Run the network on one image.
   * @param {Pixels} pixels
   * @returns {Promise<Float32Array>} one logit per class
   */
  async logits(pixels) {
    return this.network.logits(pixels);
  }

  /**
   * The classes of one picture, the most probable first.
   * @param {ImageBitmap} bitmap
   * @param {number} top how many
   * @returns {Promise<{classes: Class[], milliseconds: {preparing: number, network: number}}>}
   */
  async classify(bitmap, top = 5) {
    const begin = performance.now();
    const pixels = this.preprocess(bitmap);
    const middle = performance.now();
    const probabilities = softmax(await this.logits(pixels));
    const end = performance.now();
    const classes = probabilities
      .map((probability, index) => ({ label: this.labelOf(index), probability }))
      .sort((one, other) => other.probability - one.probability)
      .slice(0, top);
    return { classes, milliseconds: { preparing: middle - begin, network: end - middle } };
  }
}

/** Some names, those first that `conversion.json` lists, so that nothing is asked for in vain. */
function thereFirst(names, recorded) {
  return names.toSorted((one, other) => (other in recorded) - (one in recorded));
}

/** The first of some files that a folder has. */
async function fetched(folder, names) {
  for (const name of names) {
    const response = await fetch(new URL(name, new URL(folder, document.baseURI)));
    if (response.ok) return response;
  }
  throw new Error(
    `The folder ${folder} has no ${names.at(-1)}; serve one that \`regnet convert\` wrote.`,
  );
}

/**
 * The weights of an ONNX file that shares them (`--share-weights`): onnxruntime-web opens no file by
 * itself, so it is handed those that the graph names.
 * @param {string} folder
 * @param {ArrayBuffer} network
 * @returns {Promise<{path: string, data: Uint8Array}[]>} none of a file that holds them itself
 */
async function weightsBeside(folder, network) {
  if (network.byteLength > LARGEST_GRAPH) return [];
  const names = new Set(new TextDecoder("latin1").decode(network).match(WEIGHTS));
  const opened = async (path) => {
    const response = await fetched(folder, [path]);
    return { path, data: new Uint8Array(await response.arrayBuffer()) };
  };
  return Promise.all([...names].map(opened));
}

/**
 * The bytes of a bitmap, laid on white, as planes: red, green and blue, or Pillow's luma.
 * @param {ImageBitmap} bitmap
 * @param {number} channels 1 or 3
 */
function pixelsOf(bitmap, channels) {
  if (channels !== 1 && channels !== 3) {
    throw new Error(`The network takes ${channels} channels; this page knows grey and colour.`);
  }
  const { width, height } = bitmap;
  const context = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
  context.fillStyle = "white";
  context.fillRect(0, 0, width, height);
  context.drawImage(bitmap, 0, 0);
  const rgba = context.getImageData(0, 0, width, height).data;
  const count = width * height;
  const data = new Uint8Array(channels * count);
  for (let pixel = 0; pixel < count; pixel += 1) {
    const at = 4 * pixel;
    const [red, green, blue] = [rgba[at], rgba[at + 1], rgba[at + 2]];
    if (channels === 1) {
      data[pixel] = luma(red, green, blue);
    } else {
      data[pixel] = red;
      data[count + pixel] = green;
      data[2 * count + pixel] = blue;
    }
  }
  return { data, width, height, channels };
}

/** ITU-R 601-2 in Pillow's integers. */
function luma(red, green, blue) {
  return (19595 * red + 38470 * green + 7471 * blue + 2 ** 15) >> 16;
}

/**
 * Resize, crop, rescale and normalise: `regnet.RegNetImageProcessor`, to the bit.
 * @param {Picture} picture
 * @param {typeof DEFAULTS} processor
 */
function preprocess(picture, processor) {
  const cut = processor.do_resize ? resizedAndCropped(picture, processor) : picture;
  const count = cut.width * cut.height;
  const data = new Float32Array(cut.data.length);
  for (let channel = 0; channel < cut.channels; channel += 1) {
    const table = normalised(processor, channel);
    for (let at = channel * count; at < (channel + 1) * count; at += 1) {
      data[at] = table[cut.data[at]];
    }
  }
  return { ...cut, data };
}

/** What each byte becomes: the rescaling in float64, the rest in float32, as numpy does it. */
function normalised(processor, channel) {
  const { do_rescale, rescale_factor, do_normalize, image_mean, image_std } = processor;
  const mean = do_normalize ? Math.fround(image_mean[channel]) : 0;
  const std = do_normalize ? Math.fround(image_std[channel]) : 1;
  return Float32Array.from({ length: 256 }, (_, byte) => {
    const value = Math.fround(do_rescale ? byte * rescale_factor : byte);
    return Math.fround(value - mean) / std;
  });
}

function resizedAndCropped(picture, { size, crop_pct, resample, resize_mode }) {
  const edge = size.shortest_edge;
  if (resize_mode === "squash" || (resize_mode === "convnext" && edge >= SQUASH_FROM)) {
    return resize(picture, edge, edge, resample);
  }
  const short = Math.trunc(edge / (crop_pct ?? DEFAULTS.crop_pct));
  const least = Math.min(picture.width, picture.height);
  const width = Math.floor((short * picture.width) / least);
  const height = Math.floor((short * picture.height) / least);
  const resized = resize(picture, width, height, resample);
  const start = resize_mode === "convnext" ? (excess) => excess >> 1 : halfToEven;
  return cropped(resized, start(width - edge), start(height - edge), edge);
}

/** Half of a whole number, rounded as Python rounds. */
function halfToEven(excess) {
  return excess % 4 === 3 ? (excess + 1) / 2 : excess >> 1;
}

function cropped({ data, width, height, channels }, left, top, edge) {
  const result = new Uint8Array(channels * edge * edge);
  for (let channel = 0; channel < channels; channel += 1) {
    for (let y = 0; y < edge; y += 1) {
      const from = (channel * height + top + y) * width + left;
      result.set(data.subarray(from, from + edge), (channel * edge + y) * edge);
    }
  }
  return { data: result, width: edge, height: edge, channels };
}

function softmax(logits) {
  const largest = logits.reduce((one, other) => Math.max(one, other));
  const shifted = Array.from(logits, (logit) => Math.exp(logit - largest));
  const sum = shifted.reduce((one, other) => one + other);
  return shifted.map((value) => value / sum);
}
