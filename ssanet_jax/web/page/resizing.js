/**
 * Resizing with the results of OpenCV, to one level of 255. A browser's own scaling gives other pixels, and networks
 * notice that.
 */

/**
 * Something with pixels. A large photo hands them out in strips, so that it is never copied as a whole.
 * @typedef {Object} Pixels
 * @property {number} width
 * @property {number} height
 * @property {number} channels 3 (RGB) or 4, the last of which is ignored
 * @property {(first: number, count: number) => Uint8ClampedArray} rows `[count, width, channels]`
 */

/**
 * For each new pixel, the first old pixel that it reads, and the weights of that one and the following ones.
 * @typedef {{first: number, weights: number[]}[]} Bands
 */

const STRIP_PIXELS = 1 << 20;
const SHARPNESS = -0.75; // of OpenCV's bicubic interpolation

/** An image in memory. @implements {Pixels} */
export class RgbImage {
  channels = 3;

  /**
   * @param {number} width
   * @param {number} height
   * @param {Uint8ClampedArray} data `[height, width, 3]`
   */
  constructor(width, height, data) {
    Object.assign(this, { width, height, data });
  }

  rows(first, count) {
    return this.data.subarray(first * this.width * 3, (first + count) * this.width * 3);
  }
}

/**
 * Resizes an image.
 * @param {Pixels} source
 * @param {number} height of the result, pixels
 * @param {number} width of the result, pixels
 * @param {'area' | 'bilinear' | 'bicubic'} method 'area' averages the area of each new pixel
 * @returns {RgbImage}
 */
export function resize(source, height, width, method) {
  const enlarges = source.height < height || source.width < width;
  const bands = method === 'area' && enlarges ? mixedBands : BANDS[method];
  const narrowed = combineColumns(source, bands(source.width, width));
  return new RgbImage(width, height, combineRows(narrowed, width, bands(source.height, height)));
}

/** Resizes the rows: `[height, width, channels]` -> float32 `[height, columns.length, 3]`. */
function combineColumns(source, columns) {
  const { width, height, channels } = source;
  const result = new Float32Array(height * columns.length * 3);
  const stripHeight = Math.max(Math.floor(STRIP_PIXELS / width), 1);
  let target = 0;
  for (let top = 0; top < height; top += stripHeight) {
    const count = Math.min(stripHeight, height - top);
    const pixels = source.rows(top, count);
    for (let y = 0; y < count; y++) {
      for (const { first, weights } of columns) {
        let [red, green, blue] = [0, 0, 0];
        let place = (y * width + first) * channels;
        for (const weight of weights) {
          red += weight * pixels[place];
          green += weight * pixels[place + 1];
          blue += weight * pixels[place + 2];
          place += channels;
        }
        result[target++] = red;
        result[target++] = green;
        result[target++] = blue;
      }
    }
  }
  return result;
}

/** Resizes the columns: float32 `[height, width, 3]` -> `[rows.length, width, 3]`, rounded. */
function combineRows(image, width, rows) {
  const length = width * 3;
  const result = new Uint8ClampedArray(rows.length * length); // rounds, halves to the even number, as OpenCV does
  const sums = new Float64Array(length);
  rows.forEach(({ first, weights }, y) => {
    sums.fill(0);
    weights.forEach((weight, tap) => {
      const start = (first + tap) * length;
      for (let x = 0; x < length; x++) sums[x] += weight * image[start + x];
    });
    result.set(sums, y * length);
  });
  return result;
}

/** Each new pixel covers length / size old ones, those at its ends in part. @returns {Bands} */
function areaBands(length, size) {
  const scale = length / size;
  return Array.from({ length: size }, (_, index) => {
    const low = index * scale;
    const high = Math.min(low + scale, length);
    const first = Math.floor(low);
    const last = Math.min(Math.ceil(high - 1e-9), length);
    const covered = Array.from({ length: last - first }, (_, i) =>
      Math.min(first + i + 1, high) - Math.max(first + i, low));
    return { first, weights: covered.map((share) => share / (high - low)) };
  });
}

/** What OpenCV does in place of averaging if the image is enlarged along one of its axes. @returns {Bands} */
function mixedBands(length, size) {
  const scale = length / size;
  return Array.from({ length: size }, (_, index) => {
    const pixel = Math.floor(index * scale);
    const beyond = index + 1 - (pixel + 1) / scale;
    const share = beyond > 0 ? beyond - Math.floor(beyond) : 0;
    return insideBand(pixel, [1 - share, share], length);
  });
}

/** Bands of an interpolation; `kernel` gives the weights of the pixels around a point between two of them. */
function interpolationBands(kernel) {
  return (length, size) => Array.from({ length: size }, (_, index) => {
    const point = ((index + 0.5) * length) / size - 0.5;
    const weights = kernel(point - Math.floor(point));
    return insideBand(Math.floor(point) - weights.length / 2 + 1, weights, length);
  });
}

function bilinear(share) {
  return [1 - share, share];
}

/** Cubic convolution (Keys, IEEE Transactions on Acoustics, Speech, and Signal Processing, 1981). */
function bicubic(share) {
  const near = (x) => ((SHARPNESS + 2) * x - (SHARPNESS + 3)) * x * x + 1;
  const far = (x) => SHARPNESS * (((x - 5) * x + 8) * x - 4);
  return [far(share + 1), near(share), near(1 - share), far(2 - share)];
}

/** A band whose pixels outside of the image are replaced by those at its border. */
function insideBand(start, weights, length) {
  const inside = (pixel) => Math.min(Math.max(pixel, 0), length - 1);
  const first = inside(start);
  const summed = new Array(inside(start + weights.length - 1) - first + 1).fill(0);
  weights.forEach((weight, index) => {
    summed[inside(start + index) - first] += weight;
  });
  return { first, weights: summed };
}

const BANDS = {
  area: areaBands,
  bilinear: interpolationBands(bilinear),
  bicubic: interpolationBands(bicubic),
};
