// Entry point of the back office: admits staff, renders the sidebar, opens the live connection, starts the router.
// Does not contain: anything that a single view needs.

import { onUnauthenticated } from '../api.js';
import { connectionStatus } from '../connection.js';
import { h, replaceContent } from '../dom.js';
import { icon } from '../icons.js';
import { notificationBell } from '../notifications.js';
import { emptyState, errorBox, withBusyState } from '../components.js';
import { startRouter } from '../router.js';
import { currentUser, isStaff, loadSession, onSessionChange, signOut } from '../session.js';
import { SHOP_NAME } from '../shop_info.js';
import { clearToasts, toast } from '../toasts.js';
import { auditView } from './audit.js';
import { customersView } from './customers.js';
import { dashboardView } from './dashboard.js';
import { emailView } from './email.js';
import { emailsView } from './emails.js';
import { orderView } from './order.js';
import { ordersView } from './orders.js';
import { newProductView, productView } from './product.js';
import { productsView } from './products.js';
import { sendEmailView } from './send_email.js';
import { signInPage } from './sign_in.js';

const ROUTES = [
  { path: '/admin', view: dashboardView },
  { path: '/admin/orders', view: ordersView },
  { path: '/admin/orders/:id', view: orderView },
  { path: '/admin/products', view: productsView },
  { path: '/admin/products/new', view: newProductView },
  { path: '/admin/products/:id', view: productView },
  { path: '/admin/emails', view: emailsView },
  { path: '/admin/emails/new', view: sendEmailView },
  { path: '/admin/emails/:id', view: emailView },
  { path: '/admin/customers', view: customersView },
  { path: '/admin/audit', view: auditView },
];

const NAVIGATION = [
  ['/admin', 'chart', 'Dashboard'],
  ['/admin/orders', 'receipt', 'Orders'],
  ['/admin/products', 'box', 'Products'],
  ['/admin/customers', 'people', 'Customers'],
  ['/admin/emails', 'mail', 'E-mails'],
];

// Shown to administrators only; the server decides what each role may do.
const ADMIN_NAVIGATION = [['/admin/audit', 'clock', 'Audit log']];

const outlet = document.getElementById('main');
const side = document.getElementById('side');

function notificationLink({ data }) {
  if (data?.invoice_id) return `/admin/orders/${data.invoice_id}`;
  if (data?.product_id) return `/admin/products/${data.product_id}`;
  return data?.email_id ? `/admin/emails/${data.email_id}` : null;
}

function notFoundView() {
  return {
    title: 'Not found',
    element: emptyState('Page not found', 'This address does not exist.', h('a', { class: 'button', href: '/admin' }, 'Go to the dashboard')),
  };
}

/** Renders the logo and the navigation; returns a function that marks the current page. */
function renderSidebar(bell) {
  const navigation = currentUser().role === 'admin' ? [...NAVIGATION, ...ADMIN_NAVIGATION] : NAVIGATION;
  const links = navigation.map(([href, sign, words]) => h('a', { href, class: 'place' }, icon(sign), h('span', {}, words)));
  const out = h('button', { class: 'button small', type: 'button', test: 'signout' }, 'Sign out');
  out.addEventListener('click', () => withBusyState(out, async () => {
    try {
      await signOut();
      location.reload();
    } catch (problem) {
      toast({ title: problem.message, tone: 'bad' });
    }
  }));
  replaceContent(side,
    h('div', { class: 'side-head' },
      h('a', { class: 'mark', href: '/admin', 'aria-label': `${SHOP_NAME} back office` }, h('img', { src: '/static/favicon.svg', alt: '', width: 28, height: 28 }), h('span', {}, SHOP_NAME)),
      h('span', { class: 'side-tools' }, connectionStatus(), bell.element)),
    h('nav', { class: 'places', 'aria-label': 'Back office' }, links),
    h('div', { class: 'side-foot' }, h('p', { class: 'small muted' }, currentUser().name), h('a', { class: 'small', href: '/' }, 'View storefront'), out));
  return (path) => {
    links.forEach((link, at) => {
      const own = navigation[at][0];
      const here = own === '/admin' ? path === own : path.startsWith(own);
      if (here) link.setAttribute('aria-current', 'page');
      else link.removeAttribute('aria-current');
    });
  };
}

async function begin() {
  try {
    await loadSession();
  } catch (problem) {
    replaceContent(outlet, errorBox(problem, { retry: begin }));
    return;
  }
  if (!isStaff()) {
    replaceContent(outlet, signInPage(begin));
    return;
  }
  const bell = notificationBell({ linkFor: notificationLink });
  const mark = renderSidebar(bell);
  bell.follow(currentUser());
  onUnauthenticated(() => location.reload()); // shows the sign-in page
  onSessionChange((user, other) => other && location.reload());
  startRouter({ outlet, site: `${SHOP_NAME} back office`, routes: ROUTES, notFoundView, onNavigate: (path) => { mark(path); clearToasts(); } });
}

begin();
