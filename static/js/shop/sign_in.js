// Signing in, and the page that asks for it where an account is needed.
// Must never enter: making accounts, passwords in anything but the form.

import { h } from '../dom.js';
import { field, form } from '../forms.js';
import { emptyState } from '../parts.js';
import { navigate } from '../router.js';
import { toast } from '../toasts.js';
import { signInWithCart } from './basket.js';

/** Where to go afterwards: an address of this page, nothing else. */
export function wayBack(query) {
  const back = query.get('back') ?? '/';
  return /^\/(?!\/)/.test(back) && new URL(back, location.origin).origin === location.origin ? back : '/';
}

export function signInFirst(title) {
  const back = new URLSearchParams({ back: location.pathname });
  return {
    title,
    element: h('div', { class: 'narrow' }, h('h1', {}, title),
      emptyState('Please sign in first', 'This page belongs to an account.', h('a', { class: 'button primary', href: `/signin?${back}` }, 'Sign in'))),
  };
}

export function signInView({ query }) {
  const items = [
    field({ name: 'email', label: 'E-mail', type: 'email', autocomplete: 'username', required: true, test: 'signin-email' }),
    field({ name: 'password', label: 'Password', type: 'password', autocomplete: 'current-password', required: true, test: 'signin-password' }),
  ];
  const { element } = form({
    items,
    button: 'Sign in',
    test: 'signin-form',
    buttonTest: 'signin-submit',
    after: h('a', { href: '/forgot' }, 'Forgot the password?'),
    submit: async (values) => {
      const left = await signInWithCart(values);
      navigate(wayBack(query), { replace: true });
      if (left.length > 0) toast({ title: 'Not all of your cart came along', body: left.join(', '), tone: 'bad' });
    },
  });
  return {
    title: 'Sign in',
    element: h('div', { class: 'small-page' }, h('h1', {}, 'Sign in'), element, h('p', { class: 'muted' }, 'New here? ', h('a', { href: `/signup?${query}` }, 'Make an account'), '.')),
  };
}
