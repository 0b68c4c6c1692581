// The cart: what is in it at today's prices, changes of quantity, the sum.
// Must never enter: paying, sums of our own.

import { h } from '../dom.js';
import { money } from '../money.js';
import { emptyState, loadingNote, picture, placeholders, problemBox, stepper } from '../parts.js';
import { toast } from '../toasts.js';
import { cancelCheckout, readCart, removeItem, setQuantity } from './basket.js';

const CHANGES = {
  price: (item) => `The price changed, it was ${money(item.added_unit_price, item.currency)}.`,
  stock: () => 'Fewer are left than are in your cart.',
  unavailable: () => 'No longer for sale.',
};

export function cartView({ signal }) {
  const content = h('div', {}, loadingNote(), placeholders(3, 'ghost-row'));

  const load = async () => {
    try {
      draw(await readCart(signal));
    } catch (problem) {
      if (!signal.aborted) content.replaceChildren(problemBox(problem, { retry: load }));
    }
  };

  /** Makes a change and shows what the server made of it. */
  const change = async (work) => {
    content.setAttribute('aria-busy', 'true');
    try {
      await work();
    } catch (problem) {
      toast({ title: 'The cart was not changed', body: problem.message, tone: 'bad' });
    }
    const focus = document.activeElement?.closest('[data-id]')?.dataset.id;
    const label = document.activeElement?.getAttribute('aria-label');
    await load();
    content.removeAttribute('aria-busy');
    if (focus && label) content.querySelector(`[data-id="${CSS.escape(focus)}"] [aria-label="${CSS.escape(label)}"]`)?.focus();
  };

  const drawItem = (item, frozen) => {
    const amount = stepper({
      value: item.quantity, label: `Quantity of ${item.name}`, test: 'cart-quantity',
      onChange: (quantity) => quantity !== item.quantity && change(() => setQuantity(item, quantity)),
    });
    return h('li', { class: 'cart-item', test: 'cart-item', 'data-id': item.id },
      h('a', { href: `/p/${item.product_id}`, class: 'cart-picture', tabindex: -1, 'aria-hidden': 'true' }, picture(item.image && { url: item.image, sizes: [] }, item.name)),
      h('div', { class: 'cart-words' },
        h('a', { href: `/p/${item.product_id}` }, item.name),
        h('p', { class: 'small muted' }, `${money(item.unit_price, item.currency)} each`),
        item.changed && h('p', { class: item.changed === 'price' ? 'mark-changed' : 'mark-changed bad', test: 'cart-changed', 'data-change': item.changed }, CHANGES[item.changed](item))),
      frozen ? h('p', { class: 'cart-amount' }, `${item.quantity} ×`) : amount.element,
      h('p', { class: 'cart-sum' }, money(item.total, item.currency)),
      !frozen && h('button', { class: 'link', type: 'button', 'aria-label': `Remove ${item.name}`, test: 'cart-remove', on: { click: () => change(() => removeItem(item)) } }, 'Remove'));
  };

  /** A placed order holds the cart still until it is paid or given up. */
  const waiting = (cart) => [
    h('a', { class: 'button primary wide', href: `/orders/${cart.invoice_id}`, test: 'go-to-payment' }, 'Pay the order'),
    h('button', { class: 'button wide', type: 'button', test: 'cancel-checkout', on: { click: () => change(cancelCheckout) } }, 'Change the cart'),
    h('p', { class: 'small muted' }, 'This order waits to be paid. To change the cart, the order is called off first.'),
  ];

  const draw = (cart) => {
    if (!cart || cart.items.length === 0) {
      content.replaceChildren(emptyState('Your cart is empty', 'What you add waits here for you.', h('a', { class: 'button primary', href: '/' }, 'Look around')));
      return;
    }
    const frozen = cart.invoice_id !== null;
    content.replaceChildren(h('div', { class: 'with-summary' },
      h('ul', { class: 'cart-items' }, cart.items.map((item) => drawItem(item, frozen))),
      h('section', { class: 'summary', 'aria-label': 'Sum' },
        h('p', { class: 'sum-line' }, h('span', {}, `${cart.count} ${cart.count === 1 ? 'item' : 'items'}`), h('strong', { test: 'cart-total' }, money(cart.total, cart.currency))),
        frozen ? waiting(cart) : [
          h('a', { class: 'button primary wide', href: '/checkout', test: 'go-to-checkout' }, 'Checkout'),
          h('p', { class: 'small muted' }, 'Stock is kept for you once you place the order.'),
        ])));
  };

  load();
  return { title: 'Cart', element: h('div', { class: 'narrow' }, h('h1', {}, 'Cart'), content) };
}
