// The shop's e-mails: queued, sent, failed, live (topic `emails`).
// Does not contain: writing e-mails (they have their own page).

import { get } from '../api.js';
import { h } from '../dom.js';
import { listen } from '../live.js';
import { emptyState, STATUS_LABELS, statusBadge } from '../components.js';
import { navigate } from '../router.js';
import { dateTime } from '../time.js';
import { pagedTable } from './table.js';

const STATES = ['', 'queued', 'sent', 'kept', 'failed'];

export function emailsView({ query: firstQuery, signal, back }) {
  let status = firstQuery.get('status') ?? '';
  const filter = h('select', { id: 'status', test: 'email-filter', on: { change: () => navigate(filter.value ? `/admin/emails?status=${filter.value}` : '/admin/emails', { replace: true }) } },
    STATES.map((value) => h('option', { value }, value ? STATUS_LABELS[value] : 'All statuses')));
  const table = pagedTable({
    caption: 'E-mails',
    columns: [['Subject'], ['To', 'wide-only'], ['Status'], ['Attempts', 'number wide-only'], ['Created', 'wide-only']],
    rowTest: 'admin-email',
    row: (email) => [
      h('span', {}, h('a', { class: 'row-link', href: `/admin/emails/${email.id}` }, email.subject), h('span', { class: 'small muted break narrow-only' }, email.to)),
      email.to,
      statusBadge(email.status, 'admin-email-status'),
      String(email.attempts),
      dateTime(email.created_at),
    ],
    load: (cursor, gone) => get('/emails/', { cursor, status }, gone),
    empty: () => emptyState('No e-mails', 'Receipts and other e-mails will appear here.'),
    more: 'Older e-mails',
    signal,
  });
  listen('emails', {
    event: async ({ kind, data }) => {
      if (kind === 'delivery_stalled') {
        stalled.textContent = `E-mails are not being delivered since ${dateTime(data.since)}: ${data.queued} wait. The mail server says: ${data.reason}`;
        stalled.hidden = false;
        return;
      }
      const email = await get(`/emails/${data.email_id}`, {}, signal).catch(() => null); // unreachable: the next event or visit reads again
      if (!email) return;
      if (!status || status === email.status) table.put(email);
      else table.remove(email.id);
    },
    stale: () => table.reload({ quiet: true }),
  }, signal);

  const stalled = h('p', { class: 'banner', role: 'alert', hidden: true, test: 'emails-stalled' });
  const start = (isBack) => {
    filter.value = status;
    table.begin(isBack);
  };
  start(back);
  return {
    title: 'E-mails',
    update: (context) => {
      status = context.query.get('status') ?? '';
      start(context.back);
    },
    element: h('div', {},
      h('div', { class: 'page-head' }, h('h1', {}, 'E-mails'),
        h('div', { class: 'tools' }, h('label', { for: 'status', class: 'visually-hidden' }, 'Status'), filter, h('a', { class: 'button primary', href: '/admin/emails/new', test: 'email-new' }, 'New e-mail'))),
      stalled, table.element),
  };
}
