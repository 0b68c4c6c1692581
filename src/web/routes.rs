//! The map: every path with its methods. What is asked most often stands first, because paths are tried in turn.

use std::sync::Arc;

use actix_web::dev::HttpServiceFactory;
use actix_web::guard::{self, Guard};
use actix_web::http::Method;
use actix_web::http::header;
use actix_web::web::{self, ServiceConfig};
use actix_web::{FromRequest, Handler, HttpRequest, HttpResponse, Resource, Responder, Route};

use super::asked::BASE;
use super::problem::Problem;
use super::{
    cart, catalog, comments, domains, health, images, mailer, metrics, notifications, payments, static_files, stats,
    users,
};

/// The paths of the storefront that its own script knows what to do with.
const SHOP: [&str; 12] = [
    "/",
    "/p/{id}",
    "/cart",
    "/checkout",
    "/orders",
    "/orders/{id}",
    "/account",
    "/signin",
    "/signup",
    "/forgot",
    "/reset",
    "/verify",
];

/// One path and what it does for each method. A method it has not is answered with those it has.
struct ResourceBuilder {
    resource: Resource,
    /// As figures name it.
    pattern: String,
    methods: Vec<&'static str>,
}

/// A path of the interface.
fn at(path: &str) -> ResourceBuilder {
    ResourceBuilder { resource: web::resource(path), pattern: format!("{BASE}{path}"), methods: Vec::new() }
}

/// A path beside the interface.
fn beside(path: &str) -> ResourceBuilder {
    ResourceBuilder { resource: web::resource(path), pattern: path.to_owned(), methods: Vec::new() }
}

impl ResourceBuilder {
    fn on<F, Args>(mut self, names: &[&'static str], guard: impl Guard + 'static, handler: F) -> Self
    where
        F: Handler<Args>,
        Args: FromRequest + 'static,
        F::Output: Responder + 'static,
    {
        self.resource = self.resource.route(Route::new().guard(guard).to(handler));
        self.methods.extend(names);
        self
    }
}

/// A function of [`ResourceBuilder`] for each method.
macro_rules! methods {
    ($($name:ident [$($word:literal),+] $guard:expr;)+) => {
        impl ResourceBuilder {$(
            fn $name<F, Args>(self, handler: F) -> Self
            where
                F: Handler<Args>,
                Args: FromRequest + 'static,
                F::Output: Responder + 'static,
            {
                self.on(&[$($word),+], $guard, handler)
            }
        )+}
    };
}

methods! {
    get ["GET", "HEAD"] guard::Any(guard::Get()).or(guard::Head());
    post ["POST"] guard::Post();
    put ["PUT"] guard::Put();
    patch ["PATCH"] guard::Patch();
    delete ["DELETE"] guard::Delete();
}

impl HttpServiceFactory for ResourceBuilder {
    fn register(mut self, config: &mut actix_web::dev::AppService) {
        self.methods.push("OPTIONS");
        let allow: Arc<str> = self.methods.join(", ").into();
        let other = move |request: HttpRequest| {
            let allow = Arc::clone(&allow);
            async move {
                match *request.method() {
                    Method::OPTIONS => Ok(HttpResponse::NoContent().insert_header((header::ALLOW, &*allow)).finish()),
                    _ => Err(Problem::method_not_allowed(allow)),
                }
            }
        };
        let figures = metrics::Route::of(&self.pattern, &self.methods);
        self.resource.app_data(figures).default_service(web::to(other)).register(config);
    }
}

/// Sets up all paths.
pub fn all(config: &mut ServiceConfig) {
    let api = web::scope(BASE)
        .service(
            at("/product/{id}").get(catalog::get).put(catalog::replace).patch(catalog::update).delete(catalog::delete),
        )
        .service(at("/products").get(catalog::list))
        .service(at("/user/{id}/cart").get(cart::get).post(cart::add))
        // Before the lines of a cart, which it would be taken for one of.
        .service(at("/user/{id}/cart/checkout").post(cart::checkout).delete(cart::cancel_checkout))
        .service(at("/user/{id}/cart/{item_id}").get(cart::get_item).put(cart::set_quantity).delete(cart::remove))
        .service(at("/product/{id}/images").get(images::list).post(images::add))
        .service(at("/product/{id}/images/{image_id}").get(images::get).delete(images::delete))
        .service(at("/product/{id}/comments").get(comments::list).post(comments::add))
        .service(at("/product/{id}/comments/{comment_id}").delete(comments::delete))
        .service(at("/product").post(catalog::create))
        .service(at("/me").get(users::me))
        .service(at("/invoices").get(payments::list).post(payments::create))
        .service(at("/invoices/{id}").get(payments::get))
        .service(at("/invoices/{id}/pay").post(payments::pay))
        .service(at("/invoices/{id}/refund").post(payments::refund))
        .service(at("/invoices/{id}/void").post(payments::void))
        .service(at("/webhooks/stripe").post(payments::stripe))
        .service(at("/notifications").get(notifications::list))
        .service(at("/ws").get(notifications::socket))
        .service(at("/events").get(notifications::events))
        .service(at("/notifications/{id}/read").post(notifications::mark_read))
        .service(at("/user").post(users::register))
        .service(at("/user/{id}").get(users::get).put(users::update).patch(users::update).delete(users::delete))
        .service(at("/users").get(users::list))
        .service(at("/guest").post(users::guest))
        .service(at("/signin").post(users::sign_in))
        .service(at("/signout").post(users::sign_out))
        .service(at("/password/forgot").post(users::forgot_password))
        .service(at("/password/reset").post(users::reset_password))
        .service(at("/email/verify").post(users::verify_email))
        .service(at("/api_keys").get(users::list_api_keys).post(users::create_api_key))
        .service(at("/api_keys/{id}").delete(users::delete_api_key))
        .service(at("/send_email").post(mailer::send))
        .service(at("/emails").get(mailer::list))
        .service(at("/emails/{id}").get(mailer::get))
        .service(at("/log").get(stats::actions).post(stats::log))
        .service(at("/stats/summary").get(stats::summary))
        .service(at("/counter").get(stats::counter))
        .service(at("/domains/{name}/move").post(domains::move_domain))
        .default_service(web::to(nothing));
    config.service(api);
    state(config);
    config
        .service(beside("/static/{path:.*}").get(static_files::file))
        .service(beside("/admin").get(static_files::admin))
        .service(beside("/admin/{path:.*}").get(static_files::admin));
    for path in SHOP.into_iter().chain(["/notifications"]) {
        config.service(beside(path).get(static_files::shop));
    }
    config.default_service(web::to(static_files::missing));
}

/// What a process without the gateway serves.
pub fn bare(config: &mut ServiceConfig) {
    state(config);
    config.default_service(web::to(nothing));
}

/// How the process is.
fn state(config: &mut ServiceConfig) {
    config
        .service(beside("/healthz").get(health::alive))
        .service(beside("/readyz").get(health::ready))
        .service(beside("/health").get(health::report))
        .service(beside("/metrics").get(metrics::show));
}

/// Nothing under the interface's base is a page, whatever a browser says it accepts.
async fn nothing() -> Result<HttpResponse, Problem> {
    Err(Problem::no_such_path())
}
