/** The table of all photos, with the columns of `ssanet predict --format=csv`. */

const DIGITS = 6;

/**
 * @param {{file: string, prediction: import('./prediction.js').Prediction}[]} rows
 * @returns {string} CSV with a header
 */
export function toCsv(rows) {
  const count = Math.max(1, ...rows.map(({ prediction }) => prediction.top.length));
  const others = ['angle', 'novelty', 'unsure'].filter((name) =>
    rows.some(({ prediction }) => singleValues(prediction)[name] !== undefined));
  const header = ['file', 'class', 'probability'];
  for (let i = 2; i <= count; i++) header.push(`class_${i}`, `probability_${i}`);
  const lines = rows.map(({ file, prediction }) => {
    const classes = prediction.top.flatMap(({ name, probability }) => [name, rounded(probability, DIGITS)]);
    const missing = new Array(2 * count - classes.length).fill('');
    const single = singleValues(prediction);
    return [file, ...classes, ...missing, ...others.map((name) => single[name] ?? '')];
  });
  return [[...header, ...others], ...lines].map((cells) => `${cells.map(quoted).join(',')}\n`).join('');
}

function singleValues({ angle, novelty, unsure }) {
  return {
    ...(angle !== null && { angle }),
    ...(novelty !== null && { novelty: rounded(novelty, 4), unsure }),
  };
}

function rounded(value, digits) {
  return Number(value.toFixed(digits));
}

function quoted(cell) {
  const text = String(cell);
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}
