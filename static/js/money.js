// Formats and parses money: minor units and a currency to text and back.
// Does not contain: totals, taxes, discounts. The server computes them.

import { DIGITS } from './currencies.js';

const formats = new Map();

function format(currency) {
  if (!formats.has(currency)) {
    const places = digits(currency);
    formats.set(currency, new Intl.NumberFormat(undefined, {
      style: 'currency', currency, minimumFractionDigits: places, maximumFractionDigits: places,
    }));
  }
  return formats.get(currency);
}

/** How many digits the currency has after the point: as the server counts, not as the browser writes prices. */
export function digits(currency) {
  return DIGITS[currency] ?? 2;
}

/** 1250, 'EUR' → '€12.50' */
export function money(minor, currency) {
  return format(currency).format(minor / 10 ** digits(currency));
}

/** The same, short, for the axis of a plot: 1250000, 'EUR' → '€12.5K' */
export function moneyShort(minor, currency) {
  return new Intl.NumberFormat(undefined, {
    style: 'currency', currency, notation: 'compact', minimumFractionDigits: 0, maximumFractionDigits: 1,
  }).format(minor / 10 ** digits(currency));
}

/** 1250, 'EUR' → '12.50': for an input. */
export function toDecimal(minor, currency) {
  return (minor / 10 ** digits(currency)).toFixed(digits(currency));
}

/** '12.5', 'EUR' → 1250; null when it is no amount of that currency. */
export function fromDecimal(text, currency) {
  const parts = /^(\d{1,12})(?:[.,](\d+))?$/.exec(text.trim());
  const places = digits(currency);
  if (!parts || (parts[2] ?? '').length > places) return null;
  return Number(parts[1] + (parts[2] ?? '').padEnd(places, '0'));
}
