// The form of one product: create, edit, stock, delete.
// Does not contain: inventory arithmetic (the server's stock is shown, and changed by differences).

import { get, idempotentRequest, request } from '../api.js';
import { confirmDialog } from '../dialog.js';
import { h, replaceContent } from '../dom.js';
import { currentValue, field, form } from '../forms.js';
import { listen } from '../live.js';
import { fromDecimal, toDecimal } from '../money.js';
import { loadingNote, skeletons, errorBox, withBusyState } from '../components.js';
import { navigate } from '../router.js';
import { toast } from '../toasts.js';
import { imageEditor } from './images.js';
import { stockEditor } from './stock.js';
import { listField, pairsField } from './structured_fields.js';

const EMPTY = {
  name: '', sku: '', description: '', price: 0, compare_at_price: null, currency: 'EUR', stock: 0, track_stock: true, category: null, tags: [], attributes: {}, group: null, options: {},
};

/** Times that a change is sent again because something else of the product has changed meanwhile. */
const MERGES_MAX = 3;

const optional = (text) => text.trim() || null;

/** An amount of a form in minor units; an error that names the field when it cannot be read. */
function amount(name, text, currency) {
  const minor = fromDecimal(text, currency);
  if (minor === null) throw Object.assign(new Error('An amount cannot be read.'), { errors: [{ field: name, message: 'Enter an amount such as 12.50.' }] });
  return minor;
}

/** How the text of each field becomes the value of the contract. */
const READ = {
  name: (text) => text.trim(),
  sku: (text) => text.trim(),
  description: (text) => text,
  currency: (text) => text.trim().toUpperCase(),
  price: (text, currency) => amount('price', text, currency),
  compare_at_price: (text, currency) => (optional(text) === null ? null : amount('compare_at_price', text, currency)),
  stock: Number,
  track_stock: (isCounted) => isCounted,
  category: optional,
  tags: (texts) => texts,
  attributes: (pairs) => pairs,
  group: optional,
  options: (pairs) => pairs,
};

/** The values of the named fields. */
function readValues(values, names) {
  const currency = READ.currency(values.currency);
  return Object.fromEntries(names.map((name) => [name, READ[name](values[name], currency)]));
}

function sized(size, item) {
  item.element.classList.add(size);
  return item;
}

function formFields(product, isNew) {
  const decimal = (minor) => (minor === null ? '' : toDecimal(minor, product.currency));
  const isCounted = product.track_stock;
  const stock = field({ name: 'stock', label: 'Stock', type: 'number', min: 0, step: 1, value: isCounted ? product.stock : 0, required: true, test: 'product-stock' });
  const tracked = field({ name: 'track_stock', label: 'Count the stock', type: 'checkbox', checked: isCounted, hint: 'If not, the product is always for sale.', test: 'product-track-stock' });
  // The stock of a product that is counted already is changed beside the form, by what came or went.
  const showStock = () => {
    stock.element.hidden = !tracked.input.checked || (isCounted && !isNew);
  };
  tracked.input.addEventListener('change', showStock);
  showStock();
  return [
    sized('two-thirds', field({ name: 'name', label: 'Name', value: product.name, required: true, maxlength: 255, test: 'product-name' })),
    sized('third', field({ name: 'sku', label: 'SKU', value: product.sku, required: true, maxlength: 255, test: 'product-sku' })),
    field({ name: 'description', label: 'Description', value: product.description, rows: 5, test: 'product-description' }),
    sized('third', field({ name: 'price', label: 'Price', value: decimal(product.price), inputmode: 'decimal', required: true, test: 'product-price' })),
    sized('third', field({ name: 'compare_at_price', label: 'Compare-at price', value: decimal(product.compare_at_price), inputmode: 'decimal', hint: 'Shown crossed out. Leave blank for none.', test: 'product-compare-at' })),
    sized('third', field({ name: 'currency', label: 'Currency', value: product.currency, required: true, pattern: '[A-Za-z]{3}', maxlength: 3, test: 'product-currency' })),
    sized('half', tracked),
    sized('half', stock),
    sized('half', field({ name: 'category', label: 'Category', value: product.category ?? '', maxlength: 255, list: 'known-categories', autocomplete: 'off', hint: 'A path such as Kitchen > Pots is possible.', test: 'product-category' })),
    sized('half', field({ name: 'group', label: 'Variant group', value: product.group ?? '', maxlength: 255, hint: 'Products with the same group are variants of each other.' })),
    listField({ name: 'tags', label: 'Tags', value: product.tags, addLabel: 'Add a tag', test: 'product-tags' }),
    pairsField({ name: 'attributes', label: 'Attributes', value: product.attributes, addLabel: 'Add an attribute', hint: 'Such as Material and Oak.', test: 'product-attributes' }),
    pairsField({ name: 'options', label: 'Options of this variant', value: product.options, addLabel: 'Add an option', hint: 'Such as Size and Large.', test: 'product-options' }),
  ];
}

/** Categories that products have already, so that a slip of the pen does not make another one. */
function knownCategories() {
  const list = h('datalist', { id: 'known-categories' });
  get('/products/', { limit: 1 })
    .then(({ facets }) => list.replaceChildren(...facets.categories.map(({ value }) => h('option', { value }))))
    .catch(() => {}); // without them any text can be typed as well
  return list;
}

/** `{ element, isTouched() }`: a form whose `submit` gets the values that were touched, or all of a new product. */
function productForm(product, { isNew, button, submit, after }) {
  const items = formFields(product, isNew);
  const shown = Object.fromEntries(items.map((item) => [item.name, JSON.stringify(currentValue(item))]));
  const isTouched = (values) => (name) => JSON.stringify(values[name]) !== shown[name];
  const { element } = form({
    items, button, buttonTest: 'product-save', test: 'product-form', after,
    submit: (values) => {
      const touched = new Set(isNew ? Object.keys(values) : Object.keys(values).filter(isTouched(values)));
      // An amount in another currency is another amount; and who starts to count says how many there are.
      if (touched.has('currency')) ['price', 'compare_at_price'].forEach((name) => touched.add(name));
      if (touched.has('track_stock') && values.track_stock) touched.add('stock');
      return submit(readValues(values, [...touched]));
    },
  });
  element.classList.add('product-form', 'sheet', 'padded');
  element.append(knownCategories());
  const isChanged = (item) => {
    try {
      return JSON.stringify(currentValue(item)) !== shown[item.name];
    } catch {
      return true; // what cannot be read yet was typed
    }
  };
  return { element, isTouched: () => items.some(isChanged) };
}

export function newProductView() {
  const create = idempotentRequest();
  const blank = productForm(EMPTY, {
    isNew: true,
    button: 'Create product',
    submit: async (values) => {
      const product = await create('POST', '/product/', values);
      navigate(`/admin/products/${product.id}`, { replace: true });
      toast({ title: `${product.name} created`, body: 'You can add images now.', tone: 'good' });
    },
  });
  return {
    title: 'New product',
    unsaved: blank.isTouched,
    element: h('div', {}, h('nav', { class: 'crumbs', 'aria-label': 'You are here' }, h('a', { href: '/admin/products' }, 'Products')),
      h('div', { class: 'page-head' }, h('h1', {}, 'New product')), blank.element),
  };
}

export function productView({ params, signal, setTitle }) {
  const path = `/product/${params.id}`;
  const content = h('div', {}, h('h1', { class: 'visually-hidden' }, 'Product'), loadingNote(), skeletons(4, 'skeleton-row'));
  let onSale = () => {};
  let isTouched = () => false;

  const load = async () => {
    try {
      const { data, etag } = await request('GET', path, { signal });
      render(data, etag);
    } catch (problem) {
      if (!signal.aborted) replaceContent(content, h('h1', {}, 'The product could not be loaded'), errorBox(problem, { retry: load }));
    }
  };

  const save = (product, etag) => async (changes) => {
    if (Object.keys(changes).length === 0) {
      toast({ title: 'No changes to save' });
      return;
    }
    let tag = etag;
    for (let attempt = 1; ; attempt += 1) {
      try {
        const { data, etag: newTag } = await request('PATCH', path, { body: changes, ifMatch: tag });
        toast({ title: 'Saved', tone: 'good' });
        render(data, newTag);
        return;
      } catch (problem) {
        if (problem.status !== 412 || attempt > MERGES_MAX) throw problem;
        // A sale changes the product too; only what both have changed is a conflict.
        const { data, etag: newTag } = await request('GET', path, { signal });
        const both = Object.keys(changes).filter((name) => JSON.stringify(data[name]) !== JSON.stringify(product[name]));
        if (both.length > 0) {
          const errors = both.map((name) => ({ field: name, message: 'A colleague has changed this meanwhile. Discard your changes to see it.' }));
          throw Object.assign(new Error('This product was changed by a colleague.'), { errors });
        }
        tag = newTag;
      }
    }
  };

  const drop = (product) => {
    const button = h('button', { class: 'button danger', type: 'button', test: 'product-delete' }, 'Delete');
    button.addEventListener('click', () => withBusyState(button, async () => {
      if (!await confirmDialog({ title: `Delete ${product.name}?`, text: 'It will no longer be shown in the shop. Existing orders are not affected.', confirmLabel: 'Delete' })) return;
      try {
        await request('DELETE', path);
        navigate('/admin/products');
      } catch (problem) {
        toast({ title: 'Not deleted', body: problem.message, tone: 'bad' });
      }
    }));
    return button;
  };

  const render = (product, etag) => {
    setTitle(product.name);
    const edited = productForm(product, {
      button: 'Save',
      submit: save(product, etag),
      after: h('button', { class: 'button', type: 'button', test: 'product-reload', on: { click: load } }, 'Discard changes'),
    });
    ({ isTouched } = edited);
    const stock = stockEditor(product, signal);
    onSale = stock.show;
    replaceContent(content,
      h('nav', { class: 'crumbs', 'aria-label': 'You are here' }, h('a', { href: '/admin/products' }, 'Products')),
      h('div', { class: 'page-head' }, h('div', { class: 'title-line' }, h('h1', {}, product.name), product.deleted ? h('span', { class: 'badge bad' }, 'deleted') : stock.badge),
        h('div', { class: 'tools' }, h('a', { class: 'button', href: `/p/${product.id}` }, 'View in shop'), !product.deleted && drop(product))),
      h('div', { class: 'columns' }, edited.element, h('div', { class: 'stack' }, !product.deleted && product.track_stock && stock.element, imageEditor(product, signal))));
  };

  listen('catalog', {
    // What is being typed stays; only the figure beside the name follows.
    event: ({ kind, data }) => kind === 'product_changed' && data.product_id === params.id && onSale(data.stock),
  }, signal);
  load();
  return { title: 'Product', unsaved: () => isTouched(), element: content };
}
