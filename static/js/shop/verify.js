// Where the link in the verification letter leads: hands the token in and says how it went.
// Must never enter: anything else.

import { request } from '../api.js';
import { h } from '../dom.js';
import { problemBox } from '../parts.js';
import { currentUser, loadSession } from '../session.js';

export function verifyView({ query }) {
  const outcome = h('div', { 'aria-live': 'polite', test: 'verify-outcome' }, h('p', { class: 'muted' }, 'One moment…'));
  const verify = async () => {
    try {
      await request('POST', '/email/verify', { body: { token: query.get('token') ?? '' } });
      if (currentUser()) await loadSession();
      outcome.replaceChildren(h('p', { class: 'banner paid' }, 'Thank you, the address is yours. ', h('a', { href: '/' }, 'To the shop'), '.'));
    } catch (problem) {
      outcome.replaceChildren(problemBox(problem));
    }
  };
  verify();
  return { title: 'Verify e-mail', element: h('div', { class: 'small-page' }, h('h1', {}, 'Your e-mail address'), outcome) };
}
