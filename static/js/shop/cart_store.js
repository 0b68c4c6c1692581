// The customer's cart: reads and changes it over the API and notifies watchers of the item count.
// Does not contain: computed prices and totals (the server's are shown), elements.

import { get, idempotentRequest, request } from '../api.js';
import { currentUser, ensureUser, signIn } from '../session.js';

const watchers = new Set();
let count = 0;

function setCount(next) {
  count = next;
  for (const watcher of watchers) watcher(count);
}

/** Calls `watcher(count)` now and at each change. */
export function onCountChange(watcher) {
  watchers.add(watcher);
  watcher(count);
}

/** The cart, or null while there is no user. */
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

/** Returns a function that adds a product to the cart exactly once, however often the request is retried. */
export function cartAdder() {
  const add = idempotentRequest();
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

/** Cancels the unpaid order, so that the cart can be edited again. */
export async function cancelCheckout() {
  await request('DELETE', `/user/${currentUser().id}/cart/checkout`);
}

/** Signs in; the server moves the guest's items to the account's cart. Returns the names of items that it could not move. */
export async function signInWithCart(values) {
  const { cart_left: left = [] } = await signIn(values);
  await readCart().catch(() => {}); // only the count in the bar
  return left;
}
