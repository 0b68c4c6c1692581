// The form of one product: create, edit, delete.
// Does not contain: inventory arithmetic (the server's stock is shown and set).

import { idempotentRequest, request } from '../api.js';
import { confirmDialog } from '../dialog.js';
import { h, replaceContent } from '../dom.js';
import { field, form } from '../forms.js';
import { listen } from '../live.js';
import { fromDecimal, toDecimal } from '../money.js';
import { loadingNote, skeletons, errorBox, withBusyState } from '../components.js';
import { navigate } from '../router.js';
import { toast } from '../toasts.js';
import { imageEditor } from './images.js';

const EMPTY = {
  name: '', sku: '', description: '', price: 0, compare_at_price: null, currency: 'EUR', stock: 0, category: null, tags: [], attributes: {}, group: null, options: {},
};

const toLines = (map) => Object.entries(map).map(([name, value]) => `${name}: ${value}`).join('\n');
const fromLines = (text) => Object.fromEntries(text.split('\n').filter((line) => line.includes(':')).map((line) => {
  const at = line.indexOf(':');
  return [line.slice(0, at).trim(), line.slice(at + 1).trim()];
}));

/** A form's text as the contract's values; a Problem-like error names the field that cannot be read. */
function readValues(values) {
  const currency = values.currency.trim().toUpperCase();
  const amount = (name) => {
    if (name === 'compare_at_price' && values[name].trim() === '') return null;
    const minor = fromDecimal(values[name], currency);
    if (minor === null) throw Object.assign(new Error('An amount cannot be read.'), { errors: [{ field: name, message: 'Enter an amount such as 12.50.' }] });
    return minor;
  };
  return {
    name: values.name.trim(), sku: values.sku.trim(), description: values.description, currency,
    price: amount('price'), compare_at_price: amount('compare_at_price'), stock: Number(values.stock),
    category: values.category.trim() || null, tags: values.tags.split(',').map((tag) => tag.trim()).filter(Boolean),
    attributes: fromLines(values.attributes), group: values.group.trim() || null, options: fromLines(values.options),
  };
}

function changesOf(product, values) {
  return Object.fromEntries(Object.entries(values).filter(([name, value]) => JSON.stringify(value) !== JSON.stringify(product[name])));
}

function productForm(product, { button, submit, after }) {
  const amount = (minor) => (minor === null ? '' : toDecimal(minor, product.currency));
  const items = {
    name: field({ name: 'name', label: 'Name', value: product.name, required: true, test: 'product-name' }),
    sku: field({ name: 'sku', label: 'SKU', value: product.sku, required: true, test: 'product-sku' }),
    description: field({ name: 'description', label: 'Description', value: product.description, rows: 5, test: 'product-description' }),
    price: field({ name: 'price', label: 'Price', value: amount(product.price), inputmode: 'decimal', required: true, test: 'product-price' }),
    compare: field({ name: 'compare_at_price', label: 'Compare-at price', value: amount(product.compare_at_price), inputmode: 'decimal', hint: 'Shown crossed out. Leave blank for none.', test: 'product-compare-at' }),
    currency: field({ name: 'currency', label: 'Currency', value: product.currency, required: true, pattern: '[A-Za-z]{3}', maxlength: 3, test: 'product-currency' }),
    stock: field({ name: 'stock', label: 'Stock', type: 'number', min: 0, step: 1, value: product.stock, required: true, test: 'product-stock' }),
    category: field({ name: 'category', label: 'Category', value: product.category ?? '', test: 'product-category' }),
    tags: field({ name: 'tags', label: 'Tags', value: product.tags.join(', '), hint: 'Separate with commas.', test: 'product-tags' }),
    attributes: field({ name: 'attributes', label: 'Attributes', value: toLines(product.attributes), rows: 3, hint: 'One per line, e.g. Material: Oak' }),
    group: field({ name: 'group', label: 'Variant group', value: product.group ?? '', hint: 'Products with the same group are variants of each other.' }),
    options: field({ name: 'options', label: 'Options of this variant', value: toLines(product.options), rows: 3, hint: 'One per line, e.g. Size: Large' }),
  };
  const { element } = form({ items: Object.values(items), button, buttonTest: 'product-save', test: 'product-form', submit: (values) => submit(readValues(values)), after });
  element.classList.add('product-form', 'sheet', 'padded');
  return element;
}

export function newProductView() {
  const create = idempotentRequest();
  const blank = productForm(EMPTY, {
    button: 'Create product',
    submit: async (values) => {
      const product = await create('POST', '/product/', values);
      navigate(`/admin/products/${product.id}`, { replace: true });
      toast({ title: `${product.name} created`, body: 'You can add images now.', tone: 'good' });
    },
  });
  return {
    title: 'New product',
    element: h('div', {}, h('nav', { class: 'crumbs', 'aria-label': 'You are here' }, h('a', { href: '/admin/products' }, 'Products')),
      h('div', { class: 'page-head' }, h('h1', {}, 'New product')), blank),
  };
}

export function productView({ params, signal, setTitle }) {
  const path = `/product/${params.id}`;
  const content = h('div', {}, h('h1', { class: 'visually-hidden' }, 'Product'), loadingNote(), skeletons(4, 'skeleton-row'));
  let onSale = () => {};

  const load = async () => {
    try {
      const { data, etag } = await request('GET', path, { signal });
      render(data, etag);
    } catch (problem) {
      if (!signal.aborted) replaceContent(content, h('h1', {}, 'The product could not be loaded'), errorBox(problem, { retry: load }));
    }
  };

  const save = (product, etag) => async (values) => {
    const changes = changesOf(product, values);
    if (Object.keys(changes).length === 0) {
      toast({ title: 'No changes to save' });
      return;
    }
    try {
      const { data, etag: tag } = await request('PATCH', path, { body: changes, ifMatch: etag });
      toast({ title: 'Saved', tone: 'good' });
      render(data, tag);
    } catch (problem) {
      if (problem.status !== 412) throw problem;
      throw Object.assign(new Error('This product was changed by a sale or a colleague. Discard your changes, then edit again.'), { errors: [] });
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
    const liveStock = h('span', { class: 'badge', test: 'live-stock' });
    const showStock = (stock) => {
      liveStock.textContent = `${stock} in stock now`;
    };
    showStock(product.stock);
    onSale = showStock;
    replaceContent(content,
      h('nav', { class: 'crumbs', 'aria-label': 'You are here' }, h('a', { href: '/admin/products' }, 'Products')),
      h('div', { class: 'page-head' }, h('div', { class: 'title-line' }, h('h1', {}, product.name), product.deleted ? h('span', { class: 'badge bad' }, 'deleted') : liveStock),
        h('div', { class: 'tools' }, h('a', { class: 'button', href: `/p/${product.id}` }, 'View in shop'), !product.deleted && drop(product))),
      h('div', { class: 'columns' }, edited, imageEditor(product, signal)));
  };

  listen('catalog', {
    // What is being typed stays; only the figure beside the name follows.
    event: ({ kind, data }) => kind === 'product_changed' && data.product_id === params.id && onSale(data.stock),
  }, signal);
  load();
  return { title: 'Product', element: content };
}
