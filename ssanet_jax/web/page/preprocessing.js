/** From a photo to the input of the network, and from its pixels back to those of the photo. */

import { resize } from './resizing.js';

/**
 * How a photo becomes the input of the network.
 * @typedef {Object} InputSettings
 * @property {number} image_size side of the input, pixels
 * @property {number} resize side to which the photo is resized before its center is cropped, pixels
 * @property {'bilinear' | 'bicubic'} interpolation how small photos are enlarged
 * @property {boolean} shrink whether photos that are much larger are shrunk before
 */

const MIN_SHRINK_FACTOR = 1.5;

/**
 * The input of the network for a photo.
 * @param {import('./resizing.js').Pixels} photo
 * @param {InputSettings} settings
 * @returns {Uint8Array} `[image_size, image_size, 3]`, RGB
 */
export function preprocess(photo, settings) {
  const smaller = settings.shrink ? shrink(photo, settings.resize) : photo;
  const square = resizeImage(smaller, settings.resize, settings.resize, settings.interpolation);
  return centerCrop(square, settings.image_size);
}

/**
 * Maps a box from the input of the network to the photo.
 * @param {ArrayLike<number>} box y0, x0, y1, x1 in pixels of the input
 * @param {{width: number, height: number}} photo pixels
 * @param {InputSettings} settings
 * @returns {number[]} y0, x0, y1, x1 in pixels of the photo; they may lie outside
 */
export function toPhotoPixels(box, photo, settings) {
  const offset = cropOffset(settings.resize, settings.image_size);
  return Array.from(box, (value, i) =>
    ((value + offset) * (i % 2 ? photo.width : photo.height)) / settings.resize);
}

function shrink(photo, side) {
  const scale = side / Math.min(photo.height, photo.width);
  if (scale > 1 / MIN_SHRINK_FACTOR) return photo;
  return resizeImage(photo, roundToEven(photo.height * scale), roundToEven(photo.width * scale), 'bilinear');
}

function resizeImage(image, height, width, interpolation) {
  const shrinks = image.height * image.width > height * width;
  return resize(image, height, width, shrinks ? 'area' : interpolation);
}

function centerCrop(image, size) {
  const offset = cropOffset(image.width, size);
  const result = new Uint8Array(size * size * 3);
  for (let y = 0; y < size; y++) {
    const row = image.rows(offset + y, 1);
    result.set(row.subarray(offset * 3, (offset + size) * 3), y * size * 3);
  }
  return result;
}

function cropOffset(resized, size) {
  return Math.floor((resized - size) / 2);
}

/** Rounds as Python does: halves to the even number. */
function roundToEven(value) {
  const rounded = Math.round(value);
  return rounded - value === 0.5 && rounded % 2 ? rounded - 1 : rounded;
}
