// Short messages in the corner. Each disappears after some seconds, but not while the pointer or the focus is on it.
// Does not contain: the source of the messages.

import { h } from './dom.js';
import { iconButton } from './components.js';

const DISPLAY_MS = 7_000;
const TOASTS_MAX = 4;

function region() {
  return document.getElementById('toasts');
}

/**
 * Shows a message; `href` makes its title a link, `tone` is 'plain', 'good' or 'bad'. A `lasting` one stays when another
 * page is opened.
 */
export function toast({ title, body = '', href, tone = 'plain', lasting = false }) {
  let timer = 0;
  const element = h('div', { class: `toast ${tone}`, test: 'toast', 'data-lasting': lasting },
    h('div', {}, h('p', { class: 'toast-title' }, href ? h('a', { href }, title) : title), body && h('p', { class: 'muted' }, body)),
    iconButton('close', 'Dismiss', { on: { click: () => element.remove() } }));
  const leave = () => {
    timer = setTimeout(() => element.remove(), DISPLAY_MS);
  };
  const stay = () => clearTimeout(timer);
  for (const event of ['mouseenter', 'focusin']) element.addEventListener(event, stay);
  for (const event of ['mouseleave', 'focusout']) element.addEventListener(event, leave);
  const all = region();
  while (all.childElementCount >= TOASTS_MAX) all.firstElementChild.remove();
  all.append(element);
  leave();
}

/** Removes the toasts of the page that was left. */
export function clearToasts() {
  for (const element of region().querySelectorAll('.toast:not([data-lasting])')) element.remove();
}
