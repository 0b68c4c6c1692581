// All products with their stock, with search as you type, live (topic `catalog`).
// Does not contain: changes to products (each has its own page).

import { get } from '../api.js';
import { debounce, h } from '../dom.js';
import { listen } from '../live.js';
import { money } from '../money.js';
import { emptyState, productImage } from '../components.js';
import { replaceUrl } from '../router.js';
import { searchField } from './search.js';
import { pagedTable } from './table.js';

export function productsView({ query, signal, back }) {
  let words = query.get('q') ?? '';
  const search = searchField('Search products', 'product-search', debounce((value) => {
    words = value;
    replaceUrl(words ? `/admin/products?${new URLSearchParams({ q: words })}` : '/admin/products');
    table.reload({ quiet: true });
  }, 200), words);
  const table = pagedTable({
    caption: 'Products',
    columns: [[h('span', { class: 'visually-hidden' }, 'Picture'), 'thumb-cell'], ['Name'], ['SKU', 'wide-only'], ['Category', 'wide-only'], ['Stock', 'number'], ['Price', 'number']],
    rowTest: 'admin-product',
    row: (product) => [
      productImage(product.images[0], product.name, { sizes: '2.75rem' }),
      h('span', {}, h('a', { class: 'row-link', href: `/admin/products/${product.id}` }, product.name),
        h('span', { class: 'small muted block' }, Object.values(product.options).join(', '))),
      product.sku,
      product.category ?? '',
      h('span', { class: product.stock <= 0 ? 'bad' : '', test: 'admin-stock' }, product.track_stock ? String(product.stock) : 'not counted'),
      money(product.price, product.currency),
    ],
    load: (cursor, gone) => get('/products/', { q: words, variants: 'all', cursor, limit: 30 }, gone),
    empty: () => emptyState('No products', words ? 'No products match your search.' : 'Create your first product.'),
    more: 'More products',
    signal,
  });
  listen('catalog', {
    event: ({ kind, data }) => {
      if (kind !== 'product_changed') return;
      const product = table.get(data.product_id);
      if (product && data.deleted) table.remove(data.product_id);
      else if (product) table.put({ ...product, name: data.name, sku: data.sku, price: data.price, currency: data.currency, stock: data.stock });
    },
    stale: () => table.reload({ quiet: true }),
  }, signal);
  table.begin(back);
  return {
    title: 'Products',
    element: h('div', {},
      h('div', { class: 'page-head' }, h('h1', {}, 'Products'), h('div', { class: 'tools' }, search, h('a', { class: 'button primary', href: '/admin/products/new', test: 'product-new' }, 'New product'))),
      table.element),
  };
}
