// The cart as the storefront sees it: reads and changes it, and tells how much is in it.
// Must never enter: prices and sums of our own (the server's are shown), elements of a page.

import { get, intent, request } from '../api.js';
import { currentUser, ensureUser, signIn } from '../session.js';

const watchers = new Set();
let count = 0;

function setCount(next) {
  count = next;
  for (const watcher of watchers) watcher(count);
}

/** Calls `watcher(count)` now and at each change. */
export function watchCount(watcher) {
  watchers.add(watcher);
  watcher(count);
}

/** The cart, or null when there is nobody yet who could have one. */
export async function readCart(signal) {
  const user = currentUser();
  if (!user) {
    setCount(0);
    return null;
  }
  const cart = await get(`/user/${user.id}/cart/`, {}, signal);
  setCount(cart.count);
  return cart;
}

/** A function that puts a product into the cart, once for each wish, however often it has to be tried. */
export function adder() {
  const add = intent();
  return async (productId, quantity) => {
    const user = await ensureUser();
    const item = await add('POST', `/user/${user.id}/cart/`, { product_id: productId, quantity });
    await readCart();
    return item;
  };
}

export async function setQuantity(item, quantity) {
  await request('PUT', `/user/${currentUser().id}/cart/${item.id}`, { body: { quantity } });
}

export async function removeItem(item) {
  await request('DELETE', `/user/${currentUser().id}/cart/${item.id}`);
}

/** Gives up the order that waits to be paid, so that the cart can be changed again. */
export async function cancelCheckout() {
  await request('DELETE', `/user/${currentUser().id}/cart/checkout`);
}

/** Signs in and puts what the guest had collected into the account's cart. Returns the names that did not fit. */
export async function signInWithCart(values) {
  const before = currentUser()?.role === 'guest' ? await readCart().catch(() => null) : null; // no reason not to sign in
  await signIn(values);
  const left = [];
  for (const item of before?.invoice_id ? [] : before?.items ?? []) {
    await adder()(item.product_id, item.quantity).catch(() => left.push(item.name));
  }
  return left;
}
