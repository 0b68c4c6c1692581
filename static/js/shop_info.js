// What the settings say of the shop, as the server has written it into the page.

const { shop, testCards } = document.documentElement.dataset;

/** The shop's name. */
export const SHOP_NAME = shop;

/** Whether the built-in test provider takes the payments, which knows test cards only. */
export const TAKES_TEST_CARDS = testCards === 'true';
