// One order as staff sees it: lines, buyer, refund and cancellation.
// Does not contain: payment on behalf of a customer.

import { addressBlock } from '../address_fields.js';
import { get, idempotentRequest } from '../api.js';
import { confirmDialog } from '../dialog.js';
import { h, replaceContent } from '../dom.js';
import { field, form } from '../forms.js';
import { addedSums, includedSums } from '../invoice_sums.js';
import { listen } from '../live.js';
import { fromDecimal, money, toDecimal } from '../money.js';
import { loadingNote, skeletons, errorBox, statusBadge, withBusyState } from '../components.js';
import { dateTime } from '../time.js';
import { toast } from '../toasts.js';
import { invoiceOf } from './orders.js';

const DISPUTES = {
  open: 'The buyer disputes this payment. Respond in your payment provider\'s dashboard.',
  won: 'The buyer disputed this payment; the bank decided for you.',
  lost: 'The buyer disputed this payment, and the bank has sent the money back.',
};

const refundable = (invoice) => invoice.total - invoice.refunded - invoice.refunding;

export function orderView({ params, signal, setTitle }) {
  const content = h('div', {}, h('h1', { class: 'visually-hidden' }, 'Order'), loadingNote(), skeletons(3, 'skeleton-row'));
  const act = idempotentRequest();

  const load = async () => {
    try {
      const invoice = await get(`/invoices/${params.id}`, {}, signal);
      const buyer = await get(`/user/${invoice.user_id}`, {}, signal).catch(() => null); // erased, or users are down: the order is shown without
      render(invoice, buyer);
    } catch (problem) {
      if (!signal.aborted) replaceContent(content, h('h1', {}, 'The order could not be loaded'), errorBox(problem, { retry: load }));
    }
  };

  const refundForm = (invoice) => {
    const left = refundable(invoice);
    const all = toDecimal(left, invoice.currency);
    const amountField = field({ name: 'amount', label: `Amount, at most ${money(left, invoice.currency)}`, value: all, inputmode: 'decimal', required: true, test: 'refund-amount' });
    const restockField = field({ name: 'restock', label: 'Restock items', type: 'checkbox', hint: 'Available with a full refund only.', test: 'refund-restock' });
    amountField.input.addEventListener('input', () => {
      const isPart = fromDecimal(amountField.value, invoice.currency) !== left;
      restockField.input.disabled = isPart;
      if (isPart) restockField.input.checked = false;
    });
    return h('section', { class: 'sheet padded', 'aria-label': 'Refund' }, h('h2', {}, 'Refund'), form({
      items: [amountField, restockField],
      button: 'Refund',
      buttonClass: 'button danger',
      test: 'refund-form',
      buttonTest: 'order-refund',
      submit: async ({ amount: text, restock }) => {
        const amount = fromDecimal(text, invoice.currency);
        if (amount === null) throw Object.assign(new Error('The amount cannot be read.'), { errors: [{ field: 'amount', message: `Enter an amount such as ${all}.` }] });
        if (!await confirmDialog({ title: `Refund ${money(amount, invoice.currency)}?`, text: 'The money is returned to the buyer.', confirmLabel: 'Refund' })) return;
        await act('POST', `/invoices/${invoice.id}/refund`, amount === left ? { restock } : { amount, restock });
        await load();
      },
    }).element);
  };

  const voidButton = (invoice) => {
    const button = h('button', { class: 'button danger', type: 'button', test: 'order-void' }, 'Cancel order');
    button.addEventListener('click', () => withBusyState(button, async () => {
      if (!await confirmDialog({ title: 'Cancel this order?', text: 'It can no longer be paid, and its items are released.', confirmLabel: 'Cancel order' })) return;
      try {
        await act('POST', `/invoices/${invoice.id}/void`);
        await load();
      } catch (problem) {
        toast({ title: 'Order not cancelled', body: problem.message, tone: 'bad' });
      }
    }));
    return button;
  };

  const sumRow = (invoice, name, label) => invoice[name] > 0 && h('tr', {}, h('th', { scope: 'row', colspan: 3 }, label),
    h('td', { class: 'number', test: `admin-order-${name}` }, money(invoice[name], invoice.currency)));

  const sum = ({ label, amount, test }) => h('tr', {}, h('th', { scope: 'row', colspan: 3 }, label), h('td', { class: 'number', test: `admin-${test}` }, amount));

  const addressPart = (address, title, test) => address && h('section', { class: 'order-part', 'aria-label': title }, h('h2', {}, title), addressBlock(address, test),
    address.phone && h('p', {}, address.phone), address.vat_id && h('p', {}, `VAT number ${address.vat_id}`));

  const render = (invoice, buyer) => {
    const title = `Order ${invoice.number}`;
    const address = invoice.email ?? buyer?.email;
    setTitle(title);
    const dates = [['Placed', invoice.created_at], ['Paid', invoice.paid_at], invoice.status === 'open' ? ['Expires', invoice.expires_at] : null];
    replaceContent(content,
      h('nav', { class: 'crumbs', 'aria-label': 'You are here' }, h('a', { href: '/admin/orders' }, 'Orders')),
      h('div', { class: 'page-head' }, h('div', { class: 'title-line' }, h('h1', {}, title), statusBadge(invoice.status, 'admin-order-status')), invoice.status === 'open' && voidButton(invoice)),
      invoice.dispute && h('p', { class: 'banner', test: 'admin-order-dispute' }, DISPUTES[invoice.dispute]),
      h('div', { class: 'columns' },
        h('section', { class: 'sheet', 'aria-label': 'Lines' }, h('div', { class: 'table-scroll' }, h('table', {},
          h('thead', {}, h('tr', {}, h('th', { scope: 'col' }, 'Item'), h('th', { scope: 'col', class: 'number' }, 'Qty'), h('th', { scope: 'col', class: 'number' }, 'Price'), h('th', { scope: 'col', class: 'number' }, 'Total'))),
          h('tbody', {}, invoice.lines.map((line) => h('tr', {},
            h('td', {}, line.product_id ? h('a', { href: `/admin/products/${line.product_id}` }, line.description) : line.description),
            h('td', { class: 'number' }, String(line.quantity)),
            h('td', { class: 'number' }, money(line.unit_price, invoice.currency)),
            h('td', { class: 'number' }, money(line.quantity * line.unit_price, invoice.currency))))),
          h('tfoot', {}, addedSums(invoice).map(sum),
            h('tr', {}, h('th', { scope: 'row', colspan: 3 }, 'Total'), h('td', { class: 'number', test: 'admin-order-total' }, money(invoice.total, invoice.currency))),
            includedSums(invoice).map(sum),
            sumRow(invoice, 'refunded', 'Refunded'), sumRow(invoice, 'refunding', 'Refund awaiting the bank'),
            sumRow(invoice, 'returned_late', 'Paid too late, sent back'))))),
        h('div', { class: 'stack' }, h('section', { class: 'sheet padded', 'aria-label': 'Facts' },
          h('h2', {}, 'Buyer'),
          buyer
            ? h('p', {}, buyer.role === 'guest' ? 'A guest' : buyer.name)
            : h('p', { class: 'muted' }, 'Deleted account'),
          address && h('p', {}, h('a', { class: 'break', href: `/admin/emails/new?${new URLSearchParams({ to: address })}` }, address)),
          h('p', {}, h('a', { class: 'small', href: `/admin/orders?user_id=${invoice.user_id}` }, 'All orders of this buyer')),
          addressPart(invoice.shipping_address, 'Delivery address', 'admin-order-shipping-address'),
          addressPart(invoice.billing_address, 'Billing address', 'admin-order-billing-address'),
          invoice.note && h('section', { class: 'order-part', 'aria-label': 'Message' }, h('h2', {}, 'Message'), h('p', { class: 'break', test: 'admin-order-note' }, invoice.note)),
          h('dl', { class: 'facts' }, dates.filter((entry) => entry?.[1]).map(([name, at]) => h('div', {}, h('dt', {}, name), h('dd', {}, dateTime(at)))))),
        invoice.status === 'paid' && (invoice.total === 0 || refundable(invoice) > 0) && refundForm(invoice))));
  };

  listen('orders', { event: ({ data }) => invoiceOf(data) === params.id && load(), stale: load }, signal);
  load();
  return { title: 'Order', element: content };
}
