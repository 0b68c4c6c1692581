// A list that grows page by page with a cursor: skeletons while it loads, an empty state, errors with a retry button, a "more"
// button, and items that can be inserted or replaced while it is shown.
// Does not contain: the look of an item, its source.

import { h } from './dom.js';
import { loadingNote, errorBox } from './components.js';

/**
 * `load(cursor, signal)` → { items, next }; `renderItem(item)` → element (an item has an `id`); `container`: the element that holds the
 * items; `empty()` → element; `skeleton()` → the skeletons; `signal`: the view's.
 */
export function pagedList({ load, renderItem, container, empty, skeleton, more = 'Show more', signal }) {
  const foot = h('div', { class: 'list-foot' });
  const element = h('div', { class: 'list' }, container, foot);
  const rendered = new Map();
  let next = null;
  let round = 0;

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
      const page = await load(cursor, signal);
      if (mine !== round) return;
      const before = rendered.size;
      show(page, { keep: Boolean(cursor) });
      if (cursor) [...rendered.values()][before]?.node.querySelector('a, button')?.focus({ preventScroll: true });
    } catch (problem) {
      if (signal?.aborted || mine !== round) return;
      container.removeAttribute('aria-busy');
      if (!cursor) container.replaceChildren();
      renderFoot(errorBox(problem, { retry: () => read(cursor) }));
    }
  };

  return {
    element,
    show,
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
