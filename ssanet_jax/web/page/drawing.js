/** The parts, drawn on the photo. */

const SVG = 'http://www.w3.org/2000/svg';
// One color per part, distinguishable with color blindness (Okabe and Ito, 2008), as in `evaluation/drawing.py`.
const COLORS = ['#e69f00', '#56b4e9', '#009e73', '#f0e442', '#d55e00', '#cc79a7'];
const LABEL_SHARE = 1 / 20; // height of a label over the longer side of the photo

/** The color of part `index`, which counts from 0. */
export function partColor(index) {
  return COLORS[index % COLORS.length];
}

/**
 * Draws the parts that are to be seen.
 * @param {import('./prediction.js').Part[]} parts
 * @param {{width: number, height: number}} photo pixels
 * @returns {SVGSVGElement} to be laid over the photo
 */
export function drawParts(parts, photo) {
  const picture = svg('svg', { viewBox: `0 0 ${photo.width} ${photo.height}`, 'aria-hidden': 'true' });
  const size = Math.max(photo.width, photo.height) * LABEL_SHARE;
  const labels = [];
  parts.forEach((part, index) => {
    if (!part.seen) return;
    const box = insidePhoto(part.box, photo, size / 8);
    const group = svg('g', { 'data-part': index });
    const corners = { x: box.x, y: box.y, width: box.width, height: box.height };
    group.append(svg('rect', { ...corners, class: 'outline' }));
    group.append(svg('rect', { ...corners, class: 'box', stroke: partColor(index) }));
    labels.push(placeLabel(box, size, labels));
    group.append(...drawLabel(labels.at(-1), size, index));
    picture.append(group);
  });
  return picture;
}

function drawLabel({ x, y }, size, index) {
  const text = svg('text', { x: x + size / 2, y: y + size / 2, 'font-size': size * 0.8 });
  text.textContent = index + 1;
  return [svg('rect', { x, y, width: size, height: size, fill: partColor(index), class: 'label' }), text];
}

/** The corner of the box in which a label covers the earlier labels least. */
function placeLabel(box, size, labels) {
  const [left, top] = [box.x, box.y];
  const [right, bottom] = [Math.max(box.x + box.width - size, left), Math.max(box.y + box.height - size, top)];
  const corners = [{ x: left, y: top }, { x: right, y: top }, { x: left, y: bottom }, { x: right, y: bottom }];
  const covered = (place) => labels.reduce((sum, label) =>
    sum + Math.max(size - Math.abs(label.x - place.x), 0) * Math.max(size - Math.abs(label.y - place.y), 0), 0);
  return corners.reduce((best, place) => (covered(place) < covered(best) ? place : best));
}

/** Clips a box to the photo, so that all its sides are drawn. */
function insidePhoto([y0, x0, y1, x1], { width, height }, margin) {
  const clip = (value, length) => Math.min(Math.max(value, margin), length - margin);
  const [x, y] = [clip(x0, width), clip(y0, height)];
  return { x, y, width: clip(x1, width) - x, height: clip(y1, height) - y };
}

function svg(name, attributes) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return element;
}
