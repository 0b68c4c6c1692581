// One product to make or to change: its fields (only what changed is sent), its pictures, its end.
// Must never enter: the list, stock kept by our own counting (the server's figure is shown and set).

import { intent, request } from '../api.js';
import { confirmDeed } from '../dialog.js';
import { h, swap } from '../dom.js';
import { field, form } from '../forms.js';
import { listen } from '../live.js';
import { fromDecimal, toDecimal } from '../money.js';
import { loadingNote, placeholders, problemBox, whileBusy } from '../parts.js';
import { navigate } from '../router.js';
import { toast } from '../toasts.js';
import { pictureSheet } from './pictures.js';

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
    if (minor === null) throw Object.assign(new Error('An amount cannot be read.'), { errors: [{ field: name, message: 'An amount like 12.50, please.' }] });
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
    compare: field({ name: 'compare_at_price', label: 'Price before', value: amount(product.compare_at_price), inputmode: 'decimal', hint: 'Shown struck through. Empty: none.', test: 'product-compare-at' }),
    currency: field({ name: 'currency', label: 'Currency', value: product.currency, required: true, pattern: '[A-Za-z]{3}', maxlength: 3, test: 'product-currency' }),
    stock: field({ name: 'stock', label: 'Stock', type: 'number', min: 0, step: 1, value: product.stock, required: true, test: 'product-stock' }),
    category: field({ name: 'category', label: 'Category', value: product.category ?? '', test: 'product-category' }),
    tags: field({ name: 'tags', label: 'Tags', value: product.tags.join(', '), hint: 'With commas between.', test: 'product-tags' }),
    attributes: field({ name: 'attributes', label: 'Attributes', value: toLines(product.attributes), rows: 3, hint: 'One a line, as Material: Oak.' }),
    group: field({ name: 'group', label: 'Variant group', value: product.group ?? '', hint: 'Products with the same group are variants of each other.' }),
    options: field({ name: 'options', label: 'Options of this variant', value: toLines(product.options), rows: 3, hint: 'One a line, as Size: Large.' }),
  };
  const { element } = form({ items: Object.values(items), button, buttonTest: 'product-save', test: 'product-form', submit: (values) => submit(readValues(values)), after });
  element.classList.add('product-form', 'sheet', 'padded');
  return element;
}

export function newProductView() {
  const create = intent();
  const blank = productForm(EMPTY, {
    button: 'Make the product',
    submit: async (values) => {
      const product = await create('POST', '/product/', values);
      navigate(`/admin/products/${product.id}`, { replace: true });
      toast({ title: `${product.name} is for sale`, body: 'Add pictures now.', tone: 'good' });
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
  const content = h('div', {}, h('h1', { class: 'visually-hidden' }, 'Product'), loadingNote(), placeholders(4, 'ghost-row'));
  let onSale = () => {};

  const load = async () => {
    try {
      const { data, etag } = await request('GET', path, { signal });
      draw(data, etag);
    } catch (problem) {
      if (!signal.aborted) swap(content, h('h1', {}, 'The product could not be shown'), problemBox(problem, { retry: load }));
    }
  };

  const save = (product, etag) => async (values) => {
    const changes = changesOf(product, values);
    if (Object.keys(changes).length === 0) {
      toast({ title: 'Nothing was changed' });
      return;
    }
    try {
      const { data, etag: tag } = await request('PATCH', path, { body: changes, ifMatch: etag });
      toast({ title: 'Saved', tone: 'good' });
      draw(data, tag);
    } catch (problem) {
      if (problem.status !== 412) throw problem;
      throw Object.assign(new Error('The product changed meanwhile, by a sale or a colleague. Load it again, then make your change.'), { errors: [] });
    }
  };

  const drop = (product) => {
    const button = h('button', { class: 'button danger', type: 'button', test: 'product-delete' }, 'Delete');
    button.addEventListener('click', () => whileBusy(button, async () => {
      if (!await confirmDeed({ title: `Delete ${product.name}?`, text: 'It disappears from the shop. Orders that hold it keep it.', agree: 'Delete' })) return;
      try {
        await request('DELETE', path);
        navigate('/admin/products');
      } catch (problem) {
        toast({ title: 'Not deleted', body: problem.message, tone: 'bad' });
      }
    }));
    return button;
  };

  const draw = (product, etag) => {
    setTitle(product.name);
    const edited = productForm(product, {
      button: 'Save',
      submit: save(product, etag),
      after: h('button', { class: 'button', type: 'button', test: 'product-reload', on: { click: load } }, 'Load again'),
    });
    const liveStock = h('span', { class: 'badge', test: 'live-stock' });
    const showStock = (stock) => {
      liveStock.textContent = `${stock} in stock now`;
    };
    showStock(product.stock);
    onSale = showStock;
    swap(content,
      h('nav', { class: 'crumbs', 'aria-label': 'You are here' }, h('a', { href: '/admin/products' }, 'Products')),
      h('div', { class: 'page-head' }, h('div', { class: 'title-line' }, h('h1', {}, product.name), product.deleted ? h('span', { class: 'badge bad' }, 'deleted') : liveStock),
        h('div', { class: 'tools' }, h('a', { class: 'button', href: `/p/${product.id}` }, 'In the shop'), !product.deleted && drop(product))),
      h('div', { class: 'columns' }, edited, pictureSheet(product, signal)));
  };

  listen('catalog', {
    // What is being typed stays; only the figure beside the name follows.
    event: ({ kind, data }) => kind === 'product_changed' && data.product_id === params.id && onSale(data.stock),
  }, signal);
  load();
  return { title: 'Product', element: content };
}
