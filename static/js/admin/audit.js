// The audit log: what staff changed, when and from where.
// Does not contain: what is recorded, which each domain decides.

import { get, requestFile } from '../api.js';
import { emptyState, withBusyState } from '../components.js';
import { h } from '../dom.js';
import { dateTime } from '../time.js';
import { toast } from '../toasts.js';
import { pagedTable } from './table.js';

/** `{before, after}` as lines of the fields that differ. */
function changedFields(change) {
  if (!change) return [];
  const [before, after] = [change.before ?? {}, change.after ?? {}];
  const text = (value) => (value === undefined || value === null ? '–' : typeof value === 'object' ? JSON.stringify(value) : String(value));
  return Object.keys({ ...before, ...after })
    .filter((name) => JSON.stringify(before[name]) !== JSON.stringify(after[name]))
    .map((name) => h('span', { class: 'small block' }, `${name}: ${text(before[name])} → ${text(after[name])}`));
}

/** The resource that an entry is about, as a link where a page shows it. */
function subjectLink(subject) {
  if (subject.product_id) return h('a', { href: `/admin/products/${subject.product_id}` }, 'Product');
  if (subject.invoice_id) return h('a', { href: `/admin/orders/${subject.invoice_id}` }, 'Order');
  if (subject.email_id) return h('a', { href: `/admin/emails/${subject.email_id}` }, 'E-mail');
  return Object.entries(subject).map(([name, value]) => h('span', { class: 'small muted block break' }, `${name} ${value}`));
}

async function download() {
  const file = await requestFile('/audit', 'text/csv');
  const link = h('a', { href: URL.createObjectURL(file), download: 'audit.csv' });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

export function auditView({ signal, back }) {
  const names = new Map();
  const nameOf = (id) => {
    if (!names.has(id)) names.set(id, get(`/user/${id}`).then((user) => user.email, () => 'former member of staff'));
    return names.get(id);
  };
  const who = (entry) => {
    const cell = h('span', { class: 'break' }, '…');
    nameOf(entry.user_id).then((name) => { cell.textContent = name; });
    return h('span', {}, cell, h('span', { class: 'small muted block' }, `${entry.role}, ${entry.credential.split(' ')[0].replace('_', ' ')}`));
  };
  const table = pagedTable({
    caption: 'Audit log',
    columns: [['Time'], ['Who'], ['What'], ['Change', 'wide-only'], ['From', 'wide-only']],
    rowTest: 'audit-entry',
    row: (entry) => [
      dateTime(entry.at),
      who(entry),
      h('span', {}, entry.action, h('span', { class: 'small block' }, subjectLink(entry.subject))),
      changedFields(entry.change),
      entry.network ?? '–',
    ],
    load: (cursor, gone) => get('/audit', { cursor, limit: 30 }, gone),
    empty: () => emptyState('No entries', 'What staff change will appear here.'),
    more: 'Older entries',
    signal,
  });
  table.begin(back);
  const save = h('button', { class: 'button', type: 'button', test: 'audit-export' }, 'Export');
  save.addEventListener('click', () => withBusyState(save, () => download().catch((problem) => toast({ title: problem.message, tone: 'bad' }))));
  return { title: 'Audit log', element: h('div', {}, h('div', { class: 'page-head' }, h('h1', {}, 'Audit log'), h('div', { class: 'tools' }, save)), table.element) };
}
