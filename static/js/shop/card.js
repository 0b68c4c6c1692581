// A product in short: its card in a list, image, price, stock label.
// Does not contain: requests, buttons that change anything.

import { h } from '../dom.js';
import { money } from '../money.js';
import { productImage, stars } from '../components.js';

export function priceTag(product, test) {
  const reduced = (product.compare_at_price ?? 0) > product.price;
  return h('p', { class: 'price', test },
    reduced && h('s', { class: 'was' }, h('span', { class: 'visually-hidden' }, 'Before: '), money(product.compare_at_price, product.currency)),
    h('span', { class: reduced ? 'now reduced' : 'now' }, money(product.price, product.currency)));
}

/** The stock label: [text, tone]. */
export function stockLabel(product) {
  if (product.deleted) return ['No longer sold', 'off'];
  if (product.stock <= 0) return ['Out of stock', 'off'];
  if (product.stock <= 5) return [`Only ${product.stock} left`, 'low'];
  return ['In stock', 'good'];
}

/** The product with the fields of a newer live event. */
export function mergeUpdate(product, { name, price, currency, stock, rating, review_count, deleted, updated_at }) {
  if (Date.parse(updated_at) < Date.parse(product.updated_at)) return product;
  return { ...product, name, price, currency, stock, rating, review_count, deleted, updated_at };
}

export function productCard(product) {
  const [words, tone] = stockLabel(product);
  return h('li', { class: 'card', test: 'product-card', 'data-id': product.id },
    h('a', { href: `/p/${product.id}`, class: 'card-link' },
      productImage(product.images[0], product.name, { sizes: '(max-width: 48rem) 45vw, 16rem' }),
      h('span', { class: 'card-name' }, product.name)),
    h('div', { class: 'card-facts' },
      priceTag(product),
      product.review_count > 0 && h('p', { class: 'card-rating' }, stars(product.rating), h('span', { class: 'small muted' }, ` ${product.review_count}`))),
    product.variants.length > 1 && h('p', { class: 'small muted' }, `${product.variants.length} options`),
    tone !== 'good' && h('p', { class: `stock small ${tone}` }, words));
}
