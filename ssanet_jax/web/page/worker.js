/** The worker, which decodes photos and runs the network while the page stays responsive. */

import { openPhoto } from './photo.js';
import { toPrediction } from './prediction.js';
import { preprocess } from './preprocessing.js';
import { startSession } from './session.js';

let model;
let session;

let previous = Promise.resolve();

// One call after the other, so that only one decoded photo is in memory.
self.onmessage = ({ data }) => {
  previous = previous.then(() => answer(data));
};

async function answer({ id, call, argument }) {
  try {
    const result = await (call === 'load' ? load(argument) : predict(argument));
    self.postMessage({ id, result });
  } catch (error) {
    self.postMessage({ id, error: error.message || String(error) });
  }
}

async function load(description) {
  model = description;
  session = await startSession(description.files, (loaded, total) => self.postMessage({ progress: { loaded, total } }));
}

/** @param {File} file */
async function predict(file) {
  const start = performance.now();
  const photo = await openPhoto(file);
  try {
    const size = { width: photo.width, height: photo.height };
    const outputs = await session.run(preprocess(photo, model.preprocessing), model.preprocessing.image_size);
    const prediction = toPrediction(outputs, model, size);
    const milliseconds = performance.now() - start;
    return { prediction, size, milliseconds, preview: await photo.preview() };
  } finally {
    photo.close();
  }
}
