// A list that grows page by page with a cursor: placeholders while it loads, an empty state, problems with a way to try
// again, a "more" button, and items that can be put in or replaced while it is shown.
// Must never enter: what an item is, where it comes from.

import { h } from './dom.js';
import { loadingNote, problemBox } from './parts.js';

/**
 * `load(cursor, signal)` → { items, next }; `draw(item)` → element (an item has an `id`); `container`: the element that holds the
 * items; `empty()` → element; `ghost()` → the placeholders; `signal`: the view's.
 */
export function pagedList({ load, draw, container, empty, ghost, more = 'Show more', signal }) {
  const foot = h('div', { class: 'list-foot' });
  const element = h('div', { class: 'list' }, container, foot);
  const drawn = new Map();
  let next = null;
  let round = 0;

  const drawFoot = (...content) => foot.replaceChildren(...content);

  const drawEnd = () => {
    if (drawn.size === 0) drawFoot(empty());
    else if (next) drawFoot(h('button', { class: 'button', type: 'button', test: 'more', on: { click: () => read(next) } }, more));
    else drawFoot();
  };

  const add = (item) => {
    const node = draw(item);
    const old = drawn.get(item.id);
    drawn.set(item.id, { item, node });
    if (old) old.node.replaceWith(node);
    else container.append(node);
  };

  /** Puts in a page that is known already. */
  const show = (page, { keep = false } = {}) => {
    if (!keep) {
      drawn.clear();
      container.replaceChildren();
    }
    page.items.forEach(add);
    next = page.next;
    container.removeAttribute('aria-busy');
    drawEnd();
  };

  const read = async (cursor, { quiet = false } = {}) => {
    round += 1;
    const mine = round;
    if (!quiet) {
      container.setAttribute('aria-busy', 'true');
      if (!cursor) {
        drawn.clear();
        container.replaceChildren(...ghost());
      }
      drawFoot(loadingNote());
    }
    try {
      const page = await load(cursor, signal);
      if (mine !== round) return;
      const before = drawn.size;
      show(page, { keep: Boolean(cursor) });
      if (cursor) [...drawn.values()][before]?.node.querySelector('a, button')?.focus({ preventScroll: true });
    } catch (problem) {
      if (signal?.aborted || mine !== round) return;
      container.removeAttribute('aria-busy');
      if (!cursor) container.replaceChildren();
      drawFoot(problemBox(problem, { retry: () => read(cursor) }));
    }
  };

  return {
    element,
    show,
    /** Reads from the first page; `quiet` leaves what is shown until the answer is there. */
    reload: (options) => read(null, options),
    /** The item as it is shown, or undefined. */
    get: (id) => drawn.get(id)?.item,
    /** Replaces an item, or puts a new one on top. */
    put(item) {
      if (drawn.has(item.id)) {
        add(item);
        return;
      }
      const node = draw(item);
      drawn.set(item.id, { item, node });
      container.prepend(node);
      drawEnd();
    },
    remove(id) {
      drawn.get(id)?.node.remove();
      drawn.delete(id);
      drawEnd();
    },
  };
}
