// The product page: images, options, live price and stock, add to cart, reviews.
// Does not contain: the cart page, editing of products.

import { get } from '../api.js';
import { h, replaceContent } from '../dom.js';
import { listen } from '../live.js';
import { loadingNote, productImage, skeletons, errorBox, stars, quantityInput, withBusyState } from '../components.js';
import { replaceUrl } from '../router.js';
import { toast } from '../toasts.js';
import { cartAdder } from './cart_store.js';
import { priceTag, stockLabel, mergeUpdate } from './card.js';
import { reviews } from './reviews.js';

/** Every option of the group with its values: { Size: ['Small', 'Large'] }. */
function optionAxes(variants) {
  const axes = {};
  for (const variant of variants) {
    for (const [name, value] of Object.entries(variant.options)) {
      axes[name] ??= [];
      if (!axes[name].includes(value)) axes[name].push(value);
    }
  }
  return axes;
}

/** The variant with this option changed; where that combination does not exist, the first that has the new value. */
function findVariant(variants, options, name, value) {
  const fits = (variant, wanted) => Object.entries(wanted).every(([key, one]) => variant.options[key] === one);
  return variants.find((variant) => fits(variant, { ...options, [name]: value })) ?? variants.find((variant) => variant.options[name] === value);
}

/** The variants that no option tells from the shown one, itself included. */
function indistinct(product) {
  const key = ({ options }) => JSON.stringify(Object.entries(options).sort());
  return product.variants.filter((variant) => key(variant) === key(product));
}

function versionPicker(product, choose) {
  const same = indistinct(product);
  if (same.length < 2) return null;
  return h('fieldset', { class: 'options' },
    h('legend', {}, 'Version'),
    same.map((variant) => h('label', { class: variant.stock > 0 ? 'option' : 'option sold-out' },
      h('input', { type: 'radio', name: 'option-version', value: variant.id, class: 'visually-hidden', checked: variant.id === product.id, test: 'version', on: { change: () => choose(variant.id) } }),
      h('span', {}, variant.sku))));
}

function optionPicker(product, choose) {
  const variants = product.variants;
  return Object.entries(optionAxes(variants)).map(([name, values]) => h('fieldset', { class: 'options' },
    h('legend', {}, name),
    values.map((value) => {
      const variant = findVariant(variants, product.options, name, value);
      const input = h('input', {
        type: 'radio', name: `option-${name}`, value, class: 'visually-hidden', checked: product.options[name] === value, test: 'option',
        on: { change: () => choose(variant.id) },
      });
      return h('label', { class: variant.stock > 0 ? 'option' : 'option sold-out' }, input, h('span', {}, value));
    })));
}

function gallery(product) {
  const show = (image) => productImage(image, product.name, { sizes: '(max-width: 48rem) 100vw, 40rem', alt: image?.alt, eager: true });
  const main = h('div', { class: 'gallery-main', test: 'product-picture' }, show(product.images[0]));
  if (product.images.length < 2) return h('div', { class: 'gallery' }, main);
  const thumbs = product.images.map((image, index) => h('button', {
    type: 'button', class: 'thumb', 'aria-label': `Picture ${index + 1} of ${product.images.length}`, 'aria-pressed': String(index === 0), test: 'thumbnail',
    on: {
      click: () => {
        main.replaceChildren(show(image));
        thumbs.forEach((thumb, at) => thumb.setAttribute('aria-pressed', String(at === index)));
      },
    },
  }, productImage(image, product.name, { sizes: '4.5rem' })));
  return h('div', { class: 'gallery' }, main, h('div', { class: 'thumbs' }, thumbs));
}

function attributeTable(attributes) {
  const rows = Object.entries(attributes);
  if (rows.length === 0) return null;
  return h('dl', { class: 'attributes' }, rows.map(([name, value]) => h('div', {}, h('dt', {}, name), h('dd', {}, String(value)))));
}

export function productView({ params, signal, setTitle }) {
  const element = h('div', {}, h('h1', { class: 'visually-hidden' }, 'Product'), loadingNote(),
    h('div', { class: 'product' }, skeletons(1, 'skeleton-square'), h('div', { class: 'product-facts' }, skeletons(4, 'skeleton-line'))));
  let shownId = params.id;
  let visit = null; // ends what belongs to one variant

  const load = async (id) => {
    visit?.abort();
    visit = new AbortController();
    const gone = AbortSignal.any([signal, visit.signal]);
    shownId = id;
    try {
      render(await get(`/product/${id}`, {}, gone), gone);
    } catch (problem) {
      if (gone.aborted) return;
      replaceContent(element, h('h1', {}, problem.status === 404 ? 'Product not found' : 'The product could not be loaded'),
        errorBox(problem, { retry: () => load(id) }));
    }
  };

  const choose = async (id) => {
    if (id === shownId) return;
    const focused = element.contains(document.activeElement) ? document.activeElement : null;
    await load(id);
    replaceUrl(`/p/${id}`);
    const again = focused?.name && element.querySelector(`input[name="${CSS.escape(focused.name)}"]:checked`);
    if (again) again.focus();
  };

  const render = (product, gone) => {
    setTitle(product.name);
    const price = h('div', { class: 'live-price', 'aria-live': 'polite' });
    const stock = h('p', { class: 'stock', test: 'stock', 'aria-live': 'polite' });
    const amount = quantityInput({ value: 1, label: 'Quantity', test: 'quantity' });
    const errorArea = h('div', { class: 'form-trouble' });
    const add = cartAdder();
    const addButton = h('button', { class: 'button primary wide', type: 'button', test: 'add-to-cart' }, 'Add to cart');
    addButton.addEventListener('click', () => withBusyState(addButton, async () => {
      errorArea.replaceChildren();
      try {
        const item = await add(product.id, Number(amount.input.value));
        toast({ title: `${item.name} was added to your cart`, href: '/cart', tone: 'good' });
      } catch (problem) {
        errorArea.replaceChildren(errorBox(problem));
      }
    }));

    const drawFacts = () => {
      price.replaceChildren(priceTag(product, 'price'));
      const [words, tone] = stockLabel(product);
      stock.className = `stock ${tone}`;
      stock.textContent = words;
      const forSale = product.stock > 0 && !product.deleted;
      addButton.disabled = !forSale;
      amount.input.max = Math.max(1, Math.min(99, product.stock));
      amount.element.classList.toggle('off', !forSale);
    };
    drawFacts();

    const summary = h('p', { class: 'rating-line', test: 'rating' });
    const drawRating = () => summary.replaceChildren(...(product.review_count > 0
      ? [stars(product.rating), h('a', { href: '#reviews' }, `${product.rating.toFixed(1)}, ${product.review_count} ${product.review_count === 1 ? 'review' : 'reviews'}`)]
      : [h('span', { class: 'muted' }, 'No reviews yet')]));
    drawRating();

    const applyUpdate = (update) => {
      Object.assign(product, mergeUpdate(product, update));
      drawFacts();
      drawRating();
    };
    listen(`product:${product.id}`, {
      event: ({ kind, data }) => kind === 'product_changed' && applyUpdate(data),
      stale: () => get(`/product/${product.id}`, {}, gone).then(applyUpdate, () => {}), // unreachable: the next event updates it
    }, gone);

    replaceContent(element,
      h('nav', { class: 'crumbs', 'aria-label': 'You are here' }, h('a', { href: '/' }, 'Shop'),
        product.category && h('a', { href: `/?${new URLSearchParams({ category: product.category })}` }, product.category)),
      h('div', { class: 'product' },
        gallery(product),
        h('div', { class: 'product-facts' },
          h('h1', { test: 'product-name' }, product.name),
          summary, price, stock,
          optionPicker(product, choose),
          versionPicker(product, choose),
          h('div', { class: 'buy' }, amount.element, addButton),
          errorArea,
          h('p', { class: 'description' }, product.description),
          attributeTable(product.attributes),
          product.tags.length > 0 && h('p', { class: 'tags' }, product.tags.map((tag) => h('a', { class: 'chip', href: `/?${new URLSearchParams({ tag })}` }, `#${tag}`))),
          h('p', { class: 'small muted' }, `SKU: ${product.sku}`))),
      reviews(product.id, gone));
  };

  load(params.id);
  return { title: 'Product', element };
}
