// Short messages in the corner that go by themselves, and wait while the pointer or the focus is on them.
// Must never enter: where the messages come from.

import { h } from './dom.js';
import { iconButton } from './parts.js';

const STAY = 7_000;
const AT_MOST = 4;

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
    timer = setTimeout(() => element.remove(), STAY);
  };
  const stay = () => clearTimeout(timer);
  for (const event of ['mouseenter', 'focusin']) element.addEventListener(event, stay);
  for (const event of ['mouseleave', 'focusout']) element.addEventListener(event, leave);
  const all = region();
  while (all.childElementCount >= AT_MOST) all.firstElementChild.remove();
  all.append(element);
  leave();
}

/** Takes away what belonged to the page that was left. */
export function clearToasts() {
  for (const element of region().querySelectorAll('.toast:not([data-lasting])')) element.remove();
}
