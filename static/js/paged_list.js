// A list that grows page by page with a cursor: skeletons while it loads, an empty state, errors with a retry button, a "more"
// button, and items that can be inserted or replaced while it is shown. A list that is left is shown again as it was on the way
// back, to the very place.
// Does not contain: the look of an item, its source.

import { h } from './dom.js';
import { loadingNote, errorBox } from './components.js';

const LEFT_MAX = 10;
const left = new Map(); // address → { items, next, extra } of the lists that were left last

function remember(address, list) {
  left.delete(address);
  left.set(address, list);
  if (left.size > LEFT_MAX) left.delete(left.keys().next().value);
}

/** Forgets the lists that were left: they are another user's. */
export function forgetLists() {
  left.clear();
}

/**
 * `load(cursor, signal)` → { items, next }; `renderItem(item)` → element (an item has an `id`); `container`: the element that holds the
 * items; `empty()` → element; `skeleton()` → the skeletons; `signal`: the view's; `extra()`: what else `begin` gives back.
 */
export function pagedList({ load, renderItem, container, empty, skeleton, more = 'Show more', signal, extra = () => true }) {
  const foot = h('div', { class: 'list-foot' });
  const element = h('div', { class: 'list' }, container, foot);
  const rendered = new Map();
  let next = null;
  let round = 0;
  let address = null; // of what is shown

  signal.addEventListener('abort', () => {
    if (address === null) return;
    const items = new Map([...rendered.values()].map(({ item, node }) => [node, item]));
    remember(address, { items: [...container.children].map((node) => items.get(node)).filter(Boolean), next, extra: extra() });
  }, { once: true });

  const renderFoot = (...content) => foot.replaceChildren(...content);

  const renderEnd = () => {
    if (rendered.size === 0) renderFoot(empty());
    else if (next) renderFoot(h('button', { class: 'button', type: 'button', test: 'more', on: { click: () => read(next) } }, more));
    else renderFoot();
  };

  const add = (item) => {
    const node = renderItem(item);
    const old = rendered.get(item.id);
    rendered.set(item.id, { item, node });
    if (old) old.node.replaceWith(node);
    else container.append(node);
  };

  /** Shows a page that is already loaded. */
  const show = (page, { keep = false } = {}) => {
    if (!keep) {
      rendered.clear();
      container.replaceChildren();
    }
    page.items.forEach(add);
    next = page.next;
    address = location.pathname + location.search;
    container.removeAttribute('aria-busy');
    renderEnd();
  };

  const read = async (cursor, { quiet = false } = {}) => {
    round += 1;
    const mine = round;
    if (!quiet) {
      container.setAttribute('aria-busy', 'true');
      if (!cursor) {
        rendered.clear();
        container.replaceChildren(...skeleton());
      }
      renderFoot(loadingNote());
    }
    try {
      const before = rendered.size;
      const page = await load(cursor, signal);
      // A list that is read again in silence stays as long as it was.
      while (quiet && address === location.pathname + location.search && page.next && page.items.length < before && mine === round) {
        const following = await load(page.next, signal);
        page.items.push(...following.items);
        page.next = following.next;
      }
      if (mine !== round) return;
      show(page, { keep: Boolean(cursor) });
      if (cursor) [...rendered.values()][before]?.node.querySelector('a, button')?.focus({ preventScroll: true });
    } catch (problem) {
      if (signal.aborted || mine !== round) return;
      container.removeAttribute('aria-busy');
      if (!cursor) container.replaceChildren();
      renderFoot(errorBox(problem, { retry: () => read(cursor) }));
    }
  };

  return {
    element,
    /**
     * Shows the list: on the way `back` as it was left, and then returns what `extra` had returned; otherwise from the first
     * page, and returns null.
     */
    begin(back) {
      const before = back ? left.get(location.pathname + location.search) : undefined;
      if (before) show(before);
      else read(null);
      return before?.extra ?? null;
    },
    /** Reads from the first page; `quiet` keeps the shown items until the response arrives. */
    reload: (options) => read(null, options),
    /** The item with this id, or undefined. */
    get: (id) => rendered.get(id)?.item,
    /** Replaces an item, or puts a new one on top. */
    put(item) {
      if (rendered.has(item.id)) {
        add(item);
        return;
      }
      const node = renderItem(item);
      rendered.set(item.id, { item, node });
      container.prepend(node);
      renderEnd();
    },
    remove(id) {
      rendered.get(id)?.node.remove();
      rendered.delete(id);
      renderEnd();
    },
  };
}
