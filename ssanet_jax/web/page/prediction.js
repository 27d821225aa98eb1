/** From the outputs of the network to what is said about a photo. */

import { toPhotoPixels } from './preprocessing.js';

/**
 * What the page knows about the network, from `model.json`.
 * @typedef {Object} Model
 * @property {string[]} class_names
 * @property {string[]} part_names such as 'object' and 'part 2'
 * @property {import('./preprocessing.js').InputSettings} preprocessing
 * @property {{novelty_limit: number, score_limit: number} | null} calibration
 */

/**
 * An output of the network for one photo.
 * @typedef {{data: ArrayLike<number>, dims: number[]}} Tensor
 */

/**
 * @typedef {Object} Part
 * @property {string} name such as 'part 2'
 * @property {number[]} box y0, x0, y1, x1 in pixels of the photo
 * @property {boolean} seen whether the part is to be seen
 * @property {number} term what it adds to the logit of the class over that of the runner-up
 */

/**
 * @typedef {Object} Prediction
 * @property {string} label the class
 * @property {number} probability of the class
 * @property {string} runnerUp the class with the second-largest logit; empty if there is only one class
 * @property {{name: string, probability: number}[]} top the most probable classes, best first
 * @property {string} unsure the reason not to rely on the class; empty if there is none
 * @property {Part[]} parts
 * @property {number} imageTerm what the image as a whole adds, as the `term` of a part
 * @property {number | null} novelty share of held-out images that are less strange
 * @property {number | null} angle degrees by which the network turned the photo, clockwise
 */

const TOP = 5;

/**
 * Reads the outputs of the network.
 * @param {Object<string, Tensor>} outputs by name, for one photo
 * @param {Model} model
 * @param {{width: number, height: number}} photo pixels
 * @returns {Prediction}
 */
export function toPrediction(outputs, model, photo) {
  const names = model.class_names;
  const probabilities = outputs.probabilities.data;
  const [best, second] = largestFirst(outputs.logits.data);
  const over = (data, start = 0) => (second === undefined ? 0 : data[start + best] - data[start + second]);
  const prediction = {
    label: names[best],
    probability: probabilities[best],
    runnerUp: names[second] ?? '',
    top: largestFirst(probabilities).slice(0, TOP)
      .map((index) => ({ name: names[index], probability: probabilities[index] })),
    parts: readParts(outputs, over, model, photo),
    imageTerm: over(outputs.image_logits.data),
    novelty: outputs.novelty?.data[0] ?? null,
    angle: outputs.angle?.data[0] ?? null,
  };
  return { ...prediction, unsure: reasonToDoubt(prediction, model.calibration) };
}

/**
 * A probability in words. No network is certain, so 99 % is the most that is said.
 * @param {number} probability
 */
export function percent(probability) {
  const rounded = Math.min(Math.round(100 * probability), 99);
  return rounded < 1 ? '<\u00a01\u00a0%' : `${rounded}\u00a0%`;
}

/**
 * Shares of the evidence for the class over the runner-up, of the terms that speak for it.
 * @param {number[]} terms
 * @returns {(number | null)[]} shares that add up to 1; null for a term that speaks against the class or not at all
 */
export function evidenceShares(terms) {
  const total = terms.reduce((sum, term) => sum + Math.max(term, 0), 0);
  return terms.map((term) => (term > 0 ? term / total : null));
}

function readParts(outputs, over, model, photo) {
  if (!outputs.boxes) return [];
  const [, count] = outputs.boxes.dims; // [1, K, 4]
  return Array.from({ length: count }, (_, k) => ({
    name: model.part_names[k],
    box: toPhotoPixels(Array.from(outputs.boxes.data).slice(4 * k, 4 * k + 4), photo, model.preprocessing),
    seen: outputs.present ? Boolean(outputs.present.data[k]) : true,
    term: partTerm(outputs.part_logits, k, over),
  }));
}

/** The evidence of part k, summed over the heads. */
function partTerm(logits, k, over) {
  if (!logits) return 0;
  const [, heads, parts, classes] = logits.dims; // [1, H, K, C]
  let term = 0;
  for (let head = 0; head < heads; head++) term += over(logits.data, (head * parts + k) * classes);
  return term;
}

function reasonToDoubt({ novelty, probability, runnerUp }, calibration) {
  if (novelty === null || calibration === null) return '';
  if (novelty >= calibration.novelty_limit) {
    return `may be none of the classes: stranger than ${Math.round(100 * novelty)} % of known images`;
  }
  return probability < calibration.score_limit && runnerUp ? `could also be ${runnerUp}` : '';
}

/** Indices of values, the largest value first; equal ones stay in order. */
function largestFirst(values) {
  return Array.from(values.keys()).sort((a, b) => values[b] - values[a]);
}
