// The fields of a postal address, as the chosen country writes it: labels, order, and which are required. Browsers can fill
// them.
// Does not contain: the formats of countries (the server has them), requests that save an address.

import { get } from './api.js';
import { h } from './dom.js';
import { field } from './forms.js';

let formats = null;

/** How addresses are written in each country, read once. */
export async function readCountries(signal) {
  formats ??= (await get('/countries', {}, signal)).items;
  return formats;
}

const names = new Intl.DisplayNames(document.documentElement.lang || 'en', { type: 'region' });

/** Name of a country in the page's language. */
export function countryName(code) {
  return names.of(code) ?? code;
}

/** The country of the browser's language, where it says one. */
function likelyCountry(codes) {
  const region = new Intl.Locale(navigator.language).maximize().region;
  return codes.includes(region) ? region : codes[0];
}

function capitalized(text) {
  return text.charAt(0).toUpperCase() + text.slice(1);
}

/** The fields of an address, for `form`. */
export function addressFields({ countries, address = {} }) {
  const offered = countries.map((one) => one.code).toSorted((a, b) => countryName(a).localeCompare(countryName(b)));
  const chosen = offered.includes(address.country) ? address.country : likelyCountry(offered);
  const text = (name, label, token, more = {}) => field({
    name, label, value: address[name] ?? '', autocomplete: `shipping ${token}`, maxlength: 200, test: `address-${name}`, ...more,
  });
  const name = text('name', 'Full name', 'name', { required: true });
  const company = text('company', 'Company (optional)', 'organization');
  const line1 = text('line1', 'Street and number', 'address-line1', { required: true });
  const line2 = text('line2', 'Floor, door (optional)', 'address-line2');
  const postalCode = text('postal_code', 'Postal code', 'postal-code', { maxlength: 40 });
  const city = text('city', 'City', 'address-level2');
  const region = text('region', 'Region', 'address-level1');
  const country = field({
    name: 'country', label: 'Country', options: offered.map((code) => [code, countryName(code)]), value: chosen, autocomplete: 'shipping country', required: true, test: 'address-country',
  });
  const phone = text('phone', 'Phone (optional)', 'tel', { type: 'tel', maxlength: 40, hint: 'For the carrier only.' });
  const vatId = text('vat_id', 'VAT number (optional)', 'off', { autocomplete: 'off', maxlength: 40, hint: 'For businesses.' });
  const place = h('div', { class: 'field-row' });

  const caption = (one, label) => { one.element.querySelector('label').textContent = label; };
  const adapt = () => {
    const format = countries.find((one) => one.code === country.value);
    postalCode.element.hidden = !format.postal_code;
    postalCode.input.required = format.postal_code_required;
    postalCode.input.placeholder = format.example ?? '';
    if (format.postal_code) postalCode.input.pattern = `\\s*(?:${format.postal_code})\\s*`;
    else postalCode.input.removeAttribute('pattern');
    caption(postalCode, format.postal_code_required ? 'Postal code' : 'Postal code (optional)');
    city.input.required = !format.city_optional;
    caption(city, format.city_optional ? 'City (optional)' : 'City');
    region.element.hidden = !format.region;
    region.input.required = format.region_required;
    caption(region, format.region_required ? capitalized(format.region) : `${capitalized(format.region ?? '')} (optional)`);
    place.replaceChildren(...(format.postal_code_first ? [postalCode.element, city.element] : [city.element, postalCode.element]), region.element);
  };
  country.input.addEventListener('change', adapt);
  adapt();

  const element = h('div', { class: 'form' }, [name, company, country, line1, line2].map((one) => one.element), place, [phone, vatId].map((one) => one.element));
  const fields = [name, company, country, line1, line2, postalCode, city, region, phone, vatId];
  return {
    /** All fields in one element, in their order. */
    element,
    fields,
    /** The address as it is in the fields now. */
    read: () => Object.fromEntries(fields.filter((one) => !one.element.hidden && one.value.trim()).map((one) => [one.name, one.value.trim()])),
  };
}

/** An address as lines of text. */
export function addressLines(address) {
  const town = [address.postal_code, address.city].filter(Boolean).join(' ');
  return [address.name, address.company, address.line1, address.line2, town, address.region, countryName(address.country)].filter(Boolean);
}

/** An address as an element. */
export function addressBlock(address, test) {
  return h('address', { class: 'postal', test }, addressLines(address).map((line) => h('span', {}, line)));
}
