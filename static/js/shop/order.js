// One order: its lines, its state live, and the payment with a test card while it is open.
// Must never enter: real card numbers, refunds (the back office does them).

import { get, intent } from '../api.js';
import { h, swap } from '../dom.js';
import { field, form } from '../forms.js';
import { listen } from '../live.js';
import { money } from '../money.js';
import { loadingNote, placeholders, problemBox, statusBadge } from '../parts.js';
import { account, currentUser } from '../session.js';
import { dateTime } from '../time.js';
import { readCart } from './basket.js';
import { signInFirst } from './sign_in.js';

const CARDS = [
  ['tok_ok', 'Good card: pays at once'],
  ['tok_slow', 'Slow card: takes three seconds'],
  ['tok_flaky', 'Flaky card: fails once, then works'],
  ['tok_declined', 'Empty card: is declined'],
];

const POLL = 2000; // while the provider has not answered yet

const SAYINGS = {
  paid: 'Paid. The receipt is on its way to you.',
  expired: 'This order was not paid in time. Nothing was charged, and the stock is free again.',
  void: 'This order was called off. Nothing was charged.',
  refunded: 'The money has gone back to you.',
};

function say(invoice) {
  if (invoice.processing) return 'The payment is under way. This page tells you as soon as it is done.';
  if (invoice.status === 'paid' && invoice.refunded > 0) return `Paid. ${money(invoice.refunded, invoice.currency)} went back to you.`;
  return SAYINGS[invoice.status];
}

function drawLine(line, currency) {
  return h('li', { class: 'sum-line' },
    h('span', {}, `${line.quantity} × `, line.product_id ? h('a', { href: `/p/${line.product_id}` }, line.description) : line.description,
      h('span', { class: 'small muted' }, ` at ${money(line.unit_price, currency)}`)),
    h('span', {}, money(line.quantity * line.unit_price, currency)));
}

export function orderView({ params, signal, setTitle }) {
  if (!currentUser()) return signInFirst('Order');
  const content = h('div', {}, h('h1', { class: 'visually-hidden' }, 'Order'), loadingNote(), placeholders(3, 'ghost-row'));
  const pay = intent();
  let shown = null;
  let pollTimer = 0;
  signal.addEventListener('abort', () => clearTimeout(pollTimer));

  const load = async () => {
    clearTimeout(pollTimer);
    try {
      draw(await get(`/invoices/${params.id}`, {}, signal));
    } catch (problem) {
      if (signal.aborted) return;
      swap(content, h('h1', {}, 'The order could not be shown'), problemBox(problem, { retry: load }));
    }
  };

  const payment = (invoice) => {
    const card = field({ name: 'token', label: 'Test card', options: CARDS, test: 'card-select', hint: 'This is the built-in test provider. No money moves.' });
    return h('section', { class: 'card-box', 'aria-label': 'Payment' },
      h('h2', {}, 'Payment'),
      h('p', { class: 'muted small' }, 'Kept for you until ', dateTime(invoice.expires_at), '.'),
      form({
        items: [card],
        button: `Pay ${money(invoice.total, invoice.currency)}`,
        buttonClass: 'button primary wide',
        test: 'pay-form',
        buttonTest: 'pay-button',
        submit: async ({ token }) => {
          try {
            draw(await pay('POST', `/invoices/${invoice.id}/pay`, { token }));
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
    !account() && h('p', { class: 'muted' }, h('a', { href: '/signup?back=/orders' }, 'Make an account'), ' to find this order again.'));

  const draw = (invoice) => {
    if (invoice.processing) pollTimer = setTimeout(load, POLL);
    // A live event may come while the customer chooses a card: what has not changed stays on the page.
    if (shown?.status === invoice.status && shown.processing === invoice.processing && shown.refunded === invoice.refunded) return;
    shown = invoice;
    const title = `Order ${invoice.number}`;
    setTitle(title);
    swap(content,
      h('div', { class: 'title-line' }, h('h1', {}, title), statusBadge(invoice.status, 'order-status')),
      h('p', { class: 'muted' }, 'Placed ', dateTime(invoice.created_at), invoice.paid_at ? [', paid ', dateTime(invoice.paid_at)] : '', '.'),
      say(invoice) && h('p', { class: `banner ${invoice.status}`, role: 'status', test: 'order-banner' }, say(invoice)),
      h('div', { class: 'with-summary' },
        h('ul', { class: 'lines roomy' }, invoice.lines.map((line) => drawLine(line, invoice.currency)),
          h('li', { class: 'sum-line total' }, h('span', {}, 'Total'), h('strong', { test: 'order-total' }, money(invoice.total, invoice.currency)))),
        invoice.status === 'open' && !invoice.processing ? payment(invoice) : after()));
  };

  listen('user', {
    event: ({ data }) => data?.invoice_id === params.id && load(),
    stale: load,
  }, signal);
  load();
  return { title: 'Order', element: h('div', { class: 'narrow' }, content) };
}
