// Small elements that both pages share: error boxes, empty states, skeletons, badges, stars, images.
// Does not contain: requests, live frames, state beyond one element.

import { h } from './dom.js';
import { icon } from './icons.js';

/** An error message with an optional retry button. */
export function errorBox(problem, { retry } = {}) {
  return h('div', { class: 'problem', role: 'alert', test: 'problem' },
    h('p', {}, problem.message),
    problem.requestId && problem.status >= 500 && h('p', { class: 'small muted' }, 'Request ', h('code', {}, problem.requestId)),
    retry && h('button', { class: 'button small', type: 'button', on: { click: retry } }, 'Try again'));
}

export function emptyState(title, text, action) {
  return h('div', { class: 'empty', test: 'empty' }, h('p', { class: 'empty-title' }, title), text && h('p', { class: 'muted' }, text), action);
}

/** Grey shapes of the size of the expected content, to avoid layout shift. */
export function skeletons(count, name) {
  return Array.from({ length: count }, () => h('div', { class: `skeleton ${name}`, 'aria-hidden': 'true' }));
}

export function loadingNote(text = 'Loading…') {
  return h('p', { class: 'visually-hidden', role: 'status' }, text);
}

/** The word shown for each status of an order or an e-mail. */
export const STATUS_LABELS = {
  open: 'Awaiting payment', paid: 'Paid', expired: 'Expired', void: 'Cancelled', refunded: 'Refunded', queued: 'Queued', sent: 'Sent', kept: 'Not sent', failed: 'Failed',
};

const STATUS_TONES = {
  paid: 'good', sent: 'good', kept: 'good', open: 'wait', queued: 'wait', expired: 'off', void: 'off', refunded: 'off', failed: 'bad',
};

/** The status of an order or an e-mail as a coloured badge. */
export function statusBadge(status, test) {
  return h('span', { class: `badge ${STATUS_TONES[status] ?? 'off'}`, test, 'data-status': status }, STATUS_LABELS[status] ?? status);
}

/** A rating from 0 to 5 as a bar of stars. */
export function stars(rating) {
  const shown = Math.round(rating * 2) / 2;
  return h('span', { class: 'stars', role: 'img', 'aria-label': `${rating.toFixed(1)} of 5 stars` },
    [1, 2, 3, 4, 5].map((step) => h('span', { class: shown >= step ? 'star full' : shown >= step - 0.5 ? 'star half' : 'star' }, '★')));
}

/**
 * A product's picture in a box of fixed shape, or its initial on a muted colour if it has none. `image` is the
 * contract's (`url`, `width`, `sizes`); `sizes` is the HTML attribute: how wide it is shown, so that the browser takes the right size.
 */
export function productImage(image, name, { sizes = '16rem', alt = '', eager = false } = {}) {
  if (!image) {
    const tint = [...name].reduce((sum, letter) => sum + letter.codePointAt(0), 0) % 6;
    return h('span', { class: `picture initial tint-${tint}`, 'aria-hidden': 'true' }, [...name][0] ?? '');
  }
  const srcset = [...image.sizes, image].map(({ url, width }) => `${url} ${width}w`).join(', ');
  return h('span', { class: 'picture' }, h('img', {
    sizes, srcset: image.sizes.length > 0 ? srcset : null, src: image.url, alt, loading: eager ? 'eager' : 'lazy', decoding: 'async',
  }));
}

/** A number input with a button on either side. `onChange` gets each settled value. */
export function quantityInput({ value, min = 1, max = 99, label, test, onChange }) {
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
export async function withBusyState(button, work) {
  if (button.getAttribute('aria-busy') === 'true') return;
  button.setAttribute('aria-busy', 'true');
  try {
    await work();
  } finally {
    button.removeAttribute('aria-busy');
  }
}
