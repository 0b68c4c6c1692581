// One e-mail: its text and its delivery.
// Does not contain: a rendering of its HTML part (the text part says the same).

import { get, idempotentRequest } from '../api.js';
import { h, replaceContent } from '../dom.js';
import { listen } from '../live.js';
import { loadingNote, skeletons, errorBox, statusBadge, withBusyState } from '../components.js';
import { navigate } from '../router.js';
import { dateTime } from '../time.js';
import { toast } from '../toasts.js';

const LINK_TEMPLATES = ['verify', 'reset']; // their links have a short life: the recipient requests new ones

/** A button that sends the e-mail again; of a sent one the server makes a copy, which has a page of its own. */
function resendButton(email) {
  const send = idempotentRequest();
  const button = h('button', { class: 'button', type: 'button', test: 'email-resend' }, email.status === 'queued' ? 'Send now' : 'Send again');
  button.addEventListener('click', () => withBusyState(button, async () => {
    try {
      const { id } = await send('POST', `/emails/${email.id}/resend`);
      toast({ title: 'The e-mail is on its way', tone: 'good' });
      if (id !== email.id) navigate(`/admin/emails/${id}`);
    } catch (problem) {
      toast({ title: 'Not sent', body: problem.message, tone: 'bad' });
    }
  }));
  return button;
}

export function emailView({ params, signal, setTitle }) {
  const content = h('div', {}, h('h1', { class: 'visually-hidden' }, 'E-mail'), loadingNote(), skeletons(3, 'skeleton-row'));
  const load = async () => {
    try {
      render(await get(`/emails/${params.id}`, {}, signal));
    } catch (problem) {
      if (!signal.aborted) replaceContent(content, h('h1', {}, 'The e-mail could not be loaded'), errorBox(problem, { retry: load }));
    }
  };
  const render = (email) => {
    setTitle(email.subject);
    const facts = [
      ['To', email.to], ['Kind', email.template], ['Created', dateTime(email.created_at)], ['Sent', email.sent_at && dateTime(email.sent_at)],
      ['Attempts', String(email.attempts)], ['Next attempt', email.next_attempt_at && dateTime(email.next_attempt_at)], ['Last error', email.last_error],
      ['Not sent because', email.status === 'kept' && 'No mail server is configured.'],
    ];
    replaceContent(content,
      h('nav', { class: 'crumbs', 'aria-label': 'You are here' }, h('a', { href: '/admin/emails' }, 'E-mails')),
      h('div', { class: 'page-head' }, h('div', { class: 'title-line' }, h('h1', {}, email.subject), statusBadge(email.status, 'admin-email-status')),
        email.text && !LINK_TEMPLATES.includes(email.template) && resendButton(email)),
      h('div', { class: 'columns' },
        h('section', { class: 'sheet padded', 'aria-label': 'Text' }, h('pre', { class: 'letter', test: 'email-text' }, email.text)),
        h('section', { class: 'sheet padded', 'aria-label': 'Sending' }, h('dl', { class: 'facts' },
          facts.filter(([, value]) => value).map(([name, value]) => h('div', {}, h('dt', {}, name), h('dd', {}, value)))))));
  };
  listen('emails', { event: ({ data }) => data.email_id === params.id && load(), stale: load }, signal);
  load();
  return { title: 'E-mail', element: content };
}
