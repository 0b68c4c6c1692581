// All orders, newest first, by status, live (topic `orders`).
// Does not contain: changes to orders (each has its own page).

import { get } from '../api.js';
import { h } from '../dom.js';
import { listen } from '../live.js';
import { money } from '../money.js';
import { emptyState, STATUS_LABELS, statusBadge } from '../components.js';
import { navigate } from '../router.js';
import { dateTime } from '../time.js';
import { pagedTable } from './table.js';

/** Which invoice an event of the topic `orders` is about. */
export function invoiceOf(data) {
  return data.invoice?.id ?? data.invoice_id;
}

const STATES = ['', 'open', 'paid', 'expired', 'void', 'refunded'];

export function ordersView({ query: firstQuery, signal, back }) {
  let query = firstQuery;
  const link = (status) => {
    const next = new URLSearchParams(query);
    if (status) next.set('status', status);
    else next.delete('status');
    return next.size > 0 ? `/admin/orders?${next}` : '/admin/orders';
  };
  const filter = h('select', { id: 'status', test: 'order-filter', on: { change: () => navigate(link(filter.value), { replace: true }) } },
    STATES.map((status) => h('option', { value: status }, status ? STATUS_LABELS[status] : 'All statuses')));
  const fits = (invoice) => (!query.get('status') || query.get('status') === invoice.status) && (!query.get('user_id') || query.get('user_id') === invoice.user_id);

  const table = pagedTable({
    caption: 'Orders',
    columns: [['No.'], ['Placed', 'wide-only'], ['Lines', 'wide-only'], ['Status'], ['Total', 'number']],
    rowTest: 'admin-order',
    row: (invoice) => [
      h('span', { class: 'whole' }, h('a', { class: 'row-link', href: `/admin/orders/${invoice.id}` }, invoice.number), h('span', { class: 'small muted block narrow-only' }, dateTime(invoice.created_at))),
      dateTime(invoice.created_at),
      h('span', { class: 'clip' }, invoice.lines.map((line) => `${line.quantity} × ${line.description}`).join(', ')),
      statusBadge(invoice.status, 'admin-order-status'),
      money(invoice.total, invoice.currency),
    ],
    load: (cursor, gone) => get('/invoices/', { cursor, status: query.get('status'), user_id: query.get('user_id') }, gone),
    empty: () => emptyState('No orders', 'New orders appear here automatically.'),
    more: 'Older orders',
    signal,
  });

  const freshen = async (id) => {
    if (!id) return; // an event about no order
    const invoice = await get(`/invoices/${id}`, {}, signal).catch(() => null); // unreachable: the next event or visit reads again
    if (!invoice) return;
    if (fits(invoice)) table.put(invoice);
    else table.remove(id);
  };
  listen('orders', { event: ({ data }) => freshen(invoiceOf(data)), stale: () => table.reload({ quiet: true }) }, signal);

  const start = (isBack) => {
    filter.value = query.get('status') ?? '';
    table.begin(isBack);
  };
  start(back);
  return {
    title: 'Orders',
    update: (context) => {
      query = context.query;
      start(context.back);
    },
    element: h('div', {},
      h('div', { class: 'page-head' }, h('h1', {}, 'Orders'), h('div', { class: 'tools' }, h('label', { for: 'status', class: 'visually-hidden' }, 'Status'), filter)),
      table.element),
  };
}
