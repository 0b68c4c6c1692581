// One's own orders, newest first, with their state as it is now.
// Must never enter: other people's orders, paying.

import { get } from '../api.js';
import { h, throttle } from '../dom.js';
import { listen } from '../live.js';
import { money } from '../money.js';
import { pagedList } from '../paged.js';
import { emptyState, placeholders, statusBadge } from '../parts.js';
import { currentUser } from '../session.js';
import { day } from '../time.js';
import { signInFirst } from './sign_in.js';

function drawOrder(invoice) {
  const pieces = invoice.lines.reduce((sum, line) => sum + line.quantity, 0);
  return h('li', { test: 'order', 'data-id': invoice.id },
    h('a', { class: 'order-row', href: `/orders/${invoice.id}` },
      h('span', { class: 'order-number' }, invoice.number),
      h('span', { class: 'muted small' }, day(invoice.created_at), ` · ${pieces} ${pieces === 1 ? 'item' : 'items'}`),
      statusBadge(invoice.status, 'order-status'),
      h('strong', {}, money(invoice.total, invoice.currency))));
}

export function ordersView({ signal }) {
  if (!currentUser()) return signInFirst('Orders');
  const list = pagedList({
    container: h('ul', { class: 'order-list' }),
    draw: drawOrder,
    load: (cursor, gone) => get('/invoices/', { cursor, user_id: currentUser().id }, gone),
    ghost: () => placeholders(3, 'ghost-row'),
    empty: () => emptyState('No orders yet', 'What you order appears here.', h('a', { class: 'button primary', href: '/' }, 'Look around')),
    more: 'Older orders',
    signal,
  });
  const again = throttle(() => list.reload({ quiet: true }), 1000);
  listen('user', { event: ({ kind }) => /^(invoice|payment)_/.test(kind) && again(), stale: again }, signal);
  list.reload();
  return { title: 'Orders', element: h('div', { class: 'narrow' }, h('h1', {}, 'Your orders'), list.element) };
}
