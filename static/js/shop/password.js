// The pages for a forgotten password: request a link, and choose a new password after following it.
// Does not contain: whether an address has an account (the server does not reveal it).

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
      ask.element.replaceWith(h('p', { class: 'banner', role: 'status', test: 'forgot-done' }, 'If an account exists for this address, we have sent a link.'));
    },
  });
  return page('Forgot your password?', h('p', { class: 'muted' }, 'We will send you a link to choose a new one.'), ask.element);
}

export function resetView({ query }) {
  const token = query.get('token');
  if (!token) return page('New password', h('p', { class: 'banner' }, 'This link is incomplete. Open it again from the e-mail.'));
  const set = form({
    items: [field({ name: 'password', label: 'New password', type: 'password', autocomplete: 'new-password', required: true, test: 'reset-password' })],
    button: 'Change password',
    test: 'reset-form',
    buttonTest: 'reset-submit',
    submit: async ({ password }) => {
      await request('POST', '/password/reset', { body: { token, password } });
      set.element.replaceWith(h('p', { class: 'banner', role: 'status', test: 'reset-done' }, 'Your password has been changed. ', h('a', { href: '/signin' }, 'Sign in'), '.'));
    },
  });
  return page('New password', set.element);
}
