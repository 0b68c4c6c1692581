// The dashboard: totals, charts and best sellers of a period, kept live by the topic `stats`.
// Does not contain: computed totals (the server's are shown).

import { get } from '../api.js';
import { h, replaceContent, throttle } from '../dom.js';
import { listen } from '../live.js';
import { money, moneyShort } from '../money.js';
import { emptyState, errorBox } from '../components.js';
import { replaceUrl } from '../router.js';
import { chart } from './chart.js';

const HOUR = 3600_000;
const DAY = 24 * HOUR;
const SPANS = {
  day: { words: '24 hours', length: DAY, bucket: 'hour' },
  week: { words: '7 days', length: 7 * DAY, bucket: 'day' },
  month: { words: '30 days', length: 30 * DAY, bucket: 'day' },
  year: { words: '12 months', length: 365 * DAY, bucket: 'month' },
};
const LABELS = {
  hour: [{ dateStyle: 'medium', timeStyle: 'short' }, { hour: '2-digit', minute: '2-digit' }],
  // The server's days and months are those of UTC.
  day: [{ dateStyle: 'medium', timeZone: 'UTC' }, { day: 'numeric', month: 'short', timeZone: 'UTC' }],
  month: [{ month: 'long', year: 'numeric', timeZone: 'UTC' }, { month: 'short', timeZone: 'UTC' }],
};
const COUNT = new Intl.NumberFormat();
const PERCENT = new Intl.NumberFormat(undefined, { style: 'percent', maximumFractionDigits: 1 });

function tile(title, test) {
  const value = h('p', { class: 'figure', test }, '–');
  const note = h('p', { class: 'small muted' }, '\u00a0');
  return { value, note, element: h('div', { class: 'tile sheet' }, h('h2', {}, title), value, note) };
}

function bestSellers(products, currency) {
  if (products.length === 0) return emptyState('Nothing sold yet', 'Best sellers of this period will appear here.');
  const most = products[0].revenue;
  return h('ol', { class: 'best' }, products.map((product) => h('li', {},
    h('p', { class: 'best-line' }, h('span', {}, h('a', { href: `/admin/products/${product.product_id}` }, product.name), h('span', { class: 'small muted' }, ` ${COUNT.format(product.quantity)} sold`)), h('strong', {}, money(product.revenue, currency))),
    h('meter', { min: 0, max: Math.max(1, most), value: product.revenue, 'aria-label': `${product.name}, share of the best` }))));
}

export function dashboardView({ query, signal }) {
  let span = SPANS[query.get('span')] ? query.get('span') : 'month';
  let currency = 'EUR';
  const revenue = tile('Revenue', 'stat-revenue');
  const orders = tile('Orders', 'stat-orders');
  const signUps = tile('Sign-ups', 'stat-sign-ups');
  const conversion = tile('Conversion', 'stat-conversion');
  const charts = {
    revenue: chart({ title: 'Revenue', kind: 'area', show: (value) => money(value, currency), showShort: (value) => moneyShort(value, currency), test: 'plot-revenue' }),
    orders: chart({ title: 'Orders', kind: 'bars', show: COUNT.format, showShort: COUNT.format, test: 'plot-orders' }),
    sign_ups: chart({ title: 'Sign-ups', kind: 'bars', show: COUNT.format, showShort: COUNT.format, test: 'plot-sign-ups' }),
  };
  const best = h('div', { test: 'top-products' });
  const errorArea = h('div', { class: 'form-trouble' });

  const load = async () => {
    const { length, bucket } = SPANS[span];
    const to = new Date();
    try {
      render(await get('/stats/summary', { from: new Date(to - length).toISOString(), to: to.toISOString(), bucket }, signal));
      errorArea.replaceChildren();
    } catch (problem) {
      if (!signal.aborted) errorArea.replaceChildren(errorBox(problem, { retry: load }));
    }
  };

  const render = (summary) => {
    currency = summary.currency;
    const { totals } = summary;
    revenue.value.textContent = money(totals.revenue, currency);
    revenue.note.textContent = totals.orders > 0 ? `${money(Math.round(totals.revenue / totals.orders), currency)} average order value` : '\u00a0';
    orders.value.textContent = COUNT.format(totals.orders);
    signUps.value.textContent = COUNT.format(totals.sign_ups);
    conversion.value.textContent = totals.conversion === null ? '–' : PERCENT.format(totals.conversion);
    conversion.note.textContent = `${COUNT.format(totals.carts)} carts`;
    const [long, short] = LABELS[summary.bucket].map((style) => new Intl.DateTimeFormat(undefined, style));
    for (const [name, one] of Object.entries(charts)) {
      one.update(summary.buckets.map((bucket) => {
        const at = new Date(bucket.start);
        return { label: long.format(at), short: short.format(at), value: bucket[name] };
      }));
    }
    replaceContent(best, bestSellers(summary.top_products, currency));
  };

  const choose = (event) => {
    span = event.target.value;
    replaceUrl(`/admin?span=${span}`);
    load();
  };
  const spans = h('fieldset', { class: 'segments' }, h('legend', { class: 'visually-hidden' }, 'Period'),
    Object.entries(SPANS).map(([value, { words }]) => h('label', {},
      h('input', { type: 'radio', name: 'span', value, checked: value === span, class: 'visually-hidden', test: `span-${value}`, on: { change: choose } }), h('span', {}, words))));

  // The event may arrive before the statistics have counted it, so they are read once more when it is quiet.
  let later;
  const loadTwice = () => {
    clearTimeout(later);
    later = setTimeout(load, 5000);
    return load();
  };
  signal.addEventListener('abort', () => clearTimeout(later));
  const again = throttle(loadTwice, 1000);
  listen('stats', { event: again, stale: again }, signal);
  load();

  return {
    title: 'Dashboard',
    element: h('div', {},
      h('div', { class: 'page-head' }, h('h1', {}, 'Dashboard'), spans),
      errorArea,
      h('div', { class: 'tiles' }, revenue.element, orders.element, signUps.element, conversion.element),
      h('div', { class: 'plots' },
        h('div', { class: 'plot-wide' }, charts.revenue.element),
        h('section', { class: 'sheet best-box', 'aria-label': 'Best sellers' }, h('h2', {}, 'Best sellers'), best),
        charts.orders.element, charts.sign_ups.element)),
  };
}
