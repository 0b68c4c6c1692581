// Making an account. A guest becomes it and keeps the cart.
// Must never enter: signing in, rules for passwords (the server says what is wrong).

import { h } from '../dom.js';
import { field, form } from '../forms.js';
import { navigate } from '../router.js';
import { signUp } from '../session.js';
import { wayBack } from './sign_in.js';

export function signUpView({ query }) {
  const { element } = form({
    items: [
      field({ name: 'name', label: 'Name', autocomplete: 'name', required: true, test: 'signup-name' }),
      field({ name: 'email', label: 'E-mail', type: 'email', autocomplete: 'email', required: true, test: 'signup-email' }),
      field({ name: 'password', label: 'Password', type: 'password', autocomplete: 'new-password', required: true, hint: 'At least 8 characters.', test: 'signup-password' }),
    ],
    button: 'Make the account',
    test: 'signup-form',
    buttonTest: 'signup-submit',
    submit: async (values) => {
      await signUp(values);
      navigate(wayBack(query), { replace: true });
    },
  });
  return {
    title: 'Sign up',
    element: h('div', { class: 'small-page' }, h('h1', {}, 'Make an account'), element, h('p', { class: 'muted' }, 'Have one already? ', h('a', { href: `/signin?${query}` }, 'Sign in'), '.')),
  };
}
