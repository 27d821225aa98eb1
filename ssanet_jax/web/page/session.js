/** The network: downloads it and onnxruntime, and runs it. */

// Outputs that the page shows. The others, such as embeddings, stay in the runtime.
const SHOWN = ['logits', 'probabilities', 'novelty', 'image_logits', 'part_logits', 'boxes', 'present', 'angle'];

const MAX_THREADS = 4; // more compete with the page, and phones have few fast cores

/**
 * A file to download.
 * @typedef {Object} RemoteFile
 * @property {string} url
 * @property {number} bytes its size
 * @property {string} [integrity] its hash, for a file from another host
 */

/**
 * Starts onnxruntime with the network.
 * @param {{model: RemoteFile, runtime: {module: RemoteFile, wasm: RemoteFile}}} files
 * @param {(loaded: number, total: number) => void} onProgress bytes
 * @returns {Promise<Session>}
 * @throws {Error} a file cannot be loaded; the message is for the user
 */
export async function startSession(files, onProgress) {
  const wanted = [files.model, files.runtime.module, files.runtime.wasm];
  const total = wanted.reduce((sum, file) => sum + file.bytes, 0);
  let loaded = 0;
  const download = (file) => downloadFile(file, (bytes) => onProgress(loaded += bytes, total));
  const [model, module, wasm] = await Promise.all(wanted.map(download));

  const ort = await importModule(module);
  // Threads share memory, which browsers allow only to pages that were sent with certain headers (docs/web.md).
  ort.env.wasm.numThreads = self.crossOriginIsolated ? Math.min(navigator.hardwareConcurrency, MAX_THREADS) : 1;
  ort.env.wasm.wasmBinary = wasm.buffer;
  const session = await ort.InferenceSession.create(model, { executionProviders: ['wasm'], logSeverityLevel: 3 });
  return new Session(ort, session);
}

class Session {
  constructor(ort, session) {
    this.ort = ort;
    this.session = session;
    this.shown = session.outputNames.filter((name) => SHOWN.includes(name));
  }

  /**
   * Runs the network on one photo.
   * @param {Uint8Array} image `[side, side, 3]`
   * @param {number} side pixels
   * @returns {Promise<Object<string, import('./prediction.js').Tensor>>} its outputs by name
   */
  run(image, side) {
    return this.session.run({ images: new this.ort.Tensor('uint8', image, [1, side, side, 3]) }, this.shown);
  }
}

/** @returns {Promise<Uint8Array>} */
async function downloadFile({ url, bytes, integrity = '' }, onBytes) {
  let response;
  try {
    response = await fetch(url, { integrity });
  } catch {
    throw new Error(`Cannot load ${fileName(url)}. Check your connection and reload the page.`);
  }
  if (!response.ok) {
    throw new Error(`Cannot load ${fileName(url)} (the server answered ${response.status}). Upload the whole folder again.`);
  }
  const content = new Uint8Array(bytes);
  const reader = response.body.getReader();
  let place = 0;
  for (let step = await reader.read(); !step.done; step = await reader.read()) {
    if (place + step.value.length > bytes) throw wrongSize(url);
    content.set(step.value, place);
    place += step.value.length;
    onBytes(step.value.length);
  }
  if (place < bytes) throw wrongSize(url);
  return content;
}

function wrongSize(url) {
  return new Error(`${fileName(url)} has a different size than expected. Upload the whole folder again.`);
}

function fileName(url) {
  return url.split('/').pop();
}

/**
 * Imports a module from its downloaded, checked content: `import` of its URL would check no hash. The URL of the
 * content stays valid, because each thread imports it again.
 */
function importModule(content) {
  return import(URL.createObjectURL(new Blob([content], { type: 'text/javascript' })));
}
