// Creates elements. The only place that makes nodes from names and properties.
// Does not contain: innerHTML or any other parsing of text as markup, inline styles, event handlers as strings,
// knowledge of the shop.

const SVG = 'http://www.w3.org/2000/svg';
const AS_PROPERTY = new Set(['value', 'checked', 'disabled', 'hidden', 'multiple']);

function flattenChildren(children) {
  return children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false);
}

function applyProps(node, props, children) {
  for (const [name, value] of Object.entries(props ?? {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name === 'on') for (const [event, handler] of Object.entries(value)) node.addEventListener(event, handler);
    else if (name === 'test') node.setAttribute('data-test', value);
    else if (AS_PROPERTY.has(name)) node[name] = value;
    else node.setAttribute(name, value === true ? '' : String(value));
  }
  node.append(...flattenChildren(children));
  return node;
}

/** An HTML element: `h('a', { href: '/', class: 'x', test: 'home', on: { click } }, 'text', child)`. */
export function h(tag, props, ...children) {
  const node = document.createElement(tag);
  // An option list needs its options before its value.
  if (tag === 'select' && props?.value !== undefined) {
    const { value, ...rest } = props;
    applyProps(node, rest, children);
    node.value = value;
    return node;
  }
  return applyProps(node, props, children);
}

/** An SVG element, the same way. */
export function svg(tag, props, ...children) {
  return applyProps(document.createElementNS(SVG, tag), props, children);
}

/**
 * Puts these in the place of all that was in the node; like `h`, it leaves out what is absent. Where the page's heading had
 * the focus, the new heading has it.
 */
export function replaceContent(node, ...children) {
  const onHeading = document.activeElement?.tagName === 'H1' && node.contains(document.activeElement);
  node.replaceChildren(...flattenChildren(children));
  const heading = onHeading && node.querySelector('h1');
  if (!heading) return;
  heading.tabIndex = -1;
  heading.focus({ preventScroll: true });
}

let lastId = 0;

/** A document-wide unique id, to tie labels and descriptions to inputs. */
export function uniqueId(prefix) {
  lastId += 1;
  return `${prefix}-${lastId}`;
}

/** Calls `fn` once `ms` after the last call. */
export function debounce(fn, ms) {
  let timer = 0;
  return (...args) => {
    clearTimeout(timer);
    timer = setTimeout(() => fn(...args), ms);
  };
}

/** Calls `fn` at most once in `ms`, and once more at the end if it was asked meanwhile. */
export function throttle(fn, ms) {
  let timer = 0;
  let last = -Infinity;
  return () => {
    clearTimeout(timer);
    const wait = Math.max(0, last + ms - performance.now());
    timer = setTimeout(() => {
      last = performance.now();
      fn();
    }, wait);
  };
}
