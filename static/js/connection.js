// The small sign that says whether the page is live.
// Must never enter: the connection itself (live.js).

import { h } from './dom.js';
import { watchState } from './live.js';

const WORDS = { live: 'Live', connecting: 'Connecting', offline: 'Offline, trying again' };

export function connectionSign() {
  const words = h('span', { class: 'connection-words' });
  const element = h('span', { class: 'connection', role: 'status', test: 'connection' }, h('span', { class: 'dot', 'aria-hidden': 'true' }), words);
  watchState((state) => {
    element.dataset.state = state;
    element.title = WORDS[state];
    words.textContent = WORDS[state];
  });
  return element;
}
