/** The page: takes pictures, shows classes. */

import { Classifier } from "./regnet.js";

const [network, where, message, chooser, picture, results, times] = [
  "network",
  "where",
  "message",
  "chooser",
  "picture",
  "results",
  "times",
].map((id) => document.getElementById(id));

const asked = new URLSearchParams(location.search);
const folder = asked.get("model") ?? "model/";
const wanted = { runtime: asked.get("runtime"), backend: asked.get("backend") };
const loading = Classifier.load(folder.replace(/\/*$/, "/"), wanted);

loading.then(
  (classifier) => {
    network.textContent = classifier.title;
    where.textContent = classifier.where;
    say("Ready: drop a picture anywhere, or choose one.");
  },
  (error) => {
    network.textContent = "";
    say(error.message);
  },
);

let shown = Promise.resolve(); // a session runs one picture at a time

chooser.addEventListener("change", () => {
  enqueue(chooser.files[0]);
  chooser.value = ""; // so that the same picture can be chosen again
});
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  document.body.classList.add("dragging");
});
document.addEventListener("dragleave", () => document.body.classList.remove("dragging"));
document.addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("dragging");
  enqueue(event.dataTransfer.files[0]);
});

function enqueue(file) {
  if (file) shown = shown.then(() => show(file));
}

/** Classify a file and show the best classes. */
async function show(file) {
  say("Looking…");
  try {
    const bitmap = await opened(file);
    showPicture(file);
    const { classes, milliseconds } = await (await loading).classify(bitmap);
    bitmap.close();
    results.replaceChildren(...classes.map(row));
    times.textContent =
      `${milliseconds.network.toFixed(1)} ms in the network, ` +
      `${milliseconds.preparing.toFixed(1)} ms to resize and normalise`;
    say(`${file.name}: ${classes[0].label}, ${percent(classes[0].probability)}`);
  } catch (error) {
    results.replaceChildren();
    times.textContent = "";
    say(error.message);
  }
}

async function opened(file) {
  try {
    return await createImageBitmap(file, { colorSpaceConversion: "none" });
  } catch {
    throw new Error(`${file.name} is no picture that this browser opens; try a PNG or a JPEG.`);
  }
}

function showPicture(file) {
  URL.revokeObjectURL(picture.src);
  picture.src = URL.createObjectURL(file);
  picture.alt = file.name;
  picture.hidden = false;
}

function row({ label, probability }) {
  const item = document.createElement("li");
  const [name, share] = [document.createElement("span"), document.createElement("span")];
  name.className = "label";
  name.textContent = label;
  share.className = "share";
  share.textContent = percent(probability);
  item.style.setProperty("--share", probability);
  item.append(name, share);
  return item;
}

function percent(probability) {
  return `${(100 * probability).toFixed(1)} %`;
}

function say(sentence) {
  message.textContent = sentence;
}
