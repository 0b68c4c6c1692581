// A table that grows page by page: head, rows, and the states of a paged list.
// Does not contain: the content of a row.

import { h } from '../dom.js';
import { pagedList } from '../paged_list.js';

/** `columns`: [title (text or element), class?]. The rest is as for `pagedList`, with `row(item)` → an array of the cells' contents. */
export function pagedTable({ caption, columns, row, rowTest, ...list }) {
  const body = h('tbody', {});
  const cells = (contents, props) => h('tr', props, contents.map((content, at) => h('td', { class: columns[at][1] ?? null }, content)));
  const table = pagedList({
    ...list,
    container: body,
    renderItem: (item) => cells(row(item), { test: rowTest, 'data-id': item.id }),
    skeleton: () => Array.from({ length: 8 }, () => cells(columns.map(() => h('span', { class: 'skeleton skeleton-cell' })), { 'aria-hidden': 'true' })),
  });
  const head = h('thead', {}, h('tr', {}, columns.map(([title, name]) => h('th', { scope: 'col', class: name ?? null }, title))));
  // The rows move into the table; the list keeps what stands below them.
  const element = h('div', { class: 'sheet' }, h('div', { class: 'table-scroll' }, h('table', {}, h('caption', { class: 'visually-hidden' }, caption), head, body)), table.element);
  return { ...table, element };
}
