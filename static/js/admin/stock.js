// The stock of one product: what is on hand, held and available, its latest changes, and the two ways to change it.

import { idempotentRequest, request } from '../api.js';
import { h, replaceContent } from '../dom.js';
import { field, form } from '../forms.js';
import { errorBox } from '../components.js';
import { ago } from '../time.js';
import { toast } from '../toasts.js';

/** What moved stock, for people. */
const CAUSES = {
  set: 'Counted', changed: 'Changed', held: 'Reserved for an order', released: 'Order not paid', expired: 'Order expired', sold: 'Sold', returned: 'Returned',
};

/** Changes that are shown. */
const CHANGES_SHOWN = 8;

function changeLine({ change, cause, reason, at }) {
  const what = [CAUSES[cause] ?? cause, reason].filter(Boolean).join(': ');
  return h('li', {}, h('span', {}, `${change > 0 ? '+' : '−'}${Math.abs(change)}`), h('span', {}, what), ago(at));
}

/** `{ element, badge, show(available) }`: the editor, the figure beside the name, and what a sale calls. */
export function stockEditor(product, signal) {
  const path = `/product/${product.id}/stock`;
  const badge = h('span', { class: 'badge', test: 'live-stock' });
  const figures = h('div', {});
  let reload = null;

  const showAvailable = (available) => {
    badge.textContent = product.track_stock ? `${available} in stock now` : 'always for sale';
  };
  const load = async () => {
    try {
      const { data } = await request('GET', path, { signal });
      showAvailable(data.available);
      replaceContent(figures,
        h('dl', { class: 'stock-figures', test: 'stock-figures' }, [['On hand', data.on_hand], ['Held', data.held], ['Available', data.available]]
          .map(([label, count]) => h('div', {}, h('dt', {}, label), h('dd', {}, String(count))))),
        h('ul', { class: 'stock-changes', 'aria-label': 'Latest changes' }, data.changes.slice(0, CHANGES_SHOWN).map(changeLine)));
    } catch (problem) {
      if (!signal.aborted) replaceContent(figures, errorBox(problem, { retry: load }));
    }
  };

  const change = idempotentRequest();
  const { element: editor } = form({
    items: [
      field({ name: 'how', label: 'Change', options: [['change', 'Add, or remove with a minus'], ['set', 'Set to what I counted']], test: 'stock-how' }),
      field({ name: 'count', label: 'Items', type: 'number', step: 1, required: true, test: 'stock-count' }),
      field({ name: 'reason', label: 'Reason', maxlength: 200, hint: 'Such as delivery, breakage, stocktaking.', test: 'stock-reason' }),
    ],
    button: 'Change stock', buttonClass: 'button', buttonTest: 'stock-save', test: 'stock-form',
    submit: async ({ how, count, reason }) => {
      const { stock } = await change('POST', path, { [how]: Number(count), reason: reason.trim() || undefined });
      toast({ title: `${stock} in stock now`, tone: 'good' });
      editor.reset();
      await load();
    },
  });
  if (product.track_stock) load();
  else showAvailable(0);
  return {
    badge,
    element: h('section', { class: 'sheet padded stock-box', 'aria-label': 'Stock' }, h('h2', {}, 'Stock'), figures, editor),
    show: (available) => {
      showAvailable(available);
      // Several sales at once are one look.
      clearTimeout(reload);
      if (product.track_stock) reload = setTimeout(load, 500);
    },
  };
}
