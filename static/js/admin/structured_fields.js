// Fields of a form whose value is a list of texts, or texts by name: one input for each part, so that no sign inside a
// text can be taken for a separator.

import { h, uniqueId } from '../dom.js';

/** A field of rows that can be added and removed. `makeRow(part)` gives `{ inputs, read }`; `read()` is null when blank. */
function rowsField({ name, label, hint, addLabel, test, parts, makeRow, collect }) {
  const id = uniqueId(name);
  const error = h('p', { class: 'field-error', id: `${id}-error`, test: `error-${name}` });
  const list = h('div', { class: 'rows' });
  const rows = [];
  const setError = (message) => {
    error.textContent = message;
    if (message) input.setAttribute('aria-invalid', 'true');
    else input.removeAttribute('aria-invalid');
  };
  const add = (part, focus) => {
    const row = makeRow(part);
    const remove = h('button', { class: 'button quiet', type: 'button', 'aria-label': `Remove from ${label.toLowerCase()}` }, '×');
    row.element = h('div', { class: 'row-of-field' }, row.inputs, remove);
    remove.addEventListener('click', () => {
      rows.splice(rows.indexOf(row), 1);
      row.element.remove();
      setError('');
      more.focus();
    });
    row.element.addEventListener('input', () => setError(''));
    rows.push(row);
    list.append(row.element);
    if (focus) row.inputs[0].focus();
  };
  const more = h('button', { class: 'button small', type: 'button', test: test && `${test}-add`, on: { click: () => add(undefined, true) } }, addLabel);
  const input = h('fieldset', { class: 'field rows-field', test, tabindex: -1, 'aria-describedby': `${id}-error` },
    h('legend', { class: 'label' }, label), list, more, hint && h('p', { class: 'field-hint' }, hint), error);
  parts.forEach((part) => add(part, false));
  return {
    name, input, element: input, setError,
    get value() { return collect(rows.map((row) => row.read()).filter((part) => part !== null)); },
  };
}

/** A list of texts, one input each. */
export function listField({ name, label, hint, addLabel, test, value }) {
  const makeRow = (text = '') => {
    const input = h('input', { type: 'text', 'aria-label': label, maxlength: 255 });
    input.value = text;
    return { inputs: [input], read: () => (input.value.trim() === '' ? null : input.value.trim()) };
  };
  return rowsField({ name, label, hint, addLabel, test, parts: value, makeRow, collect: (texts) => texts });
}

/** Texts by name: an input for the name and one of several lines for the text. A name without a text is kept. */
export function pairsField({ name, label, hint, addLabel, test, value }) {
  const makeRow = ([key, text] = ['', '']) => {
    const keyInput = h('input', { type: 'text', 'aria-label': `${label}: name`, placeholder: 'Name', maxlength: 50 });
    const textInput = h('textarea', { rows: text.includes('\n') ? 3 : 1, 'aria-label': `${label}: value`, placeholder: 'Value' });
    keyInput.value = key;
    textInput.value = text;
    // What was not touched stays exactly as it is: a text area changes the ends of lines.
    const shown = textInput.value;
    const read = () => {
      const trimmed = keyInput.value.trim();
      if (trimmed === '' && textInput.value.trim() === '') return null;
      return [trimmed === key.trim() ? key : trimmed, textInput.value === shown ? text : textInput.value.trim()];
    };
    return { inputs: [keyInput, textInput], read };
  };
  const field = rowsField({
    name, label, hint, addLabel, test, parts: Object.entries(value), makeRow,
    collect: (pairs) => {
      const names = pairs.map(([key]) => key);
      const twice = names.find((key, at) => names.indexOf(key) !== at);
      if (twice !== undefined) throw Object.assign(new Error('A name is there twice.'), { errors: [{ field: name, message: `${twice} is there twice.` }] });
      if (names.includes('')) throw Object.assign(new Error('A name is missing.'), { errors: [{ field: name, message: 'Enter a name for each value.' }] });
      return Object.fromEntries(pairs);
    },
  });
  return field;
}
