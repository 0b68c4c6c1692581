// The checkout page: the buyer (a guest enters an e-mail or creates an account), the items, one button. The order page
// takes the payment.
// Does not contain: cards and payments.

import { idempotentRequest } from '../api.js';
import { h } from '../dom.js';
import { field, form } from '../forms.js';
import { money } from '../money.js';
import { emptyState, loadingNote, skeletons, errorBox } from '../components.js';
import { navigate } from '../router.js';
import { signedInUser, currentUser, signUp } from '../session.js';
import { readCart } from './cart_store.js';
import { deliveryAddress } from './delivery_address.js';

export function checkoutView({ signal }) {
  const content = h('div', {}, loadingNote(), skeletons(3, 'skeleton-row'));
  const order = idempotentRequest();
  const delivery = deliveryAddress({ user: signedInUser(), signal });
  const note = field({ name: 'note', label: 'Message to the shop (optional)', rows: 2, maxlength: 2000, test: 'checkout-note' });

  const load = async () => {
    try {
      render(await readCart(signal));
    } catch (problem) {
      if (!signal.aborted) content.replaceChildren(errorBox(problem, { retry: load }));
    }
  };

  const placeOrder = async (body) => {
    const invoice = await order('POST', `/user/${currentUser().id}/cart/checkout`, { ...body, shipping_address: delivery.read(), note: note.value.trim() || undefined });
    navigate(`/orders/${invoice.id}`, { replace: true });
  };

  const orderForm = (items, submit) => form({
    items: [...items, delivery, note], submit, button: 'Place the order', buttonClass: 'button primary wide', test: 'checkout-form', buttonTest: 'checkout-button',
    after: h('p', { class: 'small muted' }, 'Payment is on the next step.'),
  });

  const buyer = (user) => h('section', { class: 'card-box', 'aria-label': 'Buyer' },
    h('h2', {}, 'Buyer'),
    h('p', {}, h('strong', {}, user.name), h('br'), h('span', { class: 'muted' }, user.email)),
    orderForm([], () => placeOrder({})).element);

  const guest = () => {
    const email = field({ name: 'email', label: 'E-mail', type: 'email', autocomplete: 'email', required: true, test: 'checkout-email' });
    const createAccount = field({ name: 'create_account', label: 'Create an account to track this order', type: 'checkbox', test: 'checkout-make-account' });
    const name = field({ name: 'name', label: 'Name', autocomplete: 'name', test: 'checkout-name' });
    const password = field({ name: 'password', label: 'Password', type: 'password', autocomplete: 'new-password', test: 'checkout-password' });
    const more = [name, password];
    const show = () => more.forEach((one) => {
      one.element.hidden = !createAccount.input.checked;
      one.input.required = createAccount.input.checked;
    });
    createAccount.input.addEventListener('change', show);
    show();
    const { element } = orderForm([email, createAccount, ...more], async (values) => {
      if (!values.create_account) {
        await placeOrder({ email: values.email });
        return;
      }
      // Once the account is made, only the order can still fail, and it can be tried again.
      if (!signedInUser()) await signUp({ email: values.email, name: values.name, password: values.password });
      await placeOrder({});
    });
    return h('section', { class: 'card-box', 'aria-label': 'Buyer' },
      h('h2', {}, 'Contact'),
      h('p', { class: 'muted' }, 'Have an account? ', h('a', { href: '/signin?back=/checkout', test: 'checkout-signin' }, 'Sign in'), '.'),
      element);
  };

  const render = (cart) => {
    if (cart?.invoice_id) {
      navigate(`/orders/${cart.invoice_id}`, { replace: true });
      return;
    }
    if (!cart || cart.items.length === 0) {
      content.replaceChildren(emptyState('Your cart is empty', 'Add an item before you check out.', h('a', { class: 'button primary', href: '/' }, 'Continue shopping')));
      return;
    }
    content.replaceChildren(h('div', { class: 'with-summary summary-first' },
      signedInUser() ? buyer(signedInUser()) : guest(),
      h('section', { class: 'summary', 'aria-label': 'Your order' },
        h('h2', {}, 'Your order'),
        h('ul', { class: 'lines' }, cart.items.map((item) => h('li', { class: 'sum-line' }, h('span', {}, `${item.quantity} × ${item.name}`), h('span', {}, money(item.total, item.currency))))),
        h('p', { class: 'sum-line total' }, h('span', {}, 'Total'), h('strong', { test: 'checkout-total' }, money(cart.total, cart.currency))),
        h('p', {}, h('a', { class: 'small', href: '/cart' }, 'Edit cart')))));
  };

  load();
  return { title: 'Checkout', element: h('div', { class: 'narrow' }, h('h1', {}, 'Checkout'), content) };
}
