// The indicator of the live connection's state.
// Does not contain: the connection (live.js).

import { h } from './dom.js';
import { onStateChange } from './live.js';

const WORDS = { live: 'Live', connecting: 'Connecting', offline: 'Offline, reconnecting' };

export function connectionStatus() {
  const words = h('span', { class: 'connection-words' });
  const element = h('span', { class: 'connection', role: 'status', test: 'connection' }, h('span', { class: 'dot', 'aria-hidden': 'true' }), words);
  onStateChange((state) => {
    element.dataset.state = state;
    element.title = WORDS[state];
    words.textContent = WORDS[state];
  });
  return element;
}
