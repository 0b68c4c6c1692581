// The customer list with search as you type.
// Does not contain: changes to accounts.

import { get } from '../api.js';
import { debounce, h } from '../dom.js';
import { emptyState } from '../components.js';
import { day } from '../time.js';
import { replaceUrl } from '../router.js';
import { searchField } from './search.js';
import { pagedTable } from './table.js';

export function customersView({ query, signal, back }) {
  let words = query.get('q') ?? '';
  const search = searchField('Search customers', 'customer-search', debounce((value) => {
    words = value;
    replaceUrl(words ? `/admin/customers?${new URLSearchParams({ q: words })}` : '/admin/customers');
    table.reload({ quiet: true });
  }, 200), words);
  const table = pagedTable({
    caption: 'Customers',
    columns: [['Name'], ['E-mail'], ['Role', 'wide-only'], ['Since', 'wide-only'], ['Orders']],
    rowTest: 'admin-customer',
    row: (user) => [
      user.name,
      h('span', { class: 'break' }, user.email, !user.email_verified && h('span', { class: 'small muted block' }, 'not verified')),
      user.role,
      day(user.created_at),
      h('a', { href: `/admin/orders?user_id=${user.id}`, 'aria-label': `Orders of ${user.name}` }, 'Orders'),
    ],
    load: (cursor, gone) => get('/users/', { q: words, cursor, limit: 30 }, gone),
    empty: () => emptyState('No customers', words ? 'No customers match your search.' : 'New customers will appear here.'),
    more: 'More customers',
    signal,
  });
  table.begin(back);
  return { title: 'Customers', element: h('div', {}, h('div', { class: 'page-head' }, h('h1', {}, 'Customers'), h('div', { class: 'tools' }, search)), table.element) };
}
