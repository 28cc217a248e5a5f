/**
 * What runs a network in a browser: ONNX Runtime, on the GPU or in WebAssembly, or LiteRT.
 *
 * A runtime is imported when it is asked for. Pictures and labels are not known here.
 */

/**
 * @typedef {{data: Float32Array, width: number, height: number, channels: number}} Pixels
 * @typedef {object} Network
 * @property {string[]} outputs what it gives, by name
 * @property {(pixels: Pixels) => Promise<Float32Array>} logits of one image; one for each class
 */

/** For each `?runtime=`: the files of a folder that it takes, and its backends, the best first. */
export const RUNTIMES = {
  onnxruntime: {
    title: "ONNX Runtime",
    files: ["onnx/model.onnx", "model.onnx"], // as transformers.js looks, then at the root
    backends: {
      webgpu: (file, asked) => openOnnxOnGpu(file, asked),
      wasm: (file) => openOnnx(file, "ort.wasm.min.mjs", "wasm"),
    },
  },
  litert: { title: "LiteRT", files: ["model.tflite"], backends: { wasm: openLiteRt } },
};

const TITLES = { webgpu: "on the GPU (WebGPU)", wasm: "in WebAssembly" };

/**
 * Open a network with the first backend that runs an image.
 * @param {{title: string, backends: object}} runtime one of `RUNTIMES`
 * @param {{bytes: ArrayBuffer, beside: {path: string, data: Uint8Array}[]}} file the network, and
 *     the weights that it points into
 * @param {?string} asked the backend that somebody wants; null takes the best
 * @param {Pixels} image tried on it, which is where a GPU fails if it does
 * @returns {Promise<{network: Network, where: string}>} it, and what runs it, for people
 */
export async function opened(runtime, file, asked, image) {
  const names = Object.keys(runtime.backends);
  const known = asked === null || names.includes(asked);
  const reasons = known ? [] : [`${runtime.title} has no backend ${asked} here`];
  for (const name of known && asked !== null ? names.slice(names.indexOf(asked)) : names) {
    try {
      const network = await runtime.backends[name](file, asked === name);
      if (network.outputs.includes("logits")) await network.logits(image);
      const where = `${runtime.title}, ${TITLES[name]}`;
      return { network, where: [where, ...reasons].join("; ") };
    } catch (error) {
      if (name === names.at(-1)) throw error;
      reasons.push(`${TITLES[name]} it does not run: ${firstLine(error)}`);
    }
  }
}

/** @returns {Promise<Network>} refused where the processor would only pretend to be a GPU */
async function openOnnxOnGpu(file, asked) {
  const adapter = await navigator.gpu?.requestAdapter();
  if (!adapter) throw new Error("this browser offers no GPU");
  if (!asked && adapter.info.isFallbackAdapter) throw new Error("its GPU is an emulated one");
  return openOnnx(file, "ort.webgpu.min.mjs", "webgpu");
}

async function openOnnx(file, module, provider) {
  const folder = new URL("./onnxruntime-web/", import.meta.url).href;
  const ort = await import(folder + module);
  ort.env.wasm.wasmPaths = folder;
  const options = { executionProviders: [provider], externalData: file.beside };
  const session = await ort.InferenceSession.create(file.bytes, options);
  return {
    outputs: session.outputNames,
    async logits({ data, width, height, channels }) {
      const input = new ort.Tensor("float32", data, [1, channels, height, width]);
      return (await session.run({ pixel_values: input })).logits.data;
    },
  };
}

let liteRt; // loads once

/** On one thread: the build with threads cannot be used where pages are not isolated. */
async function openLiteRt({ bytes }) {
  const { loadAndCompile, loadLiteRt, Tensor } = await import("./litert/litert.js");
  await (liteRt ??= loadLiteRt(new URL("./litert/", import.meta.url).href));
  const model = await loadAndCompile(new Uint8Array(bytes), { accelerator: "wasm" });
  return {
    outputs: model.getOutputDetails().map(({ name }) => name),
    async logits(pixels) {
      const { width, height, channels } = pixels;
      const input = new Tensor(channelsLast(pixels), [1, height, width, channels]);
      const { logits } = await model.run({ pixel_values: input });
      const found = Float32Array.from(logits.toTypedArray());
      [input, logits].forEach((tensor) => tensor.delete()); // they lie in WebAssembly's memory
      return found;
    },
  };
}

/** @param {Pixels} pixels in planes */
function channelsLast({ data, width, height, channels }) {
  const count = width * height;
  return Float32Array.from(data, (_, at) => data[(at % channels) * count + Math.trunc(at / channels)]);
}

function firstLine(error) {
  return error.message.split("\n")[0];
}
