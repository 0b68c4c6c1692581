// The registration page. A guest becomes the account and keeps the cart.
// Does not contain: sign-in, password rules (the server has them).

import { h } from '../dom.js';
import { field, form } from '../forms.js';
import { navigate } from '../router.js';
import { signUp } from '../session.js';
import { returnPath } from './sign_in.js';

export function signUpView({ query }) {
  const { element } = form({
    items: [
      field({ name: 'name', label: 'Name', autocomplete: 'name', required: true, test: 'signup-name' }),
      field({ name: 'email', label: 'E-mail', type: 'email', autocomplete: 'email', required: true, test: 'signup-email' }),
      field({ name: 'password', label: 'Password', type: 'password', autocomplete: 'new-password', required: true, hint: 'Password must be at least 8 characters.', test: 'signup-password' }),
    ],
    button: 'Create account',
    test: 'signup-form',
    buttonTest: 'signup-submit',
    submit: async (values) => {
      await signUp(values);
      navigate(returnPath(query), { replace: true });
    },
  });
  return {
    title: 'Sign up',
    element: h('div', { class: 'small-page' }, h('h1', {}, 'Create an account'), element, h('p', { class: 'muted' }, 'Already have an account? ', h('a', { href: `/signin?${query}` }, 'Sign in'), '.')),
  };
}
