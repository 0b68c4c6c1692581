// The page for addresses that are none of ours.
// Must never enter: guesses about what was meant.

import { h } from '../dom.js';
import { emptyState } from '../parts.js';

export function missingView() {
  return {
    title: 'Not found',
    element: h('div', {}, h('h1', { class: 'visually-hidden' }, 'Not found'),
      emptyState('There is nothing here', 'The page may have moved, or the address has a slip in it.', h('a', { class: 'button primary', href: '/' }, 'To the shop'))),
  };
}
