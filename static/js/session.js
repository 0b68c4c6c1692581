// Who is using this page. Signs in and out, makes the guest, and tells who wants to know.
// Must never enter: tokens (the cookie is HttpOnly and stays out of reach), pages, forms.

import { get, intent, request } from './api.js';

const watchers = new Set();
const makeGuest = intent();
let user = null;
let guestOnItsWay = null;

function become(next) {
  const other = (next?.id ?? null) !== (user?.id ?? null) || next?.role !== user?.role;
  user = next;
  for (const watcher of watchers) watcher(user, other);
}

/** The user, a guest included, or null. */
export function currentUser() {
  return user;
}

/** The user when it is somebody with an account, or null. */
export function account() {
  return user && user.role !== 'guest' ? user : null;
}

/** Calls `watcher(user, other)` at each change; `other` says that it is another person or another right than before. */
export function watchSession(watcher) {
  watchers.add(watcher);
}

/** Asks the server who we are. */
export async function loadSession() {
  try {
    become(await get('/me'));
  } catch (failure) {
    if (failure.status !== 401) throw failure;
    become(null);
  }
}

/** The user; makes a guest where there is nobody yet. Two calls at once make one guest. */
export async function ensureUser() {
  if (user) return user;
  guestOnItsWay ??= makeGuest('POST', '/guest').finally(() => {
    guestOnItsWay = null;
  });
  const made = await guestOnItsWay;
  if (!user) become(made.user);
  return user;
}

export async function signIn(values) {
  const { data } = await request('POST', '/signin', { body: values });
  become(data.user);
}

/** Makes the account and signs in; a guest becomes it, with its cart, and is signed in already. */
export async function signUp(values) {
  const { data } = await request('POST', '/user/', { body: values });
  if (user?.id === data.id) become(data);
  else await signIn({ email: values.email, password: values.password });
}

export async function signOut() {
  await request('POST', '/signout');
  become(null);
}

/** After the account was edited or deleted elsewhere on the page. */
export function replaceUser(next) {
  become(next);
}
