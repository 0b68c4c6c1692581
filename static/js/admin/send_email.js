// Writing a letter.
// Must never enter: lists of many recipients.

import { intent } from '../api.js';
import { h } from '../dom.js';
import { field, form } from '../forms.js';
import { navigate } from '../router.js';
import { toast } from '../toasts.js';

export function sendEmailView({ query }) {
  const send = intent();
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
      toast({ title: 'The letter is on its way', tone: 'good' });
    },
  });
  element.classList.add('sheet', 'padded', 'letter-form');
  return {
    title: 'Write an e-mail',
    element: h('div', {}, h('nav', { class: 'crumbs', 'aria-label': 'You are here' }, h('a', { href: '/admin/emails' }, 'E-mails')),
      h('div', { class: 'page-head' }, h('h1', {}, 'Write an e-mail')), element),
  };
}
