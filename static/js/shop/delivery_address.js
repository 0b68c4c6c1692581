// The delivery address of a checkout: asked for only if the customer wants to give one, with those of the address book to
// choose from.
// Does not contain: the fields of an address (address_fields.js), the order.

import { addressFields, addressLines, readCountries } from '../address_fields.js';
import { get } from '../api.js';
import { h } from '../dom.js';
import { field } from '../forms.js';
import { errorBox, loadingNote } from '../components.js';

/** A group of fields for `form`. `read()` is the address, or undefined without one. */
export function deliveryAddress({ user, signal }) {
  const wanted = field({ name: 'deliver', label: 'Add a delivery address', type: 'checkbox', test: 'checkout-deliver' });
  // Disabled while it is not wanted, so that the browser does not ask for its required fields.
  const place = h('fieldset', { class: 'form bare', hidden: true, disabled: true });
  let group = null;

  const show = async () => {
    place.hidden = place.disabled = !wanted.input.checked;
    if (place.hidden || group) return;
    place.replaceChildren(loadingNote());
    try {
      const [countries, saved] = await Promise.all([
        readCountries(signal),
        user ? get(`/user/${user.id}/addresses/`, { limit: 100 }, signal).then((page) => page.items) : [],
      ]);
      fill(countries, saved);
    } catch (problem) {
      if (!signal.aborted) place.replaceChildren(errorBox(problem, { retry: show }));
    }
  };

  const fill = (countries, saved) => {
    const rows = h('div', {});
    const use = (address) => {
      group = addressFields({ countries, address });
      rows.replaceChildren(group.element);
    };
    use(saved[0] ?? { name: user?.name });
    const options = [...saved.map((one) => [one.id, addressLines(one).join(', ')]), ['', 'Another address']];
    const choice = saved.length > 0 && field({ name: 'saved_address', label: 'From your address book', options, value: saved[0].id, test: 'checkout-saved-address' });
    if (choice) choice.input.addEventListener('change', () => use(saved.find((one) => one.id === choice.value) ?? { name: user.name }));
    place.replaceChildren(...(choice ? [choice.element] : []), rows);
  };

  wanted.input.addEventListener('change', show);
  const isGiven = () => wanted.input.checked && group !== null;
  return {
    element: h('div', { class: 'form' }, wanted.element, place),
    prefix: 'shipping_address',
    get fields() { return isGiven() ? group.fields : []; },
    read: () => (isGiven() ? group.read() : undefined),
  };
}
