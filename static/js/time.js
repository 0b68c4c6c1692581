// Formats RFC 3339 timestamps as `<time>` elements in the reader's language and time zone.
// Does not contain: time arithmetic that decides anything; the server's clock decides.

import { h } from './dom.js';

const FULL = new Intl.DateTimeFormat(undefined, { dateStyle: 'medium', timeStyle: 'short' });
const DAY = new Intl.DateTimeFormat(undefined, { dateStyle: 'medium' });
const RELATIVE = new Intl.RelativeTimeFormat(undefined, { numeric: 'auto' });
const STEPS = [['minute', 60], ['hour', 3600], ['day', 86400]];

export function dateTime(text) {
  return h('time', { datetime: text }, FULL.format(new Date(text)));
}

export function day(text) {
  return h('time', { datetime: text, title: FULL.format(new Date(text)) }, DAY.format(new Date(text)));
}

/** '5 minutes ago' up to a week, then the date. */
export function ago(text) {
  const at = new Date(text);
  const seconds = (at - Date.now()) / 1000;
  if (Math.abs(seconds) > 7 * 86400) return day(text);
  const [unit, size] = STEPS.findLast(([, length]) => Math.abs(seconds) >= length) ?? ['second', 1];
  const shown = unit === 'second' ? RELATIVE.format(0, 'second') : RELATIVE.format(Math.round(seconds / size), unit);
  return h('time', { datetime: text, title: FULL.format(at) }, shown);
}
