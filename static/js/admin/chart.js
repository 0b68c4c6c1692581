// Charts: bars or an area over time buckets, rendered as SVG at the available width, with a readout under the pointer or the
// arrow keys and the same values as a table.
// Does not contain: the source of the values, arithmetic on them other than scaling.

import { h, svg, replaceContent } from '../dom.js';

const EDGE = { top: 12, right: 8, bottom: 26, left: 52 };

/** The smallest of 1, 2, 2.5, 5 × 10ⁿ steps that reaches `highest` in four. */
function stepFor(highest) {
  const rough = Math.max(highest, 1) / 4;
  const power = 10 ** Math.floor(Math.log10(rough));
  const factor = [1, 2, 2.5, 5, 10].find((one) => one * power >= rough);
  return Math.max(1, factor * power);
}

/** `kind`: 'bars' or 'area'; `show(value)` and `showShort(value)` make text of a value. */
export function chart({ title, kind, show, showShort, test }) {
  const readout = h('p', { class: 'plot-readout', 'aria-live': 'polite' });
  const canvas = h('div', { class: 'plot-canvas' });
  const table = h('table', {});
  const element = h('figure', { class: 'plot sheet', test },
    h('figcaption', {}, h('h2', {}, title), readout),
    canvas,
    h('details', { class: 'plot-table' }, h('summary', {}, 'As a table'), h('div', { class: 'table-scroll' }, table)));

  let points = [];
  let picked = null;
  let place = () => 0;
  let cursor = null;

  const pick = (index) => {
    picked = index;
    const point = points[index];
    readout.textContent = point ? `${point.label}: ${show(point.value)}` : '';
    cursor?.setAttribute('visibility', point ? 'visible' : 'hidden');
    if (point) cursor?.setAttribute('transform', `translate(${place(index)} 0)`);
  };

  const render = () => {
    const width = canvas.clientWidth;
    const height = canvas.clientHeight;
    if (width === 0 || points.length === 0) return;
    const inner = { width: width - EDGE.left - EDGE.right, height: height - EDGE.top - EDGE.bottom };
    const step = stepFor(Math.max(...points.map((point) => point.value)));
    const top = step * Math.max(1, Math.ceil(Math.max(...points.map((point) => point.value)) / step));
    const slot = inner.width / points.length;
    place = (index) => EDGE.left + slot * (index + 0.5);
    const y = (value) => EDGE.top + inner.height * (1 - value / top);

    const lines = [];
    for (let value = 0; value <= top; value += step) {
      lines.push(svg('line', { class: 'grid-line', x1: EDGE.left, x2: width - EDGE.right, y1: y(value), y2: y(value) }),
        svg('text', { class: 'axis', x: EDGE.left - 8, y: y(value) + 4, 'text-anchor': 'end' }, showShort(value)));
    }
    const every = Math.ceil(points.length / Math.max(2, Math.floor(inner.width / 78)));
    const labels = points.map((point, index) => (index % every === 0
      ? svg('text', { class: 'axis', x: place(index), y: height - 6, 'text-anchor': 'middle' }, point.short) : null));
    const shapes = kind === 'bars' ? bars(slot, y) : area(y);
    cursor = svg('line', { class: 'cursor', y1: EDGE.top, y2: height - EDGE.bottom, visibility: 'hidden' });
    const drawing = svg('svg', {
      width, height, viewBox: `0 0 ${width} ${height}`, role: 'img', tabindex: 0,
      'aria-label': `${title}, ${points.length} steps, highest ${show(Math.max(...points.map((point) => point.value)))}. Arrow keys read single steps.`,
    }, lines, labels, shapes, cursor);
    drawing.addEventListener('pointermove', (event) => {
      const index = Math.floor((event.offsetX - EDGE.left) / slot);
      if (index !== picked) pick(Math.min(points.length - 1, Math.max(0, index)));
    });
    drawing.addEventListener('pointerleave', () => pick(null));
    drawing.addEventListener('keydown', (event) => {
      const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (!by) return;
      event.preventDefault();
      pick(Math.min(points.length - 1, Math.max(0, (picked ?? (by > 0 ? -1 : points.length)) + by)));
    });
    const focused = canvas.contains(document.activeElement);
    replaceContent(canvas, drawing);
    if (focused) drawing.focus();
    if (picked !== null) pick(Math.min(picked, points.length - 1));
  };

  const bars = (slot, y) => points.map((point, index) => {
    const wide = Math.max(1, Math.min(28, slot * 0.68));
    const high = Math.max(point.value > 0 ? 1 : 0, y(0) - y(point.value));
    return svg('rect', { class: 'bar-shape', x: place(index) - wide / 2, y: y(0) - high, width: wide, height: high, rx: Math.min(3, wide / 3) });
  });

  const area = (y) => {
    const line = points.map((point, index) => `${place(index).toFixed(1)},${y(point.value).toFixed(1)}`);
    const floor = y(0);
    return [
      svg('path', { class: 'area-shape', d: `M${place(0)},${floor}L${line.join('L')}L${place(points.length - 1)},${floor}Z` }),
      svg('path', { class: 'line-shape', d: `M${line.join('L')}` }),
    ];
  };

  const drawTable = () => replaceContent(table,
    h('caption', { class: 'visually-hidden' }, title),
    h('thead', {}, h('tr', {}, h('th', { scope: 'col' }, 'From'), h('th', { scope: 'col', class: 'number' }, title))),
    h('tbody', {}, points.map((point) => h('tr', {}, h('th', { scope: 'row' }, point.label), h('td', { class: 'number' }, show(point.value))))));

  new ResizeObserver(render).observe(canvas);

  return {
    element,
    /** `next`: [{ label, short, value }] */
    update(next) {
      points = next;
      render();
      drawTable();
    },
  };
}
