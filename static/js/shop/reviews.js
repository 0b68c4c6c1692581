// What customers say about a product: the list, live, and the form for one's own word.
// Must never enter: the product itself.

import { get, intent, request } from '../api.js';
import { confirmDeed } from '../dialog.js';
import { h, swap } from '../dom.js';
import { field, form } from '../forms.js';
import { listen } from '../live.js';
import { pagedList } from '../paged.js';
import { emptyState, placeholders, stars } from '../parts.js';
import { account } from '../session.js';
import { day } from '../time.js';
import { toast } from '../toasts.js';

function drawReview(review, remove) {
  const own = account() && (review.user_id === account().id || account().role === 'admin');
  return h('li', { class: 'review', test: 'review' },
    h('p', { class: 'review-head' }, stars(review.rating), h('strong', {}, review.author), h('span', { class: 'small muted' }, day(review.created_at))),
    h('p', {}, review.text),
    own && h('button', { class: 'link small', type: 'button', test: 'review-remove', on: { click: () => remove(review) } }, 'Remove'));
}

export function reviews(productId, signal) {
  const path = `/product/${productId}/comments/`;
  const list = pagedList({
    container: h('ul', { class: 'reviews', test: 'reviews' }),
    draw: (review) => drawReview(review, remove),
    load: (cursor, gone) => get(path, { cursor, limit: 10 }, gone),
    ghost: () => placeholders(2, 'ghost-line'),
    empty: () => emptyState('No reviews yet', 'Be the first to say how it is.'),
    more: 'Older reviews',
    signal,
  });

  const remove = async (review) => {
    if (!await confirmDeed({ title: 'Remove this review?', text: 'It cannot be brought back.', agree: 'Remove' })) return;
    try {
      await request('DELETE', path + review.id);
      list.remove(review.id);
      swap(place, writing());
    } catch (problem) {
      toast({ title: 'Not removed', body: problem.message, tone: 'bad' });
    }
  };

  const write = intent();
  const writing = () => {
    if (!account()) {
      const back = new URLSearchParams({ back: location.pathname });
      return h('p', { class: 'muted' }, h('a', { href: `/signin?${back}` }, 'Sign in'), ' to write a review.');
    }
    const rating = field({ name: 'rating', label: 'Stars', options: [['5', '★★★★★ Excellent'], ['4', '★★★★ Good'], ['3', '★★★ Fair'], ['2', '★★ Poor'], ['1', '★ Bad']], test: 'review-rating' });
    const text = field({ name: 'text', label: 'Your review', rows: 4, maxlength: 5000, test: 'review-text' });
    return form({
      items: [rating, text],
      button: 'Publish',
      test: 'review-form',
      buttonTest: 'review-send',
      submit: async (values) => {
        list.put(await write('POST', path, { rating: Number(values.rating), text: values.text }));
        swap(place, h('p', { class: 'good', role: 'status', test: 'review-done' }, 'Thank you. Your review is published.'));
      },
    }).element;
  };

  const again = () => list.reload({ quiet: true });
  listen(`comments:${productId}`, { event: again, stale: again }, signal);
  const place = h('div', {}, writing());
  list.reload();
  return h('section', { class: 'review-section', id: 'reviews', 'aria-label': 'Reviews' }, h('h2', {}, 'Reviews'), h('div', { class: 'review-columns' }, list.element, place));
}
