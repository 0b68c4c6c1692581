// A table that grows page by page: head, rows, and the states of a paged list.
// Must never enter: what a row is about.

import { h } from '../dom.js';
import { pagedList } from '../paged.js';

/** `columns`: [title (text or element), class?]. The rest is as for `pagedList`, with `row(item)` → an array of the cells' contents. */
export function pagedTable({ caption, columns, row, rowTest, ...list }) {
  const body = h('tbody', {});
  const cells = (contents, props) => h('tr', props, contents.map((content, at) => h('td', { class: columns[at][1] ?? null }, content)));
  const table = pagedList({
    ...list,
    container: body,
    draw: (item) => cells(row(item), { test: rowTest, 'data-id': item.id }),
    ghost: () => Array.from({ length: 8 }, () => cells(columns.map(() => h('span', { class: 'ghost ghost-cell' })), { 'aria-hidden': 'true' })),
  });
  const head = h('thead', {}, h('tr', {}, columns.map(([title, name]) => h('th', { scope: 'col', class: name ?? null }, title))));
  // The rows move into the table; the list keeps what stands below them.
  const element = h('div', { class: 'sheet' }, h('div', { class: 'table-scroll' }, h('table', {}, h('caption', { class: 'visually-hidden' }, caption), head, body)), table.element);
  return { ...table, element };
}
