// The cart page: items at today's prices, quantities, total.
// Does not contain: payment, computed totals.

import { h } from '../dom.js';
import { money } from '../money.js';
import { emptyState, loadingNote, productImage, skeletons, errorBox, quantityInput } from '../components.js';
import { toast } from '../toasts.js';
import { cancelCheckout, readCart, removeItem, setQuantity } from './cart_store.js';

const CHANGES = {
  price: (item) => `The price changed, it was ${money(item.added_unit_price, item.currency)}.`,
  stock: () => 'Fewer are in stock than in your cart.',
  unavailable: () => 'No longer available.',
};

export function cartView({ signal }) {
  const content = h('div', {}, loadingNote(), skeletons(3, 'skeleton-row'));

  const load = async () => {
    try {
      render(await readCart(signal));
    } catch (problem) {
      if (!signal.aborted) content.replaceChildren(errorBox(problem, { retry: load }));
    }
  };

  /** Makes a change and shows the resulting cart. */
  const change = async (work) => {
    content.setAttribute('aria-busy', 'true');
    try {
      await work();
    } catch (problem) {
      toast({ title: 'Your cart was not changed', body: problem.message, tone: 'bad' });
    }
    const focus = document.activeElement?.closest('[data-id]')?.dataset.id;
    const label = document.activeElement?.getAttribute('aria-label');
    await load();
    content.removeAttribute('aria-busy');
    if (!focus || !label) return;
    // What was removed has no button any more: the next one has the focus, or the page.
    const next = content.querySelector(`[data-id="${CSS.escape(focus)}"] [aria-label="${CSS.escape(label)}"]`)
      ?? content.querySelector('[data-test="cart-remove"]') ?? document.getElementById('main');
    next.focus();
  };

  const renderItem = (item, frozen) => {
    const amount = quantityInput({
      value: item.quantity, label: `Quantity of ${item.name}`, test: 'cart-quantity',
      onChange: (quantity) => quantity !== item.quantity && change(() => setQuantity(item, quantity)),
    });
    return h('li', { class: 'cart-item', test: 'cart-item', 'data-id': item.id },
      h('a', { href: `/p/${item.product_id}`, class: 'cart-picture', tabindex: -1, 'aria-hidden': 'true' }, productImage(item.image && { url: item.image, sizes: [] }, item.name)),
      h('div', { class: 'cart-words' },
        h('a', { href: `/p/${item.product_id}` }, item.name),
        h('p', { class: 'small muted' }, `${money(item.unit_price, item.currency)} each`),
        item.changed && h('p', { class: item.changed === 'price' ? 'mark-changed' : 'mark-changed bad', test: 'cart-changed', 'data-change': item.changed }, CHANGES[item.changed](item))),
      frozen ? h('p', { class: 'cart-amount' }, `${item.quantity} ×`) : amount.element,
      h('p', { class: 'cart-sum' }, money(item.total, item.currency)),
      !frozen && h('button', { class: 'link', type: 'button', 'aria-label': `Remove ${item.name}`, test: 'cart-remove', on: { click: () => change(() => removeItem(item)) } }, 'Remove'));
  };

  /** Actions while a placed order freezes the cart until it is paid or cancelled. */
  const waiting = (cart) => [
    h('a', { class: 'button primary wide', href: `/orders/${cart.invoice_id}`, test: 'go-to-payment' }, 'Continue to payment'),
    h('button', { class: 'button wide', type: 'button', test: 'cancel-checkout', on: { click: () => change(cancelCheckout) } }, 'Edit cart'),
    h('p', { class: 'small muted' }, 'This order is awaiting payment. Editing the cart cancels the order.'),
  ];

  const render = (cart) => {
    if (!cart || cart.items.length === 0) {
      content.replaceChildren(emptyState('Your cart is empty', 'Items you add will appear here.', h('a', { class: 'button primary', href: '/' }, 'Continue shopping')));
      return;
    }
    const frozen = cart.invoice_id !== null;
    content.replaceChildren(h('div', { class: 'with-summary' },
      h('ul', { class: 'cart-items' }, cart.items.map((item) => renderItem(item, frozen))),
      h('section', { class: 'summary', 'aria-label': 'Total' },
        h('p', { class: 'sum-line' }, h('span', {}, `${cart.count} ${cart.count === 1 ? 'item' : 'items'}`), h('strong', { test: 'cart-total' }, money(cart.total, cart.currency))),
        frozen ? waiting(cart) : [
          h('a', { class: 'button primary wide', href: '/checkout', test: 'go-to-checkout' }, 'Checkout'),
          h('p', { class: 'small muted' }, 'Items are reserved for you when you place the order.'),
        ])));
  };

  load();
  return { title: 'Cart', element: h('div', { class: 'narrow' }, h('h1', {}, 'Cart'), content) };
}
