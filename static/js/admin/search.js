// The search input above a table.
// Does not contain: the search itself.

import { h } from '../dom.js';
import { icon } from '../icons.js';

export function searchField(label, test, changed, value = '') {
  const input = h('input', { type: 'search', 'aria-label': label, placeholder: label, autocomplete: 'off', maxlength: 200, test, value });
  input.addEventListener('input', () => changed(input.value.trim()));
  return h('div', { class: 'search', role: 'search' }, icon('search'), input);
}
