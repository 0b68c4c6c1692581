// Checkout: who buys (a guest says where the receipt goes, or becomes an account), what is bought, one button. The order's
// page takes the payment.
// Must never enter: cards and payments.

import { intent } from '../api.js';
import { h } from '../dom.js';
import { field, form } from '../forms.js';
import { money } from '../money.js';
import { emptyState, loadingNote, placeholders, problemBox } from '../parts.js';
import { navigate } from '../router.js';
import { account, currentUser, signUp } from '../session.js';
import { readCart } from './basket.js';

export function checkoutView({ signal }) {
  const content = h('div', {}, loadingNote(), placeholders(3, 'ghost-row'));
  const order = intent();

  const load = async () => {
    try {
      draw(await readCart(signal));
    } catch (problem) {
      if (!signal.aborted) content.replaceChildren(problemBox(problem, { retry: load }));
    }
  };

  const placeOrder = async (body) => {
    const invoice = await order('POST', `/user/${currentUser().id}/cart/checkout`, body);
    navigate(`/orders/${invoice.id}`, { replace: true });
  };

  const orderForm = (items, submit) => form({
    items, submit, button: 'Place the order', buttonClass: 'button primary wide', test: 'checkout-form', buttonTest: 'checkout-button',
    after: h('p', { class: 'small muted' }, 'You pay on the next page.'),
  });

  const buyer = (user) => h('section', { class: 'card-box', 'aria-label': 'Buyer' },
    h('h2', {}, 'Buyer'),
    h('p', {}, h('strong', {}, user.name), h('br'), h('span', { class: 'muted' }, user.email)),
    orderForm([], () => placeOrder({})).element);

  const guest = () => {
    const email = field({ name: 'email', label: 'E-mail', type: 'email', autocomplete: 'email', required: true, test: 'checkout-email' });
    const wish = field({ name: 'wish', label: 'Make an account, to find this order again', type: 'checkbox', test: 'checkout-make-account' });
    const name = field({ name: 'name', label: 'Name', autocomplete: 'name', test: 'checkout-name' });
    const password = field({ name: 'password', label: 'Password', type: 'password', autocomplete: 'new-password', test: 'checkout-password' });
    const more = [name, password];
    const show = () => more.forEach((one) => {
      one.element.hidden = !wish.input.checked;
      one.input.required = wish.input.checked;
    });
    wish.input.addEventListener('change', show);
    show();
    const { element } = orderForm([email, wish, ...more], async (values) => {
      if (!values.wish) {
        await placeOrder({ email: values.email });
        return;
      }
      // Once the account is made, only the order can still fail, and it can be tried again.
      if (!account()) await signUp({ email: values.email, name: values.name, password: values.password });
      await placeOrder({});
    });
    return h('section', { class: 'card-box', 'aria-label': 'Buyer' },
      h('h2', {}, 'Where shall the receipt go?'),
      h('p', { class: 'muted' }, 'Have an account? ', h('a', { href: '/signin?back=/checkout', test: 'checkout-signin' }, 'Sign in'), '.'),
      element);
  };

  const draw = (cart) => {
    if (cart?.invoice_id) {
      navigate(`/orders/${cart.invoice_id}`, { replace: true });
      return;
    }
    if (!cart || cart.items.length === 0) {
      content.replaceChildren(emptyState('There is nothing to check out', 'Put something into the cart first.', h('a', { class: 'button primary', href: '/' }, 'Look around')));
      return;
    }
    content.replaceChildren(h('div', { class: 'with-summary summary-first' },
      account() ? buyer(account()) : guest(),
      h('section', { class: 'summary', 'aria-label': 'Your order' },
        h('h2', {}, 'Your order'),
        h('ul', { class: 'lines' }, cart.items.map((item) => h('li', { class: 'sum-line' }, h('span', {}, `${item.quantity} × ${item.name}`), h('span', {}, money(item.total, item.currency))))),
        h('p', { class: 'sum-line total' }, h('span', {}, 'Total'), h('strong', { test: 'checkout-total' }, money(cart.total, cart.currency))),
        h('p', {}, h('a', { class: 'small', href: '/cart' }, 'Change the cart')))));
  };

  load();
  return { title: 'Checkout', element: h('div', { class: 'narrow' }, h('h1', {}, 'Checkout'), content) };
}
