/** The card of one photo: the class, the photo with its parts, the evidence, and the most probable classes. */

import { drawParts, partColor } from './drawing.js';
import { evidenceShares, percent } from './prediction.js';

let lastId = 0;

/** A card that says that the photo waits; `show` and `fail` replace that. */
export class Card {
  /** @param {string} file name of the photo */
  constructor(file) {
    this.file = file;
    const heading = `photo-${++lastId}`;
    this.element = html('li', { class: 'card', 'aria-labelledby': heading, 'aria-busy': 'true' });
    this.heading = html('h2', { id: heading }, file);
    this.element.append(this.heading, html('p', { class: 'note' }, 'Waiting …'));
  }

  /** @param {string} message why the photo has no prediction */
  fail(message) {
    this.#fill(html('p', { class: 'unsure' }, message));
  }

  /** @param {import('./recognizer.js').Result} result */
  show({ prediction, size, preview, milliseconds }) {
    const { label, probability, unsure, parts } = prediction;
    const figure = drawFigure(this.file, prediction, size, preview);
    const answer = html('p', {}, html('strong', { class: 'answer' }, readable(label)), ` ${percent(probability)} probable`);
    const text = html('div', {}, answer);
    if (unsure) text.prepend(html('p', { class: 'unsure' }, readable(`unsure: ${unsure}`)));
    if (prediction.runnerUp && (parts.length || prediction.imageTerm)) text.append(...listEvidence(prediction, figure));
    text.append(...listTop(prediction.top));
    text.append(html('p', { class: 'note' }, `${turned(prediction.angle)}Computed in ${Math.round(milliseconds)} ms on this device.`));
    this.#fill(figure, text);
  }

  #fill(...content) {
    this.element.removeAttribute('aria-busy');
    this.element.replaceChildren(this.heading, ...content);
  }
}

function drawFigure(file, { label, parts }, size, preview) {
  const seen = parts.filter((part) => part.seen).length;
  const description = `${file}, recognized as ${readable(label)}${seen ? `, with ${counted(seen, 'part')} marked` : ''}`;
  const image = html('img', { src: URL.createObjectURL(preview), alt: description, width: size.width, height: size.height });
  image.addEventListener('load', () => URL.revokeObjectURL(image.src));
  return html('figure', {}, html('div', { class: 'picture' }, image, drawParts(parts, size)));
}

/** One line for each part and one for the whole image; pointing at a line shows its part alone. */
function listEvidence({ parts, imageTerm, label, runnerUp }, figure) {
  const terms = [...parts.map((part) => part.term), imageTerm];
  const shares = evidenceShares(terms);
  const list = html('ul', { class: 'evidence' });
  parts.forEach((part, index) => {
    const marker = html('span', { class: 'marker', 'aria-hidden': 'true' });
    marker.style.background = partColor(index);
    const says = `${part.name}${part.seen ? '' : ' (not clearly seen)'}: ${inWords(shares[index], part.term, runnerUp)}`;
    const line = html('li', part.seen ? { tabindex: '0' } : {}, marker, html('span', {}, says));
    if (part.seen) showAlone(line, figure, index);
    list.append(line);
  });
  if (imageTerm) {
    const marker = html('span', { class: 'marker', 'aria-hidden': 'true' });
    const says = `whole image: ${inWords(shares.at(-1), imageTerm, runnerUp)}`;
    list.append(html('li', {}, marker, html('span', {}, says)));
  }
  return [html('h3', {}, readable(`Why ${label} and not ${runnerUp}`)), list];
}

function inWords(share, term, runnerUp) {
  if (share !== null) return `${share < 0.005 ? '<\u00a01' : Math.round(100 * share)}\u00a0% of the evidence`;
  return term < 0 ? `speaks for ${readable(runnerUp)}` : 'no evidence';
}

function showAlone(line, figure, index) {
  const [, picture] = figure.firstChild.children;
  const mark = (chosen) => {
    for (const group of picture.children) {
      group.classList.toggle('faded', chosen !== null && group.dataset.part !== String(chosen));
    }
  };
  for (const event of ['pointerenter', 'focus']) line.addEventListener(event, () => mark(index));
  for (const event of ['pointerleave', 'blur']) line.addEventListener(event, () => mark(null));
}

function listTop(top) {
  const list = html('ol', { class: 'top' });
  for (const { name, probability } of top) {
    const bar = html('span', { class: 'bar', 'aria-hidden': 'true' });
    bar.style.width = `${100 * probability}%`;
    list.append(html('li', {}, html('span', {}, readable(name)), ' ', html('span', {}, percent(probability)), bar));
  }
  return [html('h3', {}, top.length > 1 ? 'Most probable classes' : 'Class'), list];
}

function turned(angle) {
  return angle ? `Turned by ${Math.round(angle)}° clockwise before looking. ` : '';
}

/** A name of a folder as it is read: with spaces, at which lines can break. */
function readable(name) {
  return name.replaceAll('_', ' ');
}

/** "1 part", "2 parts". */
export function counted(count, noun) {
  return `${count} ${noun}${count === 1 ? '' : 's'}`;
}

/** An element. Text is added as text: names of files and classes are anybody's. */
function html(name, attributes, ...content) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...content);
  return element;
}
