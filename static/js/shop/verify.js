// The target of the link in the confirmation e-mail: submits the token and shows the result.
// Does not contain: anything else.

import { request } from '../api.js';
import { h } from '../dom.js';
import { errorBox } from '../components.js';
import { currentUser, loadSession } from '../session.js';

export function verifyView({ query }) {
  const outcome = h('div', { 'aria-live': 'polite', test: 'verify-outcome' }, h('p', { class: 'muted' }, 'One moment…'));
  const verify = async () => {
    try {
      await request('POST', '/email/verify', { body: { token: query.get('token') ?? '' } });
      if (currentUser()) await loadSession();
      outcome.replaceChildren(h('p', { class: 'banner paid' }, 'Your e-mail address is confirmed. ', h('a', { href: '/' }, 'Continue shopping'), '.'));
    } catch (problem) {
      outcome.replaceChildren(errorBox(problem));
    }
  };
  verify();
  return { title: 'Verify e-mail', element: h('div', { class: 'small-page' }, h('h1', {}, 'Your e-mail address'), outcome) };
}
