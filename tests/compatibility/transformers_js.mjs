// Runs a converted folder in transformers.js: node transformers_js.mjs FOLDER WORK.
//
// WORK/inputs.json names the batches and their sizes, WORK/NAME.bin holds one in float32; beside it
// goes NAME.logits. Of WORK/picture.png the processor's pixels become WORK/picture.pixels.

import { readFile, writeFile } from "node:fs/promises";
import { basename, dirname } from "node:path";
import { AutoImageProcessor, AutoModel, RawImage, Tensor, env } from "@huggingface/transformers";

const [folder, work] = process.argv.slice(2);
env.allowRemoteModels = false;
env.localModelPath = `${dirname(folder)}/`;
const name = basename(folder);

const model = await AutoModel.from_pretrained(name, { dtype: "fp32" });
const inputs = JSON.parse(await readFile(`${work}/inputs.json`, "utf8"));
for (const [batch, size] of Object.entries(inputs)) {
  const bytes = await readFile(`${work}/${batch}.bin`);
  const pixels = new Float32Array(Uint8Array.from(bytes).buffer);
  const { logits } = await model({ pixel_values: new Tensor("float32", pixels, size) });
  await writeFile(`${work}/${batch}.logits`, logits.data);
}

const processor = await AutoImageProcessor.from_pretrained(name);
const { pixel_values } = await processor(await RawImage.read(`${work}/picture.png`));
await writeFile(`${work}/picture.pixels`, pixel_values.data);
