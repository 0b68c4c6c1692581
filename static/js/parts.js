// Small pieces both pages are put together from: problem boxes, empty states, placeholders while loading, badges, stars, pictures.
// Must never enter: requests, live frames, state beyond one element.

import { h } from './dom.js';
import { icon } from './icons.js';

/** What went wrong, where it went wrong, with a way on. */
export function problemBox(problem, { retry } = {}) {
  return h('div', { class: 'problem', role: 'alert', test: 'problem' },
    h('p', {}, problem.message),
    problem.requestId && problem.status >= 500 && h('p', { class: 'small muted' }, 'Request ', h('code', {}, problem.requestId)),
    retry && h('button', { class: 'button small', type: 'button', on: { click: retry } }, 'Try again'));
}

export function emptyState(title, text, action) {
  return h('div', { class: 'empty', test: 'empty' }, h('p', { class: 'empty-title' }, title), text && h('p', { class: 'muted' }, text), action);
}

/** Grey shapes of the size of what will come, so that nothing jumps. */
export function placeholders(count, name) {
  return Array.from({ length: count }, () => h('div', { class: `ghost ${name}`, 'aria-hidden': 'true' }));
}

export function loadingNote(text = 'Loading…') {
  return h('p', { class: 'visually-hidden', role: 'status' }, text);
}

const TONES = {
  paid: 'good', sent: 'good', kept: 'good', open: 'wait', queued: 'wait', expired: 'off', void: 'off', refunded: 'off', failed: 'bad',
};

/** The state of an order or an e-mail, as a word in a coloured pill. */
export function statusBadge(status, test) {
  return h('span', { class: `badge ${TONES[status] ?? 'off'}`, test, 'data-status': status }, status);
}

/** A rating from 0 to 5 as a bar of stars. */
export function stars(rating) {
  const shown = Math.round(rating * 2) / 2;
  return h('span', { class: 'stars', role: 'img', 'aria-label': `${rating.toFixed(1)} of 5 stars` },
    [1, 2, 3, 4, 5].map((step) => h('span', { class: shown >= step ? 'star full' : shown >= step - 0.5 ? 'star half' : 'star' }, '★')));
}

/**
 * A product's picture in a box of fixed shape, or its initial on a calm colour where there is none. `image` is the
 * contract's (`url`, `width`, `sizes`); `room` says how wide it will stand, so that the browser takes the right size.
 */
export function picture(image, name, { room = '16rem', alt = '', eager = false } = {}) {
  if (!image) {
    const tint = [...name].reduce((sum, letter) => sum + letter.codePointAt(0), 0) % 6;
    return h('span', { class: `picture initial tint-${tint}`, 'aria-hidden': 'true' }, [...name][0] ?? '');
  }
  const srcset = [...image.sizes, image].map(({ url, width }) => `${url} ${width}w`).join(', ');
  return h('span', { class: 'picture' }, h('img', {
    sizes: room, srcset: image.sizes.length > 0 ? srcset : null, src: image.url, alt, loading: eager ? 'eager' : 'lazy', decoding: 'async',
  }));
}

/** A number input with a button on either side. `onChange` gets each settled value. */
export function stepper({ value, min = 1, max = 99, label, test, onChange }) {
  const input = h('input', { type: 'number', inputmode: 'numeric', min, max, value, 'aria-label': label, test });
  const settle = (wanted) => {
    const next = Math.min(Number(input.max), Math.max(min, Math.trunc(wanted) || min));
    input.value = next;
    onChange?.(next);
  };
  const step = (by) => h('button', {
    type: 'button', 'aria-label': by > 0 ? `${label}: one more` : `${label}: one less`, on: { click: () => settle(Number(input.value) + by) },
  }, by > 0 ? '+' : '−');
  input.addEventListener('change', () => settle(Number(input.value)));
  return { element: h('span', { class: 'stepper' }, step(-1), input, step(1)), input };
}

/** A button that shows only an icon. */
export function iconButton(name, label, props) {
  return h('button', { type: 'button', class: 'icon-button', 'aria-label': label, title: label, ...props }, icon(name));
}

/** Shows a button as busy while `work` runs, and does not let it be pressed twice. */
export async function whileBusy(button, work) {
  if (button.getAttribute('aria-busy') === 'true') return;
  button.setAttribute('aria-busy', 'true');
  try {
    await work();
  } finally {
    button.removeAttribute('aria-busy');
  }
}
