//! A purchase in a real browser: Debian's Chromium, driven over WebDriver. Skipped, with a message, where it is
//! missing.

use std::net::TcpListener;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use fantoccini::{Client, ClientBuilder, Locator};
use serde_json::json;

use super::purchase::product;
use super::topology::TestEnvironment;

/// Limit for the page to show what is expected.
const WAIT_TIMEOUT: Duration = Duration::from_secs(60);

/// A chromedriver on a free port. Dropped, it ends with its browsers.
struct Driver {
    process: Child,
    port: u16,
}

impl Driver {
    fn start() -> Option<Self> {
        let found = |program: &str| Command::new(program).arg("--version").stdout(Stdio::null()).status().is_ok();
        if !found("chromedriver") || !found("chromium") {
            println!("skipped: chromium and chromedriver are not installed; scripts/test installs them on Debian");
            return None;
        }
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let process = Command::new("chromedriver")
            .arg(format!("--port={port}"))
            // A process group of its own, so that browsers end with it even when a test fails.
            .process_group(0)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Some(Self { process, port })
    }

    /// Opens a browser with a window of this width.
    async fn browser(&self, width: u32) -> Browser {
        let options = json!({"goog:chromeOptions": {"args": ["--headless=new", "--no-sandbox", "--disable-gpu",
        "--disable-dev-shm-usage", format!("--window-size={width},1000")]},
        });
        let serde_json::Value::Object(capabilities) = options else { unreachable!("an object above") };
        let url = format!("http://127.0.0.1:{}", self.port);
        for _ in 0..600 {
            let mut builder = ClientBuilder::new(hyper_util::client::legacy::connect::HttpConnector::new());
            if let Ok(client) = builder.capabilities(capabilities.clone()).connect(&url).await {
                return Browser(client);
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("the browser did not start")
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        let group = format!("-{}", self.process.id());
        let _ = Command::new("kill").args(["-KILL", "--", &group]).status();
        let _ = self.process.wait();
    }
}

/// A browser session; elements are addressed by their `data-test` attributes.
struct Browser(Client);

impl Browser {
    async fn open(&self, url: &str) {
        self.0.goto(url).await.unwrap();
    }

    /// Waits for an element and returns it.
    async fn element(&self, selector: &str) -> fantoccini::elements::Element {
        let wait = self.0.wait().at_most(WAIT_TIMEOUT).for_element(Locator::Css(selector));
        match wait.await {
            Ok(element) => element,
            Err(error) => panic!("{selector} is not on the page: {error}\n{}", self.text().await),
        }
    }

    /// Clicks an element; again if a live update has moved or replaced it meanwhile.
    async fn click(&self, selector: &str) {
        let begun = Instant::now();
        while let Err(error) = self.element(selector).await.click().await {
            assert!(begun.elapsed() < WAIT_TIMEOUT, "{selector} cannot be clicked: {error}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Replaces the text of a field; again if a live update has replaced the field meanwhile.
    async fn fill(&self, selector: &str, text: &str) {
        let begun = Instant::now();
        let try_fill = async || {
            let field = self.element(selector).await;
            field.clear().await?;
            field.send_keys(text).await
        };
        while let Err(error) = try_fill().await {
            assert!(begun.elapsed() < WAIT_TIMEOUT, "{selector} cannot be filled: {error}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Signs in as the administrator on a page that asks for it.
    async fn sign_in(&self, url: &str) {
        self.open(url).await;
        self.fill("[data-test=signin-email]", "boss@example.com").await;
        self.fill("[data-test=signin-password]", "correct horse battery").await;
        self.click("[data-test=signin-submit]").await;
    }

    /// Selects a test card by its token, in a list or among buttons.
    async fn choose_card(&self, token: &str) {
        let choice = format!("[data-test=card-select] [value={token}], [data-test=card-select][value={token}]");
        self.click(&choice).await;
    }

    async fn text(&self) -> String {
        match self.0.find(Locator::Css("body")).await {
            Ok(body) => body.text().await.unwrap_or_default(),
            Err(error) => error.to_string(),
        }
    }

    /// Waits until the element's text contains `expected`.
    async fn shows(&self, selector: &str, expected: &str) {
        let begun = Instant::now();
        while begun.elapsed() < WAIT_TIMEOUT {
            if let Ok(element) = self.0.find(Locator::Css(selector)).await
                && element.text().await.is_ok_and(|text| text.contains(expected))
            {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("{selector} does not show {expected:?}:\n{}", self.text().await)
    }
}

#[actix::test]
async fn purchase_in_browser_updates_back_office() {
    let Some(driver) = Driver::start() else { return };
    let environment = TestEnvironment::new().await;
    let shop = environment.open();
    let admin = environment.admin(&shop).await;
    let teapot = product(&admin, "TEA-1", 5).await;

    // The back office, in its own browser.
    let office = driver.browser(1280).await;
    office.sign_in(&format!("{}/admin", shop.url)).await;
    office.shows("[data-test=stat-orders]", "0").await;

    // The customer, on a phone.
    let phone = driver.browser(390).await;
    phone.open(&shop.url).await;
    phone.fill("[data-test=search]", "teap").await;
    phone.shows("[data-test=product-card]", "Teapot TEA-1").await;
    phone.open(&format!("{}/p/{teapot}", shop.url)).await;
    phone.shows("[data-test=stock]", "5").await;
    phone.click("[data-test=add-to-cart]").await;
    phone.shows("[data-test=cart-count]", "1").await;

    // Stock is live: another client's change shows without a reload.
    phone.element("[data-test=connection][data-state=live]").await;
    let changed =
        admin.try_send("PATCH", &format!("/product/{teapot}"), Some(json!({"stock": 3})), None).await.unwrap();
    changed.expect_status(200);
    phone.shows("[data-test=stock]", "3").await;

    // Checkout turns the guest into an account; a declined card is reported, a good one pays.
    phone.open(&format!("{}/checkout", shop.url)).await;
    phone.fill("[data-test=checkout-email]", "ada@example.com").await;
    phone.click("[data-test=checkout-make-account]").await;
    phone.fill("[data-test=checkout-name]", "Ada").await;
    phone.fill("[data-test=checkout-password]", "a fine password").await;
    phone.click("[data-test=checkout-button]").await;
    phone.element("[data-test=order-status][data-status=open]").await;
    phone.choose_card("tok_declined").await;
    phone.click("[data-test=pay-button]").await;
    phone.shows("[data-test=problem]", "declined").await;
    phone.choose_card("tok_ok").await;
    phone.click("[data-test=pay-button]").await;
    phone.element("[data-test=order-status][data-status=paid]").await;

    // The notification arrives live; orders, totals and e-mails show in the back office.
    phone.element("[data-test=toast]").await;
    phone.click("[data-test=bell]").await;
    phone.element("[data-test=notification][data-kind=invoice_paid]").await;
    office.shows("[data-test=stat-orders]", "1").await;
    office.open(&format!("{}/admin/orders", shop.url)).await;
    office.shows("[data-test=admin-order-status]", "aid").await;
    office.open(&format!("{}/admin/emails", shop.url)).await;
    office.shows("main", "ada@example.com").await;
    for browser in [phone, office] {
        browser.0.close().await.unwrap();
    }
    environment.assert_consistent();
}

#[actix::test]
async fn staff_sign_in_with_a_code_and_see_the_audit_log() {
    let Some(driver) = Driver::start() else { return };
    let environment = TestEnvironment::new().await;
    let shop = environment.open();
    let admin = environment.admin(&shop).await;
    let teapot = product(&admin, "TEA-1", 5).await;
    admin
        .try_send("PATCH", &format!("/product/{teapot}"), Some(json!({"stock": 3})), None)
        .await
        .unwrap()
        .expect_status(200);

    let browser = driver.browser(1280).await;
    let office = format!("{}/admin", shop.url);
    browser.sign_in(&office).await;
    browser.open(&format!("{}/admin/audit", shop.url)).await;
    browser.shows("[data-test=audit-entry]", "catalog.UpdateProduct").await;
    browser.shows("[data-test=audit-entry]", "stock: 5 → 3").await;
    browser.shows("[data-test=audit-entry]", "boss@example.com").await;

    browser.open(&format!("{}/account", shop.url)).await;
    browser.click("[data-test=totp-begin]").await;
    let secret = browser.element("[data-test=totp-secret]").await.text().await.unwrap();
    let totp = {
        let secret = totp_rs::Secret::try_from_base32(&secret).unwrap();
        totp_rs::Builder::new().with_secret(secret).build().unwrap()
    };
    browser.fill("[data-test=totp-code]", &totp.generate_current().to_string()).await;
    browser.click("[data-test=totp-confirm]").await;
    let recovery_code = browser.element("[data-test=recovery-codes] code").await.text().await.unwrap();
    browser.click("[data-test=totp-done]").await;
    browser.shows("body", "signing in takes a code").await;
    browser.click("[data-test=signout]").await;
    browser.element("[data-test=search]").await;

    browser.sign_in(&office).await;
    browser.shows("[data-test=problem]", "code of your authenticator app").await;
    browser.fill("[data-test=signin-code]", &recovery_code).await;
    browser.click("[data-test=signin-submit]").await;
    browser.shows("[data-test=stat-orders]", "0").await;
    browser.0.close().await.unwrap();
}

#[actix::test]
async fn address_book_is_filled_in_by_country() {
    let Some(driver) = Driver::start() else { return };
    let environment = TestEnvironment::new().await;
    let shop = environment.open();
    environment.admin(&shop).await;
    let browser = driver.browser(390).await;
    browser.sign_in(&format!("{}/signin", shop.url)).await;
    browser.click("[data-test=account-link]").await;
    browser.click("[data-test=addresses-link]").await;
    browser.click("[data-test=address-add]").await;
    browser.fill("[data-test=address-name]", "Ada Lovelace").await;
    browser.fill("[data-test=address-line1]", "1 rue de Rivoli").await;
    browser.click("[data-test=address-country] option[value=FR]").await;
    browser.fill("[data-test=address-city]", "Paris").await;
    browser.fill("[data-test=address-postal_code]", "750").await;
    browser.click("[data-test=address-save]").await;
    browser.element("[data-test=address-postal_code][aria-invalid]").await;
    browser.fill("[data-test=address-postal_code]", "75001").await;
    browser.click("[data-test=address-save]").await;
    browser.shows("[data-test=address]", "75001 Paris").await;
    browser.shows("[data-test=address]", "France").await;
    browser.click("[data-test=address-edit]").await;
    browser.fill("[data-test=address-line2]", "2e étage").await;
    browser.click("[data-test=address-save]").await;
    browser.shows("[data-test=address]", "2e étage").await;
    browser.click("[data-test=address-delete]").await;
    browser.click("[data-test=dialog-yes]").await;
    browser.shows("body", "No addresses yet").await;
    browser.0.close().await.unwrap();
}

#[actix::test]
async fn guest_gives_a_delivery_address_that_staff_see() {
    let Some(driver) = Driver::start() else { return };
    let environment = TestEnvironment::new().await;
    let shop = environment.open();
    let admin = environment.admin(&shop).await;
    let teapot = product(&admin, "TEA-1", 5).await;
    let browser = driver.browser(390).await;
    browser.open(&format!("{}/p/{teapot}", shop.url)).await;
    browser.click("[data-test=add-to-cart]").await;
    browser.shows("[data-test=cart-count]", "1").await;
    browser.open(&format!("{}/checkout", shop.url)).await;
    browser.fill("[data-test=checkout-email]", "guest@example.com").await;
    browser.click("[data-test=checkout-deliver]").await;
    browser.fill("[data-test=address-name]", "Ada Lovelace").await;
    browser.click("[data-test=address-country] option[value=FR]").await;
    browser.fill("[data-test=address-line1]", "1 rue de Rivoli").await;
    browser.fill("[data-test=address-city]", "Paris").await;
    browser.fill("[data-test=checkout-note]", "Ring twice").await;
    browser.click("[data-test=checkout-button]").await;
    browser.element("[data-test=address-postal_code][aria-invalid]").await;
    browser.fill("[data-test=address-postal_code]", "75001").await;
    browser.click("[data-test=checkout-button]").await;
    browser.shows("[data-test=order-shipping-address]", "75001 Paris").await;
    browser.shows("[data-test=order-note]", "Ring twice").await;
    let orders = admin.get("/invoices/").await.expect_status(200);
    let order = orders["items"][0]["id"].as_str().unwrap().to_owned();
    assert_eq!(orders["items"][0]["shipping_address"]["postal_code"], "75001");

    let office = driver.browser(1280).await;
    office.sign_in(&format!("{}/admin", shop.url)).await;
    office.element("[data-test=stat-orders]").await;
    office.open(&format!("{}/admin/orders/{order}", shop.url)).await;
    office.shows("[data-test=admin-order-shipping-address]", "France").await;
    office.shows("[data-test=admin-order-note]", "Ring twice").await;
    office.0.close().await.unwrap();
    browser.0.close().await.unwrap();
}

#[actix::test]
async fn product_form_sends_only_what_was_touched() {
    let Some(driver) = Driver::start() else { return };
    let environment = TestEnvironment::new().await;
    let shop = environment.open();
    let admin = environment.admin(&shop).await;
    // What a form of plain text would not give back.
    let body = json!({
        "name": "Care set", "sku": "CARE-1", "price": 499_050, "currency": "HUF", "stock": 10, "description": "One\r\nTwo",
        "tags": ["red, white and blue", "sale"], "options": { "Scale": "1:87" },
        "attributes": { "Care": "Wash at 30.\r\nDo not tumble: it shrinks", "Ratio 16:9": "yes", "Vegan": "" },
    });
    let created = admin.try_send("POST", "/product", Some(body), None).await.unwrap().expect_status(201);
    let path = format!("/product/{}", created["id"].as_str().unwrap());
    let browser = driver.browser(1280).await;
    browser.sign_in(&format!("{}/admin", shop.url)).await;
    browser.shows("[data-test=stat-orders]", "0").await;
    browser.open(&format!("{}/admin{}", shop.url, path.replace("/product/", "/products/"))).await;
    browser.fill("[data-test=product-price]", "4000").await;
    // Meanwhile something is sold or broken.
    let broken = json!({ "change": -3, "reason": "broken" });
    admin.try_send("POST", &format!("{path}/stock"), Some(broken), None).await.unwrap().expect_status(200);
    browser.shows("[data-test=live-stock]", "7").await;
    browser.click("[data-test=product-save]").await;
    browser.shows("[data-test=toast]", "Saved").await;
    let mut expected = created.clone();
    expected["price"] = json!(400_000);
    expected["stock"] = json!(7);
    let mut saved = admin.get(&path).await.expect_status(200);
    saved["updated_at"] = expected["updated_at"].clone();
    assert_eq!(saved, expected);

    browser.shows("[data-test=stock-figures]", "7").await;
    browser.fill("[data-test=stock-count]", "5").await;
    browser.click("[data-test=stock-save]").await;
    browser.shows("[data-test=live-stock]", "12").await;
    browser.0.close().await.unwrap();
}

#[actix::test]
async fn sign_in_in_one_tab_changes_the_other() {
    let Some(driver) = Driver::start() else { return };
    let environment = TestEnvironment::new().await;
    let shop = environment.open();
    for name in ["Ada", "Bob"] {
        let body = json!({ "name": name, "email": format!("{name}@example.com"), "password": "a fine password" });
        shop.client().post("/user/", body).await.expect_status(201);
    }
    let browser = driver.browser(1280).await;
    let sign_in = async |name: &str| {
        browser.open(&format!("{}/signin", shop.url)).await;
        browser.fill("[data-test=signin-email]", &format!("{name}@example.com")).await;
        browser.fill("[data-test=signin-password]", "a fine password").await;
        browser.click("[data-test=signin-submit]").await;
        browser.shows("[data-test=account-link]", name).await;
    };
    sign_in("Ada").await;
    browser.click("[data-test=bell]").await;
    browser.shows("[data-test=notification-list]", "Welcome, Ada!").await;
    browser.element("[data-test=connection][data-state=live]").await;
    let first = browser.0.window().await.unwrap();

    let second = browser.0.new_window(true).await.unwrap().handle;
    browser.0.switch_to_window(second.clone()).await.unwrap();
    browser.open(&shop.url).await;
    // What one tab has read is read in the other.
    browser.shows("[data-test=unread-count]", "1").await;
    browser.0.switch_to_window(first.clone()).await.unwrap();
    browser.click("[data-test=mark-read]").await;
    browser.0.switch_to_window(second.clone()).await.unwrap();
    browser.element("[data-test=unread-count][hidden]").await;

    browser.open(&format!("{}/account", shop.url)).await;
    browser.click("[data-test=signout]").await;
    sign_in("Bob").await;
    browser.0.switch_to_window(first).await.unwrap();
    browser.shows("[data-test=account-link]", "Bob").await;
    browser.click("[data-test=bell]").await;
    browser.shows("[data-test=notification-list]", "Welcome, Bob!").await;
    let page = browser.text().await;
    assert!(!page.contains("Ada"), "another user's notifications are on the page:\n{page}");
    browser.element("[data-test=connection][data-state=live]").await;
    browser.0.close().await.unwrap();
}

#[actix::test]
async fn back_shows_the_list_as_it_was() {
    let Some(driver) = Driver::start() else { return };
    let environment = TestEnvironment::new().await;
    let shop = environment.open();
    let admin = environment.admin(&shop).await;
    for n in 0..30 {
        let body = json!({ "name": format!("Bowl {n}"), "sku": format!("BOWL-{n}"), "price": 499_000, "currency": "HUF", "stock": 3 });
        admin.try_send("POST", "/product", Some(body), None).await.unwrap().expect_status(201);
    }
    let browser = driver.browser(1280).await;
    browser.open(&shop.url).await;
    browser.shows(".price-filter h2", "HUF").await;
    browser.click("[data-test=more]").await;
    browser.element("[data-test=product-card]:nth-of-type(30)").await;
    browser.click("[data-test=product-card] a").await;
    browser.element("[data-test=add-to-cart]").await;
    browser.0.back().await.unwrap();
    browser.element("[data-test=product-card]:nth-of-type(30)").await;
    browser.shows(".price-filter h2", "HUF").await;
    browser.0.close().await.unwrap();
}
