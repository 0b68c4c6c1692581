// How a product looks in short: its card in the list, its picture, its price, how much is left.
// Must never enter: requests, buttons that change anything.

import { h } from '../dom.js';
import { money } from '../money.js';
import { picture, stars } from '../parts.js';

export function priceTag(product, test) {
  const reduced = (product.compare_at_price ?? 0) > product.price;
  return h('p', { class: 'price', test },
    reduced && h('s', { class: 'was' }, h('span', { class: 'visually-hidden' }, 'Before: '), money(product.compare_at_price, product.currency)),
    h('span', { class: reduced ? 'now reduced' : 'now' }, money(product.price, product.currency)));
}

/** What to say about the stock: [words, tone]. */
export function stockWords(product) {
  if (product.deleted) return ['No longer sold', 'off'];
  if (product.stock <= 0) return ['Out of stock', 'off'];
  if (product.stock <= 5) return [`Only ${product.stock} left`, 'low'];
  return ['In stock', 'good'];
}

/** A product with what a live event tells of it. */
export function withNews(product, { name, price, currency, stock, rating, review_count, deleted, updated_at }) {
  if (Date.parse(updated_at) < Date.parse(product.updated_at)) return product;
  return { ...product, name, price, currency, stock, rating, review_count, deleted, updated_at };
}

export function productCard(product) {
  const [words, tone] = stockWords(product);
  return h('li', { class: 'card', test: 'product-card', 'data-id': product.id },
    h('a', { href: `/p/${product.id}`, class: 'card-link' },
      picture(product.images[0], product.name, { room: '(max-width: 48rem) 45vw, 16rem' }),
      h('span', { class: 'card-name' }, product.name)),
    h('div', { class: 'card-facts' },
      priceTag(product),
      product.review_count > 0 && h('p', { class: 'card-rating' }, stars(product.rating), h('span', { class: 'small muted' }, ` ${product.review_count}`))),
    product.variants.length > 1 && h('p', { class: 'small muted' }, `${product.variants.length} kinds`),
    tone !== 'good' && h('p', { class: `stock small ${tone}` }, words));
}
