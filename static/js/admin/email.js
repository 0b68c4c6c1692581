// One letter: its text, and how the sending went.
// Must never enter: showing its HTML form (a letter is not ours to run; its text says the same).

import { get } from '../api.js';
import { h, swap } from '../dom.js';
import { listen } from '../live.js';
import { loadingNote, placeholders, problemBox, statusBadge } from '../parts.js';
import { dateTime } from '../time.js';

export function emailView({ params, signal, setTitle }) {
  const content = h('div', {}, h('h1', { class: 'visually-hidden' }, 'E-mail'), loadingNote(), placeholders(3, 'ghost-row'));
  const load = async () => {
    try {
      draw(await get(`/emails/${params.id}`, {}, signal));
    } catch (problem) {
      if (!signal.aborted) swap(content, h('h1', {}, 'The e-mail could not be shown'), problemBox(problem, { retry: load }));
    }
  };
  const draw = (email) => {
    setTitle(email.subject);
    const facts = [
      ['To', email.to], ['Kind', email.template], ['Written', dateTime(email.created_at)], ['Sent', email.sent_at && dateTime(email.sent_at)],
      ['Attempts', String(email.attempts)], ['Next try', email.next_attempt_at && dateTime(email.next_attempt_at)], ['Last trouble', email.last_error],
      ['Why it was not sent', email.status === 'kept' && 'There is no mail server in the settings; the letter is kept here.'],
    ];
    swap(content,
      h('nav', { class: 'crumbs', 'aria-label': 'You are here' }, h('a', { href: '/admin/emails' }, 'E-mails')),
      h('div', { class: 'page-head' }, h('div', { class: 'title-line' }, h('h1', {}, email.subject), statusBadge(email.status, 'admin-email-status'))),
      h('div', { class: 'columns' },
        h('section', { class: 'sheet padded', 'aria-label': 'Text' }, h('pre', { class: 'letter', test: 'email-text' }, email.text)),
        h('section', { class: 'sheet padded', 'aria-label': 'Sending' }, h('dl', { class: 'facts' },
          facts.filter(([, value]) => value).map(([name, value]) => h('div', {}, h('dt', {}, name), h('dd', {}, value)))))));
  };
  listen('emails', { event: ({ data }) => data.email_id === params.id && load(), stale: load }, signal);
  load();
  return { title: 'E-mail', element: content };
}
