/** The worker as seen from the page: calls with promises. */

/** What is known about one photo.
 * @typedef {Object} Result
 * @property {import('./prediction.js').Prediction} prediction
 * @property {{width: number, height: number}} size of the photo, pixels
 * @property {Blob} preview a small copy of the photo
 * @property {number} milliseconds from the file to the prediction
 */

export class Recognizer {
  #worker = startWorker();
  #calls = new Map(); // id of a call -> how it ends
  #lastId = 0;
  #failure = null; // why the worker has ended

  /** @param {(loaded: number, total: number) => void} onProgress bytes of the downloads */
  constructor(onProgress) {
    this.#worker.onmessage = ({ data: { id, result, error, progress } }) => {
      if (progress) {
        onProgress(progress.loaded, progress.total);
        return;
      }
      const { resolve, reject } = this.#calls.get(id);
      this.#calls.delete(id);
      if (error === undefined) resolve(result);
      else reject(new Error(error));
    };
    this.#worker.onerror = (event) => {
      event.preventDefault();
      this.#failure = new Error('The program stopped. Reload the page.');
      for (const { reject } of this.#calls.values()) reject(this.#failure);
      this.#calls.clear();
    };
  }

  /** Loads the network that `model.json` describes. @returns {Promise<void>} */
  load(description) {
    return this.#call('load', description);
  }

  /** @param {File} file @returns {Promise<Result>} */
  predict(file) {
    return this.#call('predict', file);
  }

  #call(call, argument) {
    if (this.#failure) return Promise.reject(this.#failure);
    return new Promise((resolve, reject) => {
      const id = ++this.#lastId;
      this.#calls.set(id, { resolve, reject });
      this.#worker.postMessage({ id, call, argument });
    });
  }
}

/** A worker from a blob has the content security policy of the page; one from a URL would have none. */
function startWorker() {
  const module = new URL('worker.js', import.meta.url).href;
  const url = URL.createObjectURL(new Blob([`import ${JSON.stringify(module)};`], { type: 'text/javascript' }));
  return new Worker(url, { type: 'module' });
}
