// The form for a new e-mail.
// Does not contain: lists of many recipients.

import { idempotentRequest } from '../api.js';
import { h } from '../dom.js';
import { field, form } from '../forms.js';
import { navigate } from '../router.js';
import { toast } from '../toasts.js';

export function sendEmailView({ query }) {
  const send = idempotentRequest();
  const { element } = form({
    items: [
      field({ name: 'to', label: 'To', type: 'email', value: query.get('to') ?? '', required: true, test: 'email-to' }),
      field({ name: 'subject', label: 'Subject', required: true, test: 'email-subject' }),
      field({ name: 'text', label: 'Text', rows: 10, required: true, test: 'email-body' }),
    ],
    button: 'Send',
    test: 'email-form',
    buttonTest: 'email-send',
    submit: async (values) => {
      const { id } = await send('POST', '/send_email/', values);
      navigate(`/admin/emails/${id}`, { replace: true });
      toast({ title: 'E-mail sent', tone: 'good' });
    },
  });
  element.classList.add('sheet', 'padded', 'letter-form');
  return {
    title: 'New e-mail',
    element: h('div', {}, h('nav', { class: 'crumbs', 'aria-label': 'You are here' }, h('a', { href: '/admin/emails' }, 'E-mails')),
      h('div', { class: 'page-head' }, h('h1', {}, 'New e-mail')), element),
  };
}
