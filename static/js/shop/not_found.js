// The page for unknown addresses.
// Does not contain: guesses at what was meant.

import { h } from '../dom.js';
import { emptyState } from '../components.js';

export function notFoundView() {
  return {
    title: 'Not found',
    element: h('div', {}, h('h1', { class: 'visually-hidden' }, 'Not found'),
      emptyState('Page not found', 'The page may have moved, or the address may be mistyped.', h('a', { class: 'button primary', href: '/' }, 'Continue shopping'))),
  };
}
