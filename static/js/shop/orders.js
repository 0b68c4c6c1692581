// The customer's orders, newest first, with their current status.
// Does not contain: other customers' orders, payment.

import { get } from '../api.js';
import { h, throttle } from '../dom.js';
import { listen } from '../live.js';
import { money } from '../money.js';
import { pagedList } from '../paged_list.js';
import { emptyState, skeletons, statusBadge } from '../components.js';
import { currentUser } from '../session.js';
import { day } from '../time.js';
import { signInRequired } from './sign_in.js';

function renderOrder(invoice) {
  const pieces = invoice.lines.reduce((sum, line) => sum + line.quantity, 0);
  return h('li', { test: 'order', 'data-id': invoice.id },
    h('a', { class: 'order-row', href: `/orders/${invoice.id}` },
      h('span', { class: 'order-number' }, invoice.number),
      h('span', { class: 'muted small' }, day(invoice.created_at), ` · ${pieces} ${pieces === 1 ? 'item' : 'items'}`),
      statusBadge(invoice.status, 'order-status'),
      h('strong', {}, money(invoice.total, invoice.currency))));
}

export function ordersView({ signal, back }) {
  if (!currentUser()) return signInRequired('Orders');
  const list = pagedList({
    container: h('ul', { class: 'order-list' }),
    renderItem: renderOrder,
    load: (cursor, gone) => get('/invoices/', { cursor, user_id: currentUser().id }, gone),
    skeleton: () => skeletons(3, 'skeleton-row'),
    empty: () => emptyState('No orders yet', 'Your orders will appear here.', h('a', { class: 'button primary', href: '/' }, 'Continue shopping')),
    more: 'Older orders',
    signal,
  });
  const again = throttle(() => list.reload({ quiet: true }), 1000);
  listen('user', { event: ({ kind }) => /^(invoice|payment)_/.test(kind) && again(), stale: again }, signal);
  list.begin(back);
  return { title: 'Orders', element: h('div', { class: 'narrow' }, h('h1', {}, 'Your orders'), list.element) };
}
