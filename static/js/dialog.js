// Asks before something that cannot be taken back.
// Must never enter: the deed itself.

import { h } from './dom.js';

/** Resolves to true when the person agreed, to false otherwise. */
export function confirmDeed({ title, text, agree }) {
  return new Promise((resolve) => {
    const answer = (value, words, look) => h('button', { class: look, value, test: `dialog-${value}` }, words);
    const dialog = h('dialog', { class: 'dialog', 'aria-label': title },
      h('form', { method: 'dialog' }, h('h2', {}, title), h('p', {}, text), h('div', { class: 'form-actions end' }, answer('no', 'Cancel', 'button'), answer('yes', agree, 'button danger'))));
    dialog.addEventListener('close', () => {
      dialog.remove();
      resolve(dialog.returnValue === 'yes');
    });
    document.body.append(dialog);
    dialog.showModal();
  });
}
