// Maps the address to a view, turns links into navigation without a reload, moves the focus.
// Does not contain: views, requests.
//
// A view is a function (context) → { title, element, update? }. The context: `params` of the path, `query`
// (URLSearchParams), `signal` (aborts when the view is left), `back` (reached by the browser's history), `setTitle`. A view with
// `update(context)` stays when only the query changes. One whose `unsaved()` is true is left by a link only after a question.

import { confirmDialog } from './dialog.js';

let config = null;
let current = null; // { route, view, controller }

function match(path) {
  for (const route of config.routes) {
    const found = route.pattern.exec(path);
    if (found) return { route, params: found.groups ?? {} };
  }
  return null;
}

function setTitle(title) {
  document.title = title ? `${title} · ${config.site}` : config.site;
}

function show({ back = false, first = false } = {}) {
  const path = location.pathname.replace(/(.)\/+$/, '$1');
  const { route, params } = match(path) ?? { route: { view: config.notFoundView }, params: {} };
  const context = { params, query: new URLSearchParams(location.search), back, setTitle };
  if (current?.view.update && current.route === route && current.path === path) {
    current.view.update({ ...context, signal: current.controller.signal });
    config.onNavigate(path);
    return;
  }
  current?.controller.abort();
  const controller = new AbortController();
  const view = route.view({ ...context, signal: controller.signal });
  current = { route, path, view, controller };
  setTitle(view.title);
  config.outlet.replaceChildren(view.element);
  config.onNavigate(path);
  if (first) return;
  if (!back) scrollTo(0, 0);
  const heading = config.outlet.querySelector('h1') ?? config.outlet;
  heading.tabIndex = -1;
  heading.focus({ preventScroll: true });
}

/** Goes to an address of this page. */
export function navigate(to, { replace = false } = {}) {
  history[replace ? 'replaceState' : 'pushState'](null, '', to);
  show();
}

/** Changes the address without showing anything else. */
export function replaceUrl(to) {
  history.replaceState(null, '', to);
  current.path = location.pathname;
}

/** Shows the view of the flattenChildren address again, from the start: after signing in or out. */
export function refresh() {
  current?.controller.abort();
  current = null;
  show();
}

async function mayLeave() {
  return !current?.view.unsaved?.() || confirmDialog({ title: 'Leave without saving?', text: 'Your changes on this page will be lost.', confirmLabel: 'Leave' });
}

async function onClick(event) {
  const link = event.target.closest?.('a[href]');
  const plain = event.button === 0 && !event.metaKey && !event.ctrlKey && !event.shiftKey && !event.altKey;
  if (!link || !plain || event.defaultPrevented || link.target || link.hasAttribute('download')) return;
  const to = new URL(link.href);
  if (to.origin !== location.origin || to.hash || !match(to.pathname.replace(/(.)\/+$/, '$1'))) return;
  event.preventDefault();
  if (await mayLeave()) navigate(to.pathname + to.search);
}

/** `routes`: [{ path: '/p/:id', view }], `notFoundView`: the view for every other path, `onNavigate(path)`: called after each change. */
export function startRouter({ outlet, site, routes, notFoundView, onNavigate }) {
  config = {
    outlet, site, notFoundView, onNavigate,
    routes: routes.map(({ path, view }) => ({ view, pattern: new RegExp(`^${path.replace(/:(\w+)/g, '(?<$1>[^/]+)')}$`) })),
  };
  document.addEventListener('click', onClick);
  addEventListener('popstate', () => show({ back: true }));
  addEventListener('beforeunload', (event) => {
    if (current?.view.unsaved?.()) event.preventDefault();
  });
  show({ first: true });
}
