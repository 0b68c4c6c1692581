// A confirmation dialog for actions that cannot be undone.
// Does not contain: the action.

import { h } from './dom.js';

/** Resolves to true if the user confirmed, to false otherwise. */
export function confirmDialog({ title, text, confirmLabel }) {
  return new Promise((resolve) => {
    const answer = (value, words, look) => h('button', { class: look, value, test: `dialog-${value}` }, words);
    const dialog = h('dialog', { class: 'dialog', 'aria-label': title },
      h('form', { method: 'dialog' }, h('h2', {}, title), h('p', {}, text), h('div', { class: 'form-actions end' }, answer('no', 'Cancel', 'button'), answer('yes', confirmLabel, 'button danger'))));
    dialog.addEventListener('close', () => {
      dialog.remove();
      resolve(dialog.returnValue === 'yes');
    });
    document.body.append(dialog);
    dialog.showModal();
  });
}
