// The address book: the customer's addresses, and the form that adds or changes one.
// Does not contain: the fields of an address (address_fields.js), the address of an order.

import { addressBlock, addressFields, readCountries } from '../address_fields.js';
import { get, idempotentRequest, request } from '../api.js';
import { confirmDialog } from '../dialog.js';
import { h, replaceContent } from '../dom.js';
import { form } from '../forms.js';
import { emptyState, errorBox, loadingNote, skeletons, withBusyState } from '../components.js';
import { currentUser } from '../session.js';
import { toast } from '../toasts.js';
import { signInRequired } from './sign_in.js';

export function addressesView({ signal }) {
  const user = currentUser();
  if (!user) return signInRequired('Addresses');
  const base = `/user/${user.id}/addresses`;
  const content = h('div', {}, loadingNote(), skeletons(2, 'skeleton-row'));
  const create = idempotentRequest();

  const load = async () => {
    try {
      const [{ items }, countries] = await Promise.all([get(`${base}/`, { limit: 100 }, signal), readCountries(signal)]);
      renderList(items, countries);
    } catch (problem) {
      if (!signal.aborted) content.replaceChildren(errorBox(problem, { retry: load }));
    }
  };

  const edit = (countries, saved) => {
    const group = addressFields({ countries, address: saved ?? { name: user.name } });
    const cancel = h('button', { type: 'button', class: 'button', test: 'address-cancel', on: { click: load } }, 'Cancel');
    const { element } = form({
      items: [group], button: 'Save address', test: 'address-form', buttonTest: 'address-save', after: cancel,
      submit: async () => {
        const address = group.read();
        if (saved) await request('PUT', `${base}/${saved.id}`, { body: address });
        else await create('POST', `${base}/`, address);
        toast({ title: 'Saved', tone: 'good' });
        await load();
      },
    });
    replaceContent(content, h('section', { class: 'card-box', 'aria-label': saved ? 'Change address' : 'New address' }, element));
    group.fields[0].input.focus();
  };

  const remove = async (saved) => {
    const sure = await confirmDialog({ title: 'Delete this address?', text: 'Past orders keep it.', confirmLabel: 'Delete' });
    if (!sure) return;
    await request('DELETE', `${base}/${saved.id}`);
    await load();
  };

  const renderAddress = (saved, countries) => {
    const erase = h('button', { type: 'button', class: 'link', test: 'address-delete', 'aria-label': `Delete the address of ${saved.name}` }, 'Delete');
    erase.addEventListener('click', () => withBusyState(erase, () => remove(saved).catch((problem) => toast({ title: problem.message, tone: 'bad' }))));
    return h('li', { class: 'card-box', test: 'address', 'data-id': saved.id },
      addressBlock(saved),
      h('p', { class: 'link-row' },
        h('button', { type: 'button', class: 'link', test: 'address-edit', 'aria-label': `Edit the address of ${saved.name}`, on: { click: () => edit(countries, saved) } }, 'Edit'),
        erase));
  };

  const renderList = (items, countries) => {
    const add = h('button', { type: 'button', class: 'button primary', test: 'address-add', on: { click: () => edit(countries, null) } }, 'Add an address');
    if (items.length === 0) replaceContent(content, emptyState('No addresses yet', 'Save where you want things delivered.', add));
    else replaceContent(content, h('ul', { class: 'address-list' }, items.map((saved) => renderAddress(saved, countries))), h('p', {}, add));
  };

  load();
  return { title: 'Addresses', element: h('div', { class: 'small-page' }, h('h1', {}, 'Addresses'), content) };
}
