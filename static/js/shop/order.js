// The order page: lines, live status, and the payment with a test card while it is open.
// Does not contain: real card numbers, refunds (the back office makes them).

import { addressBlock } from '../address_fields.js';
import { get, idempotentRequest } from '../api.js';
import { h, replaceContent } from '../dom.js';
import { field, form } from '../forms.js';
import { addedSums, includedSums } from '../invoice_sums.js';
import { listen } from '../live.js';
import { money } from '../money.js';
import { loadingNote, skeletons, errorBox, statusBadge } from '../components.js';
import { signedInUser, currentUser } from '../session.js';
import { TAKES_TEST_CARDS } from '../shop_info.js';
import { dateTime } from '../time.js';
import { readCart } from './cart_store.js';
import { signInRequired } from './sign_in.js';

const CARDS = [
  ['tok_ok', 'Card that is accepted'],
  ['tok_slow', 'Card that takes three seconds'],
  ['tok_flaky', 'Card that fails once, then works'],
  ['tok_declined', 'Card that is declined'],
];

const POLL = 2000; // while the provider has not answered yet

const SAYINGS = {
  paid: 'Paid. We have sent you a receipt by e-mail.',
  expired: 'This order was not paid in time and has expired. You have not been charged.',
  void: 'This order was cancelled. You have not been charged.',
  refunded: 'This order was refunded.',
};

function say(invoice) {
  if (invoice.processing) return 'Processing your payment… This page updates as soon as it is done.';
  if (invoice.returned_late > 0) return `Your payment came when this order could no longer be paid. ${money(invoice.returned_late, invoice.currency)} has been sent back.`;
  if (invoice.refunding > 0) return `${money(invoice.refunding, invoice.currency)} is on its way back to you. Your bank may take a few days.`;
  if (invoice.status === 'paid' && invoice.refunded > 0) return `Paid. ${money(invoice.refunded, invoice.currency)} has been refunded.`;
  return SAYINGS[invoice.status];
}

function renderLine(line, currency) {
  return h('li', { class: 'sum-line' },
    h('span', {}, `${line.quantity} × `, line.product_id ? h('a', { href: `/p/${line.product_id}` }, line.description) : line.description,
      h('span', { class: 'small muted' }, ` at ${money(line.unit_price, currency)}`)),
    h('span', {}, money(line.quantity * line.unit_price, currency)));
}

function renderSum({ label, amount, test }) {
  return h('li', { class: 'sum-line muted' }, h('span', {}, label), h('span', { test }, amount));
}

function renderAddress(address, title, test) {
  return address && h('section', { class: 'order-part', 'aria-label': title }, h('h2', { class: 'small' }, title), addressBlock(address, test));
}

export function orderView({ params, signal, setTitle }) {
  if (!currentUser()) return signInRequired('Order');
  const content = h('div', {}, h('h1', { class: 'visually-hidden' }, 'Order'), loadingNote(), skeletons(3, 'skeleton-row'));
  const pay = idempotentRequest();
  let shown = null;
  let pollTimer = 0;
  signal.addEventListener('abort', () => clearTimeout(pollTimer));

  const load = async () => {
    clearTimeout(pollTimer);
    try {
      render(await get(`/invoices/${params.id}`, {}, signal));
    } catch (problem) {
      if (signal.aborted) return;
      replaceContent(content, h('h1', {}, 'The order could not be loaded'), errorBox(problem, { retry: load }));
    }
  };

  const payment = (invoice) => {
    const held = h('p', { class: 'muted small' }, 'We’re holding these items for you until ', dateTime(invoice.expires_at), '.');
    if (!TAKES_TEST_CARDS) {
      return h('section', { class: 'card-box', 'aria-label': 'Payment' }, h('h2', {}, 'Payment'), held,
        h('p', { test: 'pay-elsewhere' }, 'Please pay with the form or the link that the shop gives you.'));
    }
    const card = field({ name: 'token', label: 'Test card', options: CARDS, test: 'card-select', hint: 'Test mode: no money is charged.' });
    return h('section', { class: 'card-box', 'aria-label': 'Payment' },
      h('h2', {}, 'Payment'),
      held,
      form({
        items: [card],
        button: `Pay ${money(invoice.total, invoice.currency)}`,
        buttonClass: 'button primary wide',
        test: 'pay-form',
        buttonTest: 'pay-button',
        submit: async ({ token }) => {
          try {
            render(await pay('POST', `/invoices/${invoice.id}/pay`, { token }));
            readCart().catch(() => {}); // only the count in the bar
          } catch (problem) {
            if (problem.status === 409) await load(); // paid elsewhere or expired meanwhile: show how it stands
            throw problem;
          }
        },
      }).element);
  };

  const after = () => h('div', { class: 'lines' },
    h('p', {}, h('a', { class: 'button', href: '/orders' }, 'All orders')),
    !signedInUser() && h('p', { class: 'muted' }, h('a', { href: '/signup?back=/orders' }, 'Create an account'), ' to track this order.'));

  const render = (invoice) => {
    if (invoice.processing) pollTimer = setTimeout(load, POLL);
    // A live event may come while the customer chooses a card: what has not changed stays on the page.
    if (shown?.status === invoice.status && shown.processing === invoice.processing && shown.refunded === invoice.refunded && shown.refunding === invoice.refunding) return;
    shown = invoice;
    const title = `Order ${invoice.number}`;
    setTitle(title);
    replaceContent(content,
      h('div', { class: 'title-line' }, h('h1', {}, title), statusBadge(invoice.status, 'order-status')),
      h('p', { class: 'muted' }, 'Placed ', dateTime(invoice.created_at), invoice.paid_at ? [', paid ', dateTime(invoice.paid_at)] : '', '.'),
      say(invoice) && h('p', { class: `banner ${invoice.status}`, role: 'status', test: 'order-banner' }, say(invoice)),
      h('div', { class: 'with-summary' },
        h('ul', { class: 'lines roomy' }, invoice.lines.map((line) => renderLine(line, invoice.currency)),
          addedSums(invoice).map(renderSum),
          h('li', { class: 'sum-line total' }, h('span', {}, 'Total'), h('strong', { test: 'order-total' }, money(invoice.total, invoice.currency))),
          includedSums(invoice).map(renderSum)),
        invoice.status === 'open' && !invoice.processing ? payment(invoice) : after()),
      h('div', { class: 'address-list' },
        renderAddress(invoice.shipping_address, 'Delivery address', 'order-shipping-address'),
        renderAddress(invoice.billing_address, 'Billing address', 'order-billing-address')),
      invoice.note && h('p', { class: 'muted', test: 'order-note' }, `Your message: ${invoice.note}`));
  };

  listen('user', {
    event: ({ data }) => data?.invoice_id === params.id && load(),
    stale: load,
  }, signal);
  load();
  return { title: 'Order', element: h('div', { class: 'narrow' }, content) };
}
