// Entry point of the storefront: loads the session, renders the header, opens the live connection, starts the router.
// Does not contain: anything that a single view needs.

import { onUnauthenticated } from '../api.js';
import { forgetLists } from '../paged_list.js';
import { refresh, startRouter } from '../router.js';
import { currentUser, loadSession, replaceUser, onSessionChange } from '../session.js';
import { SHOP_NAME } from '../shop_info.js';
import { clearToasts, toast } from '../toasts.js';
import { accountView } from './account.js';
import { addressesView } from './addresses.js';
import { renderHeader } from './header.js';
import { readCart } from './cart_store.js';
import { cartView } from './cart.js';
import { checkoutView } from './checkout.js';
import { notFoundView } from './not_found.js';
import { orderView } from './order.js';
import { ordersView } from './orders.js';
import { forgotView, resetView } from './password.js';
import { productView } from './product.js';
import { productsView } from './products.js';
import { signInView } from './sign_in.js';
import { signUpView } from './sign_up.js';
import { verifyView } from './verify.js';

const ROUTES = [
  { path: '/', view: productsView },
  { path: '/p/:id', view: productView },
  { path: '/cart', view: cartView },
  { path: '/checkout', view: checkoutView },
  { path: '/orders', view: ordersView },
  { path: '/orders/:id', view: orderView },
  { path: '/signin', view: signInView },
  { path: '/signup', view: signUpView },
  { path: '/account', view: accountView },
  { path: '/addresses', view: addressesView },
  { path: '/forgot', view: forgotView },
  { path: '/reset', view: resetView },
  { path: '/verify', view: verifyView },
];

const outlet = document.getElementById('main');

async function begin() {
  let trouble = null;
  try {
    await loadSession();
  } catch (problem) {
    trouble = problem; // the shop can be looked at without an account
  }
  const header = renderHeader(document.getElementById('bar'));
  const arrive = () => {
    header.follow(currentUser());
    readCart().catch(() => {}); // the count in the bar stays as it was; the cart's own page says what is wrong
  };
  onSessionChange((user, other, elsewhere) => {
    if (!other) return;
    arrive();
    if (!user || elsewhere) refresh(); // nothing of the former account may stay on the page
    forgetLists();
  });
  onUnauthenticated(({ code }) => {
    if (!currentUser() || code === 'bad_credentials') return;
    replaceUser(null);
    toast({ title: 'Your session has ended', body: 'Sign in again to continue.' });
  });
  arrive();
  startRouter({ outlet, site: SHOP_NAME, routes: ROUTES, notFoundView, onNavigate: (path) => { header.onNavigate(path); clearToasts(); } });
  if (trouble) toast({ title: 'Signing in does not work right now', body: 'You can look around. Please try again later to buy something.', tone: 'bad' });
}

begin();
