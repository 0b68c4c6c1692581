// Reviews of a product: the live list, and the form for a new one.
// Does not contain: the product.

import { get, idempotentRequest, request } from '../api.js';
import { confirmDialog } from '../dialog.js';
import { h, replaceContent } from '../dom.js';
import { field, form } from '../forms.js';
import { listen } from '../live.js';
import { pagedList } from '../paged_list.js';
import { emptyState, skeletons, stars } from '../components.js';
import { mayModerate, signedInUser } from '../session.js';
import { day } from '../time.js';
import { toast } from '../toasts.js';

function renderReview(review, remove) {
  const own = signedInUser() && (review.user_id === signedInUser().id || mayModerate());
  return h('li', { class: 'review', test: 'review' },
    h('p', { class: 'review-head' }, stars(review.rating), h('strong', {}, review.author), h('span', { class: 'small muted' }, day(review.created_at))),
    review.text && h('p', {}, review.text),
    own && h('button', { class: 'link small', type: 'button', test: 'review-remove', on: { click: () => remove(review) } }, 'Remove'));
}

export function reviews(productId, signal) {
  const path = `/product/${productId}/comments/`;
  const list = pagedList({
    container: h('ul', { class: 'reviews', test: 'reviews' }),
    renderItem: (review) => renderReview(review, remove),
    load: (cursor, gone) => get(path, { cursor, limit: 10 }, gone),
    skeleton: () => skeletons(2, 'skeleton-line'),
    empty: () => emptyState('No reviews yet', 'Be the first to review this product.'),
    more: 'Older reviews',
    signal,
  });

  const remove = async (review) => {
    if (!await confirmDialog({ title: 'Remove this review?', text: 'This cannot be undone.', confirmLabel: 'Remove' })) return;
    try {
      await request('DELETE', path + review.id);
      list.remove(review.id);
      replaceContent(place, writing());
    } catch (problem) {
      toast({ title: 'Not removed', body: problem.message, tone: 'bad' });
    }
  };

  const write = idempotentRequest();
  const writing = () => {
    if (!signedInUser()) {
      const back = new URLSearchParams({ back: location.pathname });
      return h('p', { class: 'muted' }, h('a', { href: `/signin?${back}` }, 'Sign in'), ' to write a review.');
    }
    const rating = field({ name: 'rating', label: 'Stars', options: [['5', '★★★★★ Excellent'], ['4', '★★★★ Good'], ['3', '★★★ Fair'], ['2', '★★ Poor'], ['1', '★ Bad']], test: 'review-rating' });
    const text = field({ name: 'text', label: 'Your review', rows: 4, maxlength: 5000, required: true, test: 'review-text' });
    return form({
      items: [rating, text],
      button: 'Publish',
      test: 'review-form',
      buttonTest: 'review-send',
      submit: async (values) => {
        list.put(await write('POST', path, { rating: Number(values.rating), text: values.text }));
        replaceContent(place, h('p', { class: 'good', role: 'status', test: 'review-done' }, 'Thank you. Your review is published.'));
      },
    }).element;
  };

  const again = () => list.reload({ quiet: true });
  listen(`comments:${productId}`, { event: again, stale: again }, signal);
  const place = h('div', {}, writing());
  list.begin(false);
  return h('section', { class: 'review-section', id: 'reviews', 'aria-label': 'Reviews' }, h('h2', {}, 'Reviews'), h('div', { class: 'review-columns' }, list.element, place));
}
