// What stands between the lines of an invoice and its total: delivery and tax.
// Does not contain: computed amounts (the server's are shown), elements.

import { money } from './money.js';

function taxLabel({ name, rate }) {
  return `${name} ${rate} %`;
}

/** Rows before the total: `{ label, amount, test }`. */
export function addedSums(invoice) {
  const { shipping, taxes, currency } = invoice;
  const goods = invoice.lines.reduce((sum, line) => sum + line.quantity * line.unit_price, 0);
  const added = invoice.tax_included ? [] : taxes;
  if (!shipping && added.length === 0) return [];
  return [
    { label: 'Subtotal', amount: money(goods, currency), test: 'order-subtotal' },
    ...(shipping ? [{ label: shipping.method, amount: money(shipping.price, currency), test: 'order-shipping' }] : []),
    ...added.map((tax) => ({ label: taxLabel(tax), amount: money(tax.amount, currency), test: 'order-tax' })),
  ];
}

/** Rows after the total: the taxes that it includes. */
export function includedSums(invoice) {
  if (!invoice.tax_included) return [];
  return invoice.taxes.map((tax) => ({ label: `including ${taxLabel(tax)}`, amount: money(tax.amount, invoice.currency), test: 'order-tax' }));
}
