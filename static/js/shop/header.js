// The storefront's header: logo, search, connection indicator, bell, account, cart.
// Does not contain: product lists, the content of the cart.

import { connectionStatus } from '../connection.js';
import { debounce, h } from '../dom.js';
import { icon } from '../icons.js';
import { notificationBell } from '../notifications.js';
import { navigate } from '../router.js';
import { signedInUser, onSessionChange } from '../session.js';
import { SHOP_NAME } from '../shop_info.js';
import { readCart, onCountChange } from './cart_store.js';

const SEARCH_DEBOUNCE = 200;
const CART_REFRESH_DELAY = 500;

function searchBox() {
  const input = h('input', {
    type: 'search', name: 'q', id: 'search', placeholder: 'Search the shop', autocomplete: 'off', enterkeyhint: 'search', maxlength: 200, test: 'search',
  });
  const search = () => {
    const query = new URLSearchParams(location.pathname === '/' ? location.search : '');
    const wanted = input.value.trim();
    if ((query.get('q') ?? '') === wanted) return;
    if (wanted) query.set('q', wanted);
    else query.delete('q');
    query.delete('sort');
    // Typing on is one step for the browser's history, not one per character.
    const typingOn = location.pathname === '/' && new URLSearchParams(location.search).has('q');
    navigate(query.size > 0 ? `/?${query}` : '/', { replace: typingOn });
    input.focus();
  };
  input.addEventListener('input', debounce(search, SEARCH_DEBOUNCE));
  const element = h('form', { class: 'search', role: 'search' }, h('label', { for: 'search', class: 'visually-hidden' }, 'Search the shop'), icon('search'), input);
  element.addEventListener('submit', (event) => {
    event.preventDefault();
    search();
  });
  const onNavigate = (path) => {
    const now = path === '/' ? new URLSearchParams(location.search).get('q') ?? '' : '';
    if (input.value.trim() !== now) input.value = now;
  };
  return { element, onNavigate };
}

function notificationLink({ data }) {
  if (data?.invoice_id) return `/orders/${data.invoice_id}`;
  return data?.product_id ? `/p/${data.product_id}` : null;
}

/** Renders the header. Returns `follow(user)`, to be called after a change of user, and `onNavigate(path)`, after each navigation. */
export function renderHeader(bar) {
  const search = searchBox();
  const bell = notificationBell({
    linkFor: notificationLink,
    // A paid, expired or cancelled order changes the cart, a moment after its event.
    onNotification: ({ kind }) => kind.startsWith('invoice_') && setTimeout(() => readCart().catch(() => {}), CART_REFRESH_DELAY),
  });
  const count = h('span', { class: 'count', test: 'cart-count', hidden: true });
  const cartWords = h('span', { class: 'bar-words' }, 'Cart');
  const cart = h('a', { class: 'bar-link', href: '/cart', test: 'cart-link' }, icon('cart'), cartWords, count);
  const accountSlot = h('span', { class: 'bar-slot' });

  onCountChange((items) => {
    count.hidden = items === 0;
    count.textContent = String(items);
    cart.setAttribute('aria-label', items === 0 ? 'Cart, empty' : `Cart, ${items} ${items === 1 ? 'item' : 'items'}`);
  });
  const renderAccount = () => {
    const user = signedInUser();
    accountSlot.replaceChildren(user
      ? h('a', { class: 'bar-link', href: '/account', test: 'account-link', 'aria-label': `Account of ${user.name}` }, icon('account'), h('span', { class: 'bar-words' }, user.name.split(' ')[0]))
      : h('a', { class: 'bar-link', href: '/signin', test: 'signin-link', 'aria-label': 'Sign in' }, icon('account'), h('span', { class: 'bar-words' }, 'Sign in')));
  };
  onSessionChange(renderAccount);
  renderAccount();

  bar.replaceChildren(
    h('div', { class: 'bar-inner' },
      h('a', { class: 'mark', href: '/', 'aria-label': `${SHOP_NAME}, home` }, h('img', { src: '/static/favicon.svg', alt: '', width: 30, height: 30 }), h('span', {}, SHOP_NAME)),
      search.element,
      h('nav', { class: 'bar-links', 'aria-label': 'Your things' }, connectionStatus(), bell.element, accountSlot, cart)));
  return { follow: bell.follow, onNavigate: search.onNavigate };
}
