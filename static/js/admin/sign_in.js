// The sign-in page of the back office.
// Does not contain: authorization (the server decides at each request).

import { h } from '../dom.js';
import { field, form } from '../forms.js';
import { codeField, credentials } from '../second_factor.js';
import { signedInUser, isStaff, signIn } from '../session.js';

/** `done()` is called when an administrator is signed in. */
export function signInPage(done) {
  const { code, withCode } = codeField();
  const { element } = form({
    items: [
      field({ name: 'email', label: 'E-mail', type: 'email', autocomplete: 'username', required: true, test: 'signin-email' }),
      field({ name: 'password', label: 'Password', type: 'password', autocomplete: 'current-password', required: true, test: 'signin-password' }),
      code,
    ],
    button: 'Sign in',
    test: 'signin-form',
    buttonTest: 'signin-submit',
    submit: (values) => withCode(async () => {
      await signIn(credentials(values));
      if (!isStaff()) throw new Error('This account is not one of the shop’s staff.');
      await done();
    }),
  });
  return h('div', { class: 'door' }, h('h1', {}, 'Back office'),
    signedInUser() && h('p', { class: 'banner' }, `You are signed in as ${signedInUser().email}, who is not one of the shop’s staff.`),
    element, h('p', {}, h('a', { href: '/' }, 'View storefront')));
}
