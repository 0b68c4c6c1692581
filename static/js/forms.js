// Labelled fields and forms that show errors in place: at the field that the server names, otherwise above the button.
// Does not contain: requests (the caller's `submit` makes them), validation rules of the shop (the server has them).

import { h, uniqueId } from './dom.js';
import { errorBox, withBusyState } from './components.js';

/** One labelled input. `options` ([value, text] pairs) makes a select, `rows` a textarea. */
export function field({ name, label, hint, options, rows, test, ...props }) {
  const id = uniqueId(name);
  const error = h('p', { class: 'field-error', id: `${id}-error`, test: `error-${name}` });
  const note = hint && h('p', { class: 'field-hint', id: `${id}-hint` }, hint);
  const all = { id, name, test, 'aria-describedby': hint ? `${id}-hint ${id}-error` : `${id}-error`, ...props };
  let input;
  if (options) input = h('select', all, options.map(([value, text]) => h('option', { value }, text)));
  else if (rows) input = h('textarea', { rows, ...all });
  else input = h('input', { type: 'text', ...all });
  const setError = (message) => {
    error.textContent = message;
    if (message) input.setAttribute('aria-invalid', 'true');
    else input.removeAttribute('aria-invalid');
  };
  input.addEventListener('input', () => setError(''));
  const isCheck = props.type === 'checkbox';
  const caption = h('label', { for: id }, label);
  const element = h('div', { class: isCheck ? 'field check' : 'field' }, isCheck ? [input, caption] : [caption, input], note, error);
  return { name, input, element, setError, get value() { return input.value; } };
}

/** 'lines.0.price' and '/price' are both the field 'price'. */
function plainName(path) {
  return path.split(/[./]/).pop();
}

/** What stands in a field now: yes or no of a checkbox. */
export function currentValue(one) {
  return one.input.type === 'checkbox' ? one.input.checked : one.value;
}

/**
 * A form of fields, of groups (`fields` in one `element`, whose names in the request begin with `prefix`), and of elements
 * that stand between them. `submit(values)` does the work with the values of the fields outside groups; what it throws is
 * shown.
 * The browser's own bubbles are off: its messages stand at the fields like the server's.
 */
export function form({ items, button, test, submit, buttonTest, buttonClass = 'button primary', after }) {
  const own = items.filter((item) => item.setError);
  // The fields of a group may come and go.
  const allFields = () => items.flatMap((item) => item.fields ?? item).filter((item) => item.setError);
  const errorArea = h('div', { class: 'form-trouble' });
  const send = h('button', { class: buttonClass, type: 'submit', test: buttonTest }, button);
  const element = h('form', { class: 'form', novalidate: true, test },
    items.map((item) => item.element ?? item), errorArea, h('div', { class: 'form-actions' }, send, after));

  const showProblem = (problem) => {
    const rest = [];
    for (const entry of problem.errors ?? []) {
      const group = items.find((item) => item.fields && item.prefix && entry.field.startsWith(`${item.prefix}.`));
      const at = (group?.fields ?? allFields()).find((candidate) => candidate.name === plainName(entry.field));
      if (at) at.setError(entry.message);
      else rest.push(entry.message);
    }
    const placed = problem.errors?.length > 0 && rest.length === 0;
    if (!placed) errorArea.replaceChildren(errorBox(problem), ...rest.map((text) => h('p', { class: 'field-error' }, text)));
    focusFirstError();
  };
  const focusFirstError = () => element.querySelector('[aria-invalid]')?.focus();

  element.addEventListener('submit', (event) => {
    event.preventDefault();
    errorArea.replaceChildren();
    for (const one of allFields()) one.setError(one.input.validationMessage);
    if (!element.checkValidity()) {
      focusFirstError();
      return;
    }
    withBusyState(send, async () => {
      try {
        await submit(Object.fromEntries(own.map((one) => [one.name, currentValue(one)])));
      } catch (problem) {
        showProblem(problem);
      }
    });
  });
  return { element };
}
