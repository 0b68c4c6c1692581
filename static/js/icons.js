// The line icons of both pages, as SVG elements. All are decoration: the text or label beside them carries the meaning.
// Does not contain: anything but drawing.

import { svg } from './dom.js';

const PATHS = {
  account: ['M12 12a4 4 0 1 0 0-8 4 4 0 0 0 0 8Z', 'M4.5 20a7.5 7.5 0 0 1 15 0'],
  bell: ['M6 9.5a6 6 0 0 1 12 0c0 5 2 6.5 2 6.5H4s2-1.5 2-6.5Z', 'M10 19.5a2.2 2.2 0 0 0 4 0'],
  box: ['M4 8l8-4 8 4v8l-8 4-8-4V8Z', 'M4 8l8 4 8-4', 'M12 12v8'],
  cart: ['M3.5 4H6l2 11h10l2-8H6.7', 'M9.5 19.5h.01', 'M17 19.5h.01'],
  chart: ['M4 20V4', 'M4 20h16', 'M8 16v-4', 'M12 16V8', 'M16 16v-6'],
  check: ['M5 12.5l4.5 4.5L19 7.5'],
  close: ['M6 6l12 12', 'M18 6 6 18'],
  filter: ['M4 7h16', 'M7 12h10', 'M10 17h4'],
  mail: ['M4 6h16v12H4V6Z', 'M4 7l8 6 8-6'],
  clock: ['M12 20.5a8.5 8.5 0 1 0 0-17 8.5 8.5 0 0 0 0 17Z', 'M12 7.5V12l3 2'],
  people: ['M9 12a3.5 3.5 0 1 0 0-7 3.5 3.5 0 0 0 0 7Z', 'M3 19.5a6 6 0 0 1 12 0', 'M16 5.5a3.5 3.5 0 0 1 0 6.5', 'M17.5 14a6 6 0 0 1 3.5 5.5'],
  receipt: ['M6 3.5h12v17l-3-2-3 2-3-2-3 2v-17Z', 'M9 8.5h6', 'M9 12.5h6'],
  search: ['M10.5 17a6.5 6.5 0 1 0 0-13 6.5 6.5 0 0 0 0 13Z', 'M15.5 15.5 20 20'],
  shop: ['M4 10 5.5 4h13L20 10a2.7 2.7 0 0 1-5.3 0 2.7 2.7 0 0 1-5.4 0A2.7 2.7 0 0 1 4 10Z', 'M6 14v6h12v-6'],
  tag: ['M4 4h8l8 8-8 8-8-8V4Z', 'M8 8h.01'],
};

export function icon(name) {
  return svg(
    'svg',
    { class: 'icon', viewBox: '0 0 24 24', width: 20, height: 20, 'aria-hidden': 'true', focusable: 'false' },
    PATHS[name].map((d) => svg('path', { d })),
  );
}
