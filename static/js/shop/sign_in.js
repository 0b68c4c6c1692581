// The sign-in page, and the placeholder of pages that need an account.
// Does not contain: registration, passwords outside the form.

import { h } from '../dom.js';
import { field, form } from '../forms.js';
import { emptyState } from '../components.js';
import { navigate } from '../router.js';
import { toast } from '../toasts.js';
import { codeField, credentials } from '../second_factor.js';
import { signInWithCart } from './cart_store.js';

/** The address to return to: a path of this origin, never another. */
export function returnPath(query) {
  const back = query.get('back') ?? '/';
  return /^\/(?!\/)/.test(back) && new URL(back, location.origin).origin === location.origin ? back : '/';
}

export function signInRequired(title) {
  const back = new URLSearchParams({ back: location.pathname });
  return {
    title,
    element: h('div', { class: 'narrow' }, h('h1', {}, title),
      emptyState('Sign in to see this page', '', h('a', { class: 'button primary', href: `/signin?${back}` }, 'Sign in'))),
  };
}

export function signInView({ query }) {
  const { code, withCode } = codeField();
  const items = [
    field({ name: 'email', label: 'E-mail', type: 'email', autocomplete: 'username', required: true, test: 'signin-email' }),
    field({ name: 'password', label: 'Password', type: 'password', autocomplete: 'current-password', required: true, test: 'signin-password' }),
    code,
  ];
  const { element } = form({
    items,
    button: 'Sign in',
    test: 'signin-form',
    buttonTest: 'signin-submit',
    after: h('a', { href: '/forgot' }, 'Forgot your password?'),
    submit: (values) => withCode(async () => {
      const left = await signInWithCart(credentials(values));
      navigate(returnPath(query), { replace: true });
      if (left.length > 0) toast({ title: 'Some items could not be moved to your cart', body: left.join(', '), tone: 'bad' });
    }),
  });
  return {
    title: 'Sign in',
    element: h('div', { class: 'small-page' }, h('h1', {}, 'Sign in'), element, h('p', { class: 'muted' }, 'New here? ', h('a', { href: `/signup?${query}` }, 'Create an account'), '.')),
  };
}
