/** The page: takes photos, shows what is found, and offers the table. */

import { whatIsMissing } from './browser.js';
import { Recognizer } from './recognizer.js';
import { Card, counted } from './results.js';
import { toCsv } from './table.js';

const element = (id) => document.getElementById(id);
const inputs = [element('choose'), element('camera')];
let batch = { cards: [], done: 0, failed: 0 }; // photos since the page was idle
let rows = []; // of the table
let recognizer;
let ready; // resolves when the network is loaded

async function start() {
  const missing = whatIsMissing();
  if (missing) throw new Error(missing);
  say('Loading …');
  recognizer = new Recognizer(showProgress);
  const description = await fetchDescription();
  describe(description);
  await recognizer.load(description);
  element('progress').hidden = true;
  if (!batch.cards.length) say('Ready.');
}

async function fetchDescription() {
  const response = await fetch('model.json', { cache: 'no-cache' }).catch(() => null);
  if (!response?.ok) throw new Error('Cannot load model.json. Check your connection, or upload the whole folder again.');
  const description = await response.json();
  const { model, runtime } = description.files;
  for (const file of [model, runtime.module, runtime.wasm]) {
    file.url = new URL(file.url, document.baseURI).href; // a worker has another base
  }
  return description;
}

function describe({ class_names: names, provenance, license, runtime_version: runtime }) {
  element('model').textContent = `Model ${provenance.run}, ${names.length} ${names.length === 1 ? 'class' : 'classes'}`;
  const facts = {
    run: provenance.run,
    classes: names.length,
    weights: provenance.weights,
    'written by': `ssanet-jax ${provenance.version}`,
    digest: provenance.digest.slice(0, 16),
    'license of the pretrained weights': license || 'not known',
    runtime: `onnxruntime-web ${runtime}`,
  };
  for (const [name, value] of Object.entries(facts)) {
    const [term, definition] = [document.createElement('dt'), document.createElement('dd')];
    term.textContent = name;
    definition.textContent = value;
    element('facts').append(term, definition);
  }
}

function showProgress(loaded, total) {
  const progress = element('progress');
  progress.hidden = false;
  progress.max = total;
  progress.value = loaded;
  const [done, all] = [loaded, total].map((bytes) => Math.round(bytes / 1e6));
  element('progress-text').textContent = loaded < total ? `${done} of ${all} MB` : 'Starting the network …';
}

function say(text) {
  element('status').textContent = text;
}

/** @param {Iterable<File>} files */
async function add(files) {
  const added = Array.from(files, (file) => ({ file, card: new Card(file.name) }));
  if (!added.length) return;
  batch.cards.push(...added);
  element('results').prepend(...added.map(({ card }) => card.element));
  element('clear').hidden = false;
  const current = batch;
  report(current);
  try {
    await ready;
  } catch (error) {
    for (const { card } of added) card.fail(error.message);
    say(error.message);
    return;
  }
  await Promise.all(added.map((photo) => recognize(photo, current)));
  if (current === batch && current.done === current.cards.length) batch = { cards: [], done: 0, failed: 0 };
}

async function recognize({ file, card }, current) {
  try {
    const result = await recognizer.predict(file);
    card.show(result);
    if (!card.element.isConnected) return; // cleared in the meantime
    rows.push({ file: file.name, prediction: result.prediction });
    element('download').hidden = false;
  } catch (error) {
    card.fail(error.message);
    current.failed += 1;
  }
  current.done += 1;
  if (current === batch) report(current);
}

function report({ cards, done, failed }) {
  const left = failed ? ` ${counted(failed, 'file')} could not be read.` : '';
  if (done < cards.length) say(`Looking at photo ${done + 1} of ${cards.length} …`);
  else say(`${counted(done - failed, 'photo')} done.${left}`);
}

function clear() {
  batch = { cards: [], done: 0, failed: 0 };
  rows = [];
  element('results').replaceChildren();
  element('download').hidden = element('clear').hidden = true;
  say('Ready.');
  inputs[0].focus();
}

function download() {
  const link = document.createElement('a');
  link.href = URL.createObjectURL(new Blob([toCsv(rows)], { type: 'text/csv' }));
  link.download = 'predictions.csv';
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

for (const input of inputs) {
  input.addEventListener('change', () => {
    add(input.files);
    input.value = ''; // so that the same photo can be chosen again
  });
}
document.addEventListener('dragover', (event) => {
  event.preventDefault();
  document.body.classList.add('dragging');
});
document.addEventListener('dragleave', (event) => {
  if (!event.relatedTarget) document.body.classList.remove('dragging');
});
document.addEventListener('drop', (event) => {
  event.preventDefault();
  document.body.classList.remove('dragging');
  add(event.dataTransfer.files);
});
document.addEventListener('paste', (event) => add(event.clipboardData.files));
element('download').addEventListener('click', download);
element('clear').addEventListener('click', clear);

ready = start();
ready.catch((error) => {
  say(error.message);
  element('status').classList.add('unsure');
  element('progress').hidden = true;
  for (const input of inputs) input.disabled = true;
});
