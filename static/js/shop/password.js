// The forgotten password: asking for the letter, and the new password its link leads to.
// Must never enter: whether an address is known (the server never says, so neither do we).

import { request } from '../api.js';
import { h } from '../dom.js';
import { field, form } from '../forms.js';

function page(title, ...content) {
  return { title, element: h('div', { class: 'small-page' }, h('h1', {}, title), content) };
}

export function forgotView() {
  const ask = form({
    items: [field({ name: 'email', label: 'E-mail', type: 'email', autocomplete: 'email', required: true, test: 'forgot-email' })],
    button: 'Send me a link',
    test: 'forgot-form',
    buttonTest: 'forgot-submit',
    submit: async (values) => {
      await request('POST', '/password/forgot', { body: values });
      ask.element.replaceWith(h('p', { class: 'banner', role: 'status', test: 'forgot-done' }, 'If there is an account with this address, a letter with a link is on its way.'));
    },
  });
  return page('Forgot the password?', h('p', { class: 'muted' }, 'We send you a link with which you set a new one.'), ask.element);
}

export function resetView({ query }) {
  const token = query.get('token');
  if (!token) return page('New password', h('p', { class: 'banner' }, 'This link is not complete. Open it from the letter again.'));
  const set = form({
    items: [field({ name: 'password', label: 'New password', type: 'password', autocomplete: 'new-password', required: true, test: 'reset-password' })],
    button: 'Set the password',
    test: 'reset-form',
    buttonTest: 'reset-submit',
    submit: async ({ password }) => {
      await request('POST', '/password/reset', { body: { token, password } });
      set.element.replaceWith(h('p', { class: 'banner', role: 'status', test: 'reset-done' }, 'The new password holds. ', h('a', { href: '/signin' }, 'Sign in'), '.'));
    },
  });
  return page('New password', set.element);
}
