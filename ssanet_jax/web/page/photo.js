/** Photos that the browser decodes, upright and in sRGB. */

const MAX_PIXELS = 89_478_485; // as in `ssanet predict`
const PREVIEW_SIDE = 800;
const PREVIEW_QUALITY = 0.85;

/**
 * Decodes a file.
 * @param {File} file
 * @returns {Promise<Photo>}
 * @throws {Error} the file is no photo; the message is for the user
 */
export async function openPhoto(file) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(file); // turned as its EXIF orientation says
  } catch {
    throw new Error(
      'This file is not an image that your browser can read. JPEG, PNG and WebP files work everywhere.');
  }
  if (bitmap.width * bitmap.height > MAX_PIXELS) {
    bitmap.close();
    throw new Error(`This image has more than ${Math.floor(MAX_PIXELS / 1e6)} million pixels. Scale it down first.`);
  }
  return new Photo(bitmap);
}

/** A decoded photo. Transparent pixels are blended with white. @implements {import('./resizing.js').Pixels} */
class Photo {
  channels = 4;

  /** @param {ImageBitmap} bitmap */
  constructor(bitmap) {
    this.bitmap = bitmap;
    this.width = bitmap.width;
    this.height = bitmap.height;
  }

  rows(first, count) {
    const context = whiteCanvas(this.width, count);
    context.drawImage(this.bitmap, 0, first, this.width, count, 0, 0, this.width, count);
    return context.getImageData(0, 0, this.width, count).data;
  }

  /** A small copy to show. @returns {Promise<Blob>} a JPEG file */
  preview() {
    const scale = Math.min(PREVIEW_SIDE / Math.max(this.width, this.height), 1);
    const context = whiteCanvas(Math.max(Math.round(this.width * scale), 1), Math.max(Math.round(this.height * scale), 1));
    context.imageSmoothingQuality = 'high';
    context.drawImage(this.bitmap, 0, 0, context.canvas.width, context.canvas.height);
    return context.canvas.convertToBlob({ type: 'image/jpeg', quality: PREVIEW_QUALITY });
  }

  close() {
    this.bitmap.close();
  }
}

function whiteCanvas(width, height) {
  const context = new OffscreenCanvas(width, height)
    .getContext('2d', { alpha: false, colorSpace: 'srgb', willReadFrequently: true });
  context.fillStyle = 'white';
  context.fillRect(0, 0, width, height);
  return context;
}
