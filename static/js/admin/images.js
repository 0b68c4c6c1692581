// The images of a product: shown, added by choosing or dropping files, deleted.
// Does not contain: resizing (the server does it), other fields of the product.

import { get, request } from '../api.js';
import { confirmDialog } from '../dialog.js';
import { h, replaceContent } from '../dom.js';
import { iconButton, productImage, errorBox } from '../components.js';

const KINDS = 'image/jpeg,image/png,image/webp';

export function imageEditor(product, signal) {
  const path = `/product/${product.id}/images/`;
  const list = h('ul', { class: 'pictures', test: 'product-pictures' });
  const note = h('p', { class: 'small muted', role: 'status' });
  const errorArea = h('div', { class: 'form-trouble' });

  const render = (images) => replaceContent(list, images.map((image, index) => h('li', {},
    productImage(image, product.name, { sizes: '8rem', alt: image.alt }),
    iconButton('close', `Delete picture ${index + 1}`, { test: 'picture-delete', on: { click: () => remove(image, index) } }))));

  const change = async (work) => {
    errorArea.replaceChildren();
    try {
      await work();
    } catch (problem) {
      errorArea.replaceChildren(errorBox(problem));
    }
    note.textContent = '';
    const now = await get(`/product/${product.id}`, {}, signal).catch(() => null); // unreachable: what is shown stays
    if (now) render(now.images);
  };

  const remove = async (image, index) => {
    const title = `Delete picture ${index + 1}?`;
    if (!await confirmDialog({ title, text: 'It cannot be brought back; you would have to add the file again.', confirmLabel: 'Delete' })) return;
    await change(() => request('DELETE', path + image.id));
  };

  const upload = (files) => change(async () => {
    for (const [index, file] of [...files].entries()) {
      note.textContent = `Uploading ${index + 1} of ${files.length}…`;
      const body = new FormData();
      body.append('file', file);
      await request('POST', path, { body });
    }
  });

  const input = h('input', { type: 'file', accept: KINDS, multiple: true, id: 'picture-file', class: 'visually-hidden', test: 'picture-file' });
  input.addEventListener('change', async () => {
    await upload(input.files);
    input.value = '';
  });
  const drop = h('label', { class: 'drop', for: 'picture-file' }, h('strong', {}, 'Add pictures'), h('span', { class: 'small muted' }, 'JPEG, PNG or WebP; choose or drop them here'));
  drop.addEventListener('dragover', (event) => event.preventDefault());
  drop.addEventListener('drop', (event) => {
    event.preventDefault();
    upload(event.dataTransfer.files);
  });

  render(product.images);
  return h('section', { class: 'sheet padded pictures-box', 'aria-label': 'Pictures' }, h('h2', {}, 'Pictures'), list, input, drop, note, errorArea);
}
