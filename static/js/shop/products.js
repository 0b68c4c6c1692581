// The product list: search, category, price, stock and sort order come from the address, so that every state is a link.
// Does not contain: single products, the search input (the header has it).

import { get } from '../api.js';
import { h, replaceContent, throttle } from '../dom.js';
import { icon } from '../icons.js';
import { listen } from '../live.js';
import { digits, fromDecimal, money, toDecimal } from '../money.js';
import { pagedList } from '../paged_list.js';
import { emptyState, skeletons } from '../components.js';
import { navigate } from '../router.js';
import { productCard, mergeUpdate } from './card.js';

const FILTERS = ['q', 'category', 'tag', 'min_price', 'max_price', 'in_stock', 'sort'];
const SORTS = [['relevance', 'Best match'], ['-created_at', 'Newest'], ['price', 'Price, low to high'], ['-price', 'Price, high to low'], ['name', 'Name']];

function linkWith(query, changes) {
  const next = new URLSearchParams(query);
  for (const [name, value] of Object.entries(changes)) {
    if (value === null || value === '') next.delete(name);
    else next.set(name, value);
  }
  return next.size > 0 ? `/?${next}` : '/';
}

/** A group of values with their counts, each a link that sets or removes the filter. */
function facetGroup(title, name, values, query) {
  if (values.length === 0) return null;
  const chosen = query.get(name);
  const link = (label, value, count) => h('li', {},
    h('a', { href: linkWith(query, { [name]: value }), 'aria-current': (chosen ?? null) === value ? 'true' : null, 'data-facet': `${name}:${value ?? ''}`, test: `facet-${name}` },
      h('span', {}, label), count !== null && h('span', { class: 'small muted' }, String(count))));
  return h('nav', { class: `facet facet-${name}`, 'aria-label': title },
    h('h2', {}, title),
    h('ul', {}, link('All', null, null), values.map(({ value, count }) => link(value, value, count))));
}

function priceFilter(query, currency) {
  const input = (name, label) => h('input', {
    name, inputmode: 'decimal', 'aria-label': `${label} price in ${currency}`, placeholder: label, size: 6, test: name.replace('_', '-'),
    value: query.has(name) ? toDecimal(Number(query.get(name)), currency).replace(/[.,]0+$/, '') : '',
  });
  const low = input('min_price', 'From');
  const high = input('max_price', 'To');
  const note = h('p', { class: 'field-error', role: 'alert' });
  const apply = (event) => {
    event.preventDefault();
    const read = (field) => (field.value.trim() === '' ? null : fromDecimal(field.value, currency) ?? NaN);
    const limits = { min_price: read(low), max_price: read(high) };
    const wrong = Object.values(limits).some(Number.isNaN);
    note.textContent = wrong ? `Enter an amount such as ${digits(currency) === 0 ? '12' : '12.50'}.` : '';
    if (!wrong) navigate(linkWith(query, limits));
  };
  return h('form', { class: 'facet price-filter', 'aria-label': 'Price', on: { submit: apply } },
    h('h2', {}, `Price, ${currency}`),
    h('div', { class: 'price-range' }, low, h('span', { 'aria-hidden': 'true' }, '–'), high, h('button', { class: 'button small', type: 'submit', test: 'price-apply' }, 'Apply')),
    note);
}

function stockFilter(query, count) {
  const change = (event) => navigate(linkWith(query, { in_stock: event.target.checked ? 'true' : null }));
  const input = h('input', { type: 'checkbox', id: 'in-stock', checked: query.get('in_stock') === 'true', test: 'in-stock', 'data-facet': 'in_stock', on: { change } });
  return h('div', { class: 'facet field check' }, input, h('label', { for: 'in-stock' }, `In stock only (${count})`));
}

/** The filters that are on, each with a link that removes it. */
function activeFilters(query, currency) {
  const words = {
    q: (value) => `“${value}”`, category: (value) => value, tag: (value) => `#${value}`, in_stock: () => 'In stock',
    min_price: (value) => `from ${money(Number(value), currency)}`, max_price: (value) => `to ${money(Number(value), currency)}`,
  };
  const chips = Object.keys(words).filter((name) => query.has(name)).map((name) => h('a', {
    class: 'chip', href: linkWith(query, { [name]: null }), 'aria-label': `Remove filter: ${words[name](query.get(name))}`, test: 'filter-chip',
  }, words[name](query.get(name)), icon('close')));
  return chips.length > 0 ? [...chips, h('a', { class: 'small', href: '/', test: 'filters-clear' }, 'Clear all')] : [];
}

export function productsView({ query: firstQuery, signal, back }) {
  let query = firstQuery;
  let currency = 'EUR';
  let facets = null;

  const heading = h('h1', {});
  const chips = h('div', { class: 'chips' });
  const total = h('p', { class: 'muted', role: 'status', test: 'total' }, '\u00a0');
  const sort = h('select', { id: 'sort', test: 'sort', on: { change: () => navigate(linkWith(query, { sort: sort.value })) } });
  const filters = h('div', { class: 'filters', id: 'filters' }, skeletons(7, 'skeleton-line'));
  const toggle = h('button', {
    class: 'button small filters-toggle', type: 'button', 'aria-expanded': 'false', 'aria-controls': 'filters', test: 'filters-toggle',
    on: { click: () => toggle.setAttribute('aria-expanded', String(filters.classList.toggle('open'))) },
  }, icon('filter'), 'Filters');

  const params = () => Object.fromEntries(FILTERS.map((name) => [name, query.get(name)]));
  const grid = h('ul', { class: 'grid', test: 'products' });
  let suggestion;
  const list = pagedList({
    container: grid,
    renderItem: productCard,
    signal,
    extra: () => ({ facets, currency }),
    skeleton: () => skeletons(8, 'skeleton-card'),
    more: 'Show more products',
    empty: () => emptyState('No products found', 'Try a different search or remove a filter.', suggestion
      ? h('a', { class: 'button', href: linkWith(query, { q: suggestion }), test: 'suggestion' }, `Did you mean “${suggestion}”?`)
      : h('a', { class: 'button', href: '/' }, 'Show all products')),
    load: async (cursor, gone) => {
      const page = await get('/products/', { ...params(), limit: 24, cursor }, gone);
      if (!cursor) {
        ({ facets, suggestion } = page);
        currency = page.items[0]?.currency ?? currency;
        renderFacets();
      }
      return page;
    },
  });

  const renderFacets = () => {
    total.textContent = facets.total === 1 ? '1 product' : `${facets.total}${facets.capped ? '+' : ''} products`;
    renderFilters();
  };

  const renderFilters = () => {
    const focused = filters.contains(document.activeElement) ? document.activeElement.dataset.facet : null;
    replaceContent(filters,
      facetGroup('Categories', 'category', facets.categories, query),
      priceFilter(query, currency),
      stockFilter(query, facets.in_stock),
      facetGroup('Tags', 'tag', facets.tags, query));
    if (focused) filters.querySelector(`[data-facet="${CSS.escape(focused)}"]`)?.focus();
    chips.replaceChildren(...activeFilters(query, currency));
  };

  const renderHead = () => {
    const words = query.get('q');
    heading.textContent = words ? `Results for “${words}”` : query.get('category') ?? query.get('tag') ?? 'All products';
    const choices = words ? SORTS : SORTS.slice(1);
    sort.replaceChildren(...choices.map(([value, text]) => h('option', { value }, text)));
    sort.value = query.get('sort') ?? choices[0][0];
    chips.replaceChildren(...activeFilters(query, currency));
  };

  const begin = (isBack) => {
    renderHead();
    const before = list.begin(isBack);
    if (!before) return;
    ({ facets, currency } = before);
    renderFacets();
  };
  begin(back);

  const refresh = throttle(() => list.reload({ quiet: true }), 1000);
  listen('catalog', {
    event: ({ kind, data }) => {
      if (kind !== 'product_changed') return;
      const product = list.get(data.product_id);
      if (product && data.deleted) list.remove(data.product_id);
      else if (product) list.put(mergeUpdate(product, data));
    },
    stale: refresh,
  }, signal);

  return {
    title: '',
    update: (context) => {
      query = context.query;
      if (context.back) {
        begin(true);
        return;
      }
      renderHead();
      list.reload({ quiet: true });
    },
    element: h('div', { class: 'product-list' },
      h('div', { class: 'product-list-head' }, h('div', {}, heading, total), h('div', { class: 'product-list-tools' }, toggle, h('label', { for: 'sort', class: 'visually-hidden' }, 'Sort by'), sort)),
      h('aside', { 'aria-label': 'Filters' }, filters),
      h('section', { class: 'product-list-list', 'aria-label': 'Products' }, chips, list.element)),
  };
}
