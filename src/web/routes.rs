//! Routes as data: [`ROUTES`] is the only list of the gateway's endpoints.
//!
//! The router, the `Allow` header, the labels of the metrics and the tests of rights, invalid bodies and idempotency are
//! derived from it. Resources that are requested most often stand first, because the router tries them in order.
//! Does not contain: the handlers, and rights, which are decided at the messages (the access here documents them, and a
//! test compares).

use std::any::type_name;
use std::fmt;
use std::sync::Arc;

use actix_web::dev::HttpServiceFactory;
use actix_web::guard::{self, Guard};
use actix_web::http::Method;
use actix_web::http::header;
use actix_web::web::{self, ServiceConfig, to};
use actix_web::{HttpRequest, HttpResponse, Resource, Route};
use serde::Serialize;

use super::body::ServerSetFields;
use super::names::API_BASE;
use super::problem::Problem;
use super::rate_limit::{LimitClass, ResourceLimits};
use super::{
    addresses, audit, cart, catalog, comments, domains, health, images, mailer, metrics, notifications, payments,
    static_files, stats, users,
};
use crate::contract::cart::{AddItem, CancelCheckout, Checkout, GetCart, GetItem, RemoveItem, SetQuantity};
use crate::contract::catalog::{
    AddImage, ChangeStock, CreateProduct, DeleteImage, DeleteProduct, GetImage, GetProduct, GetStock, ListImages,
    ListProducts, NewProduct, ProductPatch, ReplaceProduct, UpdateProduct,
};
use crate::contract::comments::{AddComment, DeleteComment, ListComments};
use crate::contract::mailer::{GetEmail, ListEmails, ResendEmail, SendEmail};
use crate::contract::notifications::{ListNotifications, MarkRead};
use crate::contract::payments::{
    CreateInvoice, GetInvoice, HandleProviderWebhook, ListInvoices, PayInvoice, RefundInvoice, VoidInvoice,
};
use crate::contract::placement::MoveDomain;
use crate::contract::stats::{GetServedRequests, GetSummary, ListActions, LogAction};
use crate::contract::users::{
    ConfirmTotp, CreateAddress, CreateApiKey, CreateGuest, DeleteAddress, DeleteApiKey, DeleteUser, DisableTotp,
    EnrollTotp, ForgotPassword, GetAddress, GetUser, ListAddresses, ListApiKeys, ListCountries, ListUsers, Register,
    ReplaceAddress, ResetPassword, SignIn, SignOut, UpdateUser, VerifyEmail,
};
use crate::messaging::{ListAuditEntries, Request, Role};
use crate::settings::DOMAIN_NAMES;
use crate::types::PostalAddress;

use Role::{Manager, ReadOnly, Support};
use RouteAccess::{InternalNetwork, Owner, OwnerOrStaff, SignedIn, Staff};

/// One endpoint: a method at a path.
pub struct RouteInfo {
    /// HTTP method. A `GET` route responds to `HEAD` too.
    pub method: &'static str,
    /// Path pattern relative to the base of its group.
    pub path: &'static str,
    /// Group of the route, which determines the base of the path.
    pub group: RouteGroup,
    /// Name of the message that the handler sends; none for pages, streams and health.
    pub message: Option<&'static str>,
    /// Whether the message changes nothing.
    pub is_read: bool,
    /// Callers that may use the route.
    pub access: RouteAccess,
    /// Body of the request.
    pub body: BodyInfo,
    /// Response to a request that succeeds.
    pub reply: ReplyInfo,
    /// Limit that the route counts against.
    pub limit: LimitClass,
    handler: fn() -> Route,
}

/// Group of routes with a common base path and a common purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RouteGroup {
    /// Under the base path of the API.
    Api,
    /// Health and metrics, served by every process.
    Operations,
    /// Storefront and back office.
    Page,
}

/// Callers that may use a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RouteAccess {
    /// Every caller.
    Anyone,
    /// Every caller with an account or a guest session. Of another user's resources nothing is visible.
    SignedIn,
    /// The user in the path.
    Owner,
    /// The user in the path, and staff with at least this role.
    OwnerOrStaff(Role),
    /// Staff with at least this role.
    Staff(Role),
    /// Callers from the shop's internal networks.
    InternalNetwork,
}

/// Body of a request.
#[derive(Debug, Clone, Copy)]
pub enum BodyInfo {
    /// None; a body that is sent is ignored.
    None,
    /// A JSON object.
    Json {
        /// Rust type of the body.
        type_name: fn() -> &'static str,
        /// Fields without which the body is rejected.
        required: &'static [&'static str],
        /// Whether the whole body may be left out.
        is_optional: bool,
    },
    /// A multipart form with a file.
    Multipart,
    /// Text in the provider's own format, authenticated by its signature.
    Signed,
}

/// Response to a request that succeeds.
#[derive(Debug, Clone, Copy)]
pub enum ReplyInfo {
    /// A JSON object.
    Json {
        /// Status code.
        status: u16,
        /// Rust type of the object.
        type_name: fn() -> &'static str,
    },
    /// 204 without a body.
    NoContent,
    /// Bytes of another media type, such as an image, a page or the metrics.
    Bytes,
    /// A live session over WebSocket or server-sent events.
    Stream,
}

impl RouteInfo {
    const fn new(group: RouteGroup, method: &'static str, path: &'static str, handler: fn() -> Route) -> Self {
        Self {
            method,
            path,
            group,
            message: None,
            is_read: false,
            access: RouteAccess::Anyone,
            body: BodyInfo::None,
            reply: ReplyInfo::Bytes,
            limit: match group {
                RouteGroup::Operations => LimitClass::Probe,
                RouteGroup::Api | RouteGroup::Page => LimitClass::Api,
            },
            handler,
        }
    }

    /// Names the message that the handler sends; its reply is the reply of the route, with status 200.
    const fn message<R: Request>(mut self) -> Self {
        self.message = Some(R::NAME);
        self.is_read = R::IS_READ;
        self.reply = ReplyInfo::Json { status: 200, type_name: type_name::<R::Reply> };
        self
    }

    /// Restricts the route to some callers. Without it every caller may use it.
    const fn access(mut self, access: RouteAccess) -> Self {
        self.access = access;
        self
    }

    /// Requires a JSON body of this type, with these fields.
    const fn body<T: ServerSetFields>(mut self, required: &'static [&'static str]) -> Self {
        self.body = BodyInfo::Json { type_name: type_name::<T>, required, is_optional: false };
        self
    }

    /// Accepts a JSON body of this type, or none.
    const fn optional_body<T: ServerSetFields>(mut self) -> Self {
        self.body = BodyInfo::Json { type_name: type_name::<T>, required: &[], is_optional: true };
        self
    }

    /// Requires a body that is not JSON.
    const fn raw_body(mut self, body: BodyInfo) -> Self {
        self.body = body;
        self
    }

    /// Sets the status of a JSON reply.
    const fn status(mut self, status: u16) -> Self {
        if let ReplyInfo::Json { type_name, .. } = self.reply {
            self.reply = ReplyInfo::Json { status, type_name };
        }
        self
    }

    /// Counts the route against a tighter limit than that of all requests.
    const fn limit(mut self, limit: LimitClass) -> Self {
        self.limit = limit;
        self
    }

    /// Replaces the reply of the message by another one.
    const fn reply(mut self, reply: ReplyInfo) -> Self {
        self.reply = reply;
        self
    }

    /// Path pattern as clients and metrics see it.
    #[must_use]
    pub fn pattern(&self) -> String {
        match self.group {
            RouteGroup::Api => format!("{API_BASE}{}", self.path),
            RouteGroup::Operations | RouteGroup::Page => self.path.to_owned(),
        }
    }

    /// Whether the route is the one for this method and this concrete path, relative to the base of its group. Of
    /// several routes in [`ROUTES`] the first one is meant.
    #[must_use]
    pub fn matches(&self, method: &str, path: &str) -> bool {
        let path = path.split('?').next().unwrap_or_default().trim_end_matches('/');
        let mut actual = path.split('/');
        let mut expected = self.path.trim_end_matches('/').split('/');
        let is_parameter = |segment: &str| segment.starts_with('{');
        let all_equal = loop {
            match (expected.next(), actual.next()) {
                (Some(segment), Some(_)) if segment.ends_with(":.*}") => return self.method == method,
                (Some(segment), Some(value)) if segment == value || (is_parameter(segment) && !value.is_empty()) => {}
                (expected, actual) => break expected.is_none() && actual.is_none(),
            }
        };
        self.method == method && all_equal
    }
}

impl RouteInfo {
    /// Returns the scope that an API key needs for the route; none if every key may use it.
    #[must_use]
    pub fn scope(&self) -> Option<String> {
        let domain = self.message.filter(|_| self.access != RouteAccess::Anyone)?.split('.').next()?;
        let mode = if self.is_read { "read" } else { "write" };
        // Placement and the audit log are no domains.
        Some(if DOMAIN_NAMES.contains(&domain) { format!("{domain}:{mode}") } else { "*".to_owned() })
    }
}

impl fmt::Debug for RouteInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.method, self.pattern())
    }
}

impl RouteAccess {
    /// Name for documentation.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Anyone => "anyone",
            Self::SignedIn => "signed in",
            Self::Owner => "owner",
            Self::OwnerOrStaff(role) => match role {
                ReadOnly => "owner or read_only",
                Support => "owner or support",
                Manager => "owner or manager",
                _ => "owner or admin",
            },
            Self::Staff(role) => role.as_str(),
            Self::InternalNetwork => "internal network",
        }
    }
}

const fn get(path: &'static str, handler: fn() -> Route) -> RouteInfo {
    RouteInfo::new(RouteGroup::Api, "GET", path, handler)
}

const fn post(path: &'static str, handler: fn() -> Route) -> RouteInfo {
    RouteInfo::new(RouteGroup::Api, "POST", path, handler)
}

const fn put(path: &'static str, handler: fn() -> Route) -> RouteInfo {
    RouteInfo::new(RouteGroup::Api, "PUT", path, handler)
}

const fn patch(path: &'static str, handler: fn() -> Route) -> RouteInfo {
    RouteInfo::new(RouteGroup::Api, "PATCH", path, handler)
}

const fn delete(path: &'static str, handler: fn() -> Route) -> RouteInfo {
    RouteInfo::new(RouteGroup::Api, "DELETE", path, handler)
}

const fn operations(path: &'static str, handler: fn() -> Route) -> RouteInfo {
    RouteInfo::new(RouteGroup::Operations, "GET", path, handler)
}

const fn storefront(path: &'static str) -> RouteInfo {
    RouteInfo::new(RouteGroup::Page, "GET", path, || to(static_files::storefront))
}

const fn page(path: &'static str, handler: fn() -> Route) -> RouteInfo {
    RouteInfo::new(RouteGroup::Page, "GET", path, handler)
}

const fn json<T: Serialize>(status: u16) -> ReplyInfo {
    ReplyInfo::Json { status, type_name: type_name::<T> }
}

const NO_CONTENT: ReplyInfo = ReplyInfo::NoContent;

/// Acknowledgement of a request whose effect comes later: `{"status": "accepted"}`.
const ACKNOWLEDGED: ReplyInfo = json::<serde_json::Value>(202);

/// Fields without which a product is not created or replaced.
const PRODUCT_FIELDS: &[&str] = &["name", "sku", "price", "currency", "stock"];

/// Fields without which an address is not saved; its country may ask for more.
const ADDRESS_FIELDS: &[&str] = &["name", "line1", "country"];

/// All endpoints. Of one group, the routes of a path stand together, and a fixed path stands before a pattern that
/// would match it too.
#[rustfmt::skip]
pub static ROUTES: &[RouteInfo] = &[
    get("/product/{id}", || to(catalog::get)).message::<GetProduct>(),
    put("/product/{id}", || to(catalog::replace)).message::<ReplaceProduct>().access(Staff(Manager))
        .body::<NewProduct>(PRODUCT_FIELDS),
    patch("/product/{id}", || to(catalog::update)).message::<UpdateProduct>().access(Staff(Manager)).body::<ProductPatch>(&[]),
    delete("/product/{id}", || to(catalog::delete)).message::<DeleteProduct>().access(Staff(Manager)).reply(NO_CONTENT),
    get("/product/{id}/stock", || to(catalog::stock)).message::<GetStock>().access(Staff(ReadOnly)),
    post("/product/{id}/stock", || to(catalog::change_stock)).message::<ChangeStock>().access(Staff(Manager))
        .body::<catalog::ChangeStockBody>(&[]),
    get("/products", || to(catalog::list)).message::<ListProducts>(),
    get("/user/{id}/cart", || to(cart::get)).message::<GetCart>().access(Owner),
    post("/user/{id}/cart", || to(cart::add)).message::<AddItem>().access(Owner)
        .body::<cart::AddItemBody>(&["product_id", "quantity"]).status(201),
    post("/user/{id}/cart/checkout", || to(cart::checkout)).message::<Checkout>().access(Owner)
        .optional_body::<cart::CheckoutBody>().status(201),
    delete("/user/{id}/cart/checkout", || to(cart::cancel_checkout)).message::<CancelCheckout>().access(Owner)
        .reply(NO_CONTENT),
    get("/user/{id}/cart/{item_id}", || to(cart::get_item)).message::<GetItem>().access(Owner),
    put("/user/{id}/cart/{item_id}", || to(cart::set_quantity)).message::<SetQuantity>().access(Owner)
        .body::<cart::SetQuantityBody>(&["quantity"]),
    delete("/user/{id}/cart/{item_id}", || to(cart::remove)).message::<RemoveItem>().access(Owner).reply(NO_CONTENT),
    get("/product/{id}/images", || to(images::list)).message::<ListImages>(),
    post("/product/{id}/images", || to(images::add)).message::<AddImage>().access(Staff(Manager))
        .raw_body(BodyInfo::Multipart).status(201),
    get("/product/{id}/images/{image_id}", || to(images::get)).message::<GetImage>().reply(ReplyInfo::Bytes),
    delete("/product/{id}/images/{image_id}", || to(images::delete)).message::<DeleteImage>().access(Staff(Manager))
        .reply(NO_CONTENT),
    get("/product/{id}/comments", || to(comments::list)).message::<ListComments>(),
    post("/product/{id}/comments", || to(comments::add)).message::<AddComment>().access(SignedIn)
        .body::<comments::AddCommentBody>(&["rating"]).status(201),
    delete("/product/{id}/comments/{comment_id}", || to(comments::delete)).message::<DeleteComment>().access(SignedIn)
        .reply(NO_CONTENT),
    post("/product", || to(catalog::create)).message::<CreateProduct>().access(Staff(Manager))
        .body::<NewProduct>(PRODUCT_FIELDS).status(201),
    get("/me", || to(users::me)).message::<GetUser>().access(SignedIn),
    get("/session", || to(users::session)).message::<GetUser>().reply(json::<users::SessionUser>(200)),
    get("/invoices", || to(payments::list)).message::<ListInvoices>().access(SignedIn),
    post("/invoices", || to(payments::create)).message::<CreateInvoice>().access(Staff(Manager))
        .body::<payments::CreateInvoiceBody>(&["user_id", "lines", "currency"]).status(201),
    get("/invoices/{id}", || to(payments::get)).message::<GetInvoice>().access(SignedIn),
    post("/invoices/{id}/pay", || to(payments::pay)).message::<PayInvoice>().access(SignedIn)
        .body::<payments::PayBody>(&["token"]),
    post("/invoices/{id}/refund", || to(payments::refund)).message::<RefundInvoice>().access(Staff(Manager))
        .optional_body::<payments::RefundBody>(),
    post("/invoices/{id}/void", || to(payments::void)).message::<VoidInvoice>().access(Staff(Manager)),
    post("/webhooks/stripe", || to(payments::stripe_webhook)).message::<HandleProviderWebhook>()
        .raw_body(BodyInfo::Signed).reply(json::<serde_json::Value>(200)),
    get("/notifications", || to(notifications::list)).message::<ListNotifications>().access(SignedIn),
    get("/ws", || to(notifications::websocket)).reply(ReplyInfo::Stream),
    get("/events", || to(notifications::sse)).reply(ReplyInfo::Stream),
    post("/notifications/{id}/read", || to(notifications::mark_read)).message::<MarkRead>().access(SignedIn)
        .reply(NO_CONTENT),
    post("/user", || to(users::register)).message::<Register>().body::<Register>(&["email", "password", "name"])
        .status(201).limit(LimitClass::Registration),
    get("/user/{id}", || to(users::get)).message::<GetUser>().access(OwnerOrStaff(ReadOnly)),
    put("/user/{id}", || to(users::update)).message::<UpdateUser>().access(OwnerOrStaff(Manager))
        .body::<users::UpdateUserBody>(&[]),
    patch("/user/{id}", || to(users::update)).message::<UpdateUser>().access(OwnerOrStaff(Manager))
        .body::<users::UpdateUserBody>(&[]),
    delete("/user/{id}", || to(users::delete)).message::<DeleteUser>().access(OwnerOrStaff(Manager)).reply(NO_CONTENT),
    post("/user/{id}/totp", || to(users::enroll_totp)).message::<EnrollTotp>().access(Owner),
    delete("/user/{id}/totp", || to(users::disable_totp)).message::<DisableTotp>().access(OwnerOrStaff(Role::Admin))
        .optional_body::<users::OptionalCodeBody>().reply(NO_CONTENT).limit(LimitClass::SignIn),
    post("/user/{id}/totp/confirm", || to(users::confirm_totp)).message::<ConfirmTotp>().access(Owner)
        .body::<users::CodeBody>(&["code"]).limit(LimitClass::SignIn),
    get("/user/{id}/addresses", || to(addresses::list)).message::<ListAddresses>().access(Owner),
    post("/user/{id}/addresses", || to(addresses::create)).message::<CreateAddress>().access(Owner)
        .body::<PostalAddress>(ADDRESS_FIELDS).status(201),
    get("/user/{id}/addresses/{address_id}", || to(addresses::get)).message::<GetAddress>().access(Owner),
    put("/user/{id}/addresses/{address_id}", || to(addresses::replace)).message::<ReplaceAddress>().access(Owner)
        .body::<PostalAddress>(ADDRESS_FIELDS),
    delete("/user/{id}/addresses/{address_id}", || to(addresses::delete)).message::<DeleteAddress>().access(Owner)
        .reply(NO_CONTENT),
    get("/countries", || to(addresses::countries)).message::<ListCountries>(),
    get("/users", || to(users::list)).message::<ListUsers>().access(Staff(ReadOnly)),
    post("/guest", || to(users::guest)).message::<CreateGuest>().status(201).limit(LimitClass::Guest),
    post("/signin", || to(users::sign_in)).message::<SignIn>().body::<SignIn>(&["email", "password"])
        .reply(json::<users::SignInReply<'static>>(200))        .limit(LimitClass::SignIn),
    post("/signout", || to(users::sign_out)).message::<SignOut>().access(SignedIn).reply(NO_CONTENT),
    post("/password/forgot", || to(users::forgot_password)).message::<ForgotPassword>()
        .body::<ForgotPassword>(&["email"]).reply(ACKNOWLEDGED).limit(LimitClass::Password),
    post("/password/reset", || to(users::reset_password)).message::<ResetPassword>()
        .body::<ResetPassword>(&["token", "password"]).reply(NO_CONTENT).limit(LimitClass::Password),
    post("/email/verify", || to(users::verify_email)).message::<VerifyEmail>().body::<VerifyEmail>(&["token"])
        .reply(NO_CONTENT).limit(LimitClass::Email),
    get("/audit", || to(audit::list)).message::<ListAuditEntries>().access(Staff(Role::Admin)),
    get("/api_keys", || to(users::list_api_keys)).message::<ListApiKeys>().access(SignedIn),
    post("/api_keys", || to(users::create_api_key)).message::<CreateApiKey>().access(SignedIn)
        .body::<CreateApiKey>(&["name"]).status(201),
    delete("/api_keys/{id}", || to(users::delete_api_key)).message::<DeleteApiKey>().access(SignedIn)
        .reply(NO_CONTENT),
    post("/send_email", || to(mailer::send)).message::<SendEmail>().access(Staff(Support))
        .body::<SendEmail>(&["to", "subject", "text"]).status(202).limit(LimitClass::Email),
    get("/emails", || to(mailer::list)).message::<ListEmails>().access(Staff(Support)),
    get("/emails/{id}", || to(mailer::get)).message::<GetEmail>().access(Staff(Support)),
    post("/emails/{id}/resend", || to(mailer::resend)).message::<ResendEmail>().access(Staff(Support)).status(202),
    get("/log", || to(stats::actions)).message::<ListActions>().access(InternalNetwork),
    post("/log", || to(stats::log)).message::<LogAction>().body::<LogAction>(&["action"]).reply(ACKNOWLEDGED)
        .limit(LimitClass::Log),
    get("/stats/summary", || to(stats::summary)).message::<GetSummary>().access(Staff(ReadOnly)),
    get("/counter", || to(stats::counter)).message::<GetServedRequests>().reply(json::<serde_json::Value>(200)),
    post("/domains/{name}/move", || to(domains::move_domain)).message::<MoveDomain>().access(Staff(Role::Admin))
        .body::<domains::MoveDomainBody>(&["to"]),
    operations("/healthz", || to(health::healthz)).reply(json::<serde_json::Value>(200)),
    operations("/readyz", || to(health::readyz)).reply(json::<serde_json::Value>(200)),
    operations("/health", || to(health::health)).reply(json::<health::HealthReport>(200)),
    operations("/metrics", || to(metrics::metrics)).access(InternalNetwork),
    page("/static/{path:.*}", || to(static_files::file)),
    page("/admin", || to(static_files::admin)),
    page("/admin/{path:.*}", || to(static_files::admin)),
    storefront("/"),
    storefront("/p/{id}"),
    storefront("/cart"),
    storefront("/checkout"),
    storefront("/orders"),
    storefront("/orders/{id}"),
    storefront("/account"),
    storefront("/addresses"),
    storefront("/signin"),
    storefront("/signup"),
    storefront("/forgot"),
    storefront("/reset"),
    storefront("/verify"),
    storefront("/notifications"),
];

/// The routes of one path. Another method than theirs is rejected with 405 and `Allow`.
struct PathRoutes {
    resource: Resource,
    pattern: String,
    methods: Vec<&'static str>,
    limits: Vec<(&'static str, LimitClass)>,
    is_public_read: bool,
}

/// Application data of a path: whether every caller may read it.
pub struct PublicRead(pub bool);

impl PathRoutes {
    fn new(route: &RouteInfo) -> Self {
        Self {
            resource: web::resource(route.path),
            pattern: route.pattern(),
            methods: Vec::new(),
            limits: Vec::new(),
            is_public_read: false,
        }
    }

    fn add(mut self, route: &RouteInfo) -> Self {
        self.methods.push(route.method);
        self.limits.push((route.method, route.limit));
        if route.method == "GET" {
            self.methods.push("HEAD");
            self.is_public_read = route.access == RouteAccess::Anyone;
        }
        self.resource = self.resource.route((route.handler)().guard(MethodGuard(route.method)));
        self
    }
}

/// Matches requests of a route's method; `HEAD` as `GET`.
struct MethodGuard(&'static str);

impl Guard for MethodGuard {
    fn check(&self, ctx: &guard::GuardContext<'_>) -> bool {
        let method = ctx.head().method.as_str();
        method == self.0 || (method == "HEAD" && self.0 == "GET")
    }
}

impl HttpServiceFactory for PathRoutes {
    fn register(mut self, config: &mut actix_web::dev::AppService) {
        self.methods.push("OPTIONS");
        let allow: Arc<str> = self.methods.join(", ").into();
        let other_methods = move |request: HttpRequest| {
            let allow = Arc::clone(&allow);
            async move {
                match *request.method() {
                    Method::OPTIONS => Ok(HttpResponse::NoContent().insert_header((header::ALLOW, &*allow)).finish()),
                    _ => Err(Problem::method_not_allowed(allow)),
                }
            }
        };
        let metrics = metrics::ResourceMetrics::of(&self.pattern, &self.methods);
        let limits = ResourceLimits::new(self.limits);
        self.resource
            .app_data(metrics)
            .app_data(limits)
            .app_data(PublicRead(self.is_public_read))
            .default_service(to(other_methods))
            .register(config);
    }
}

/// The routes of a group by path, in the order of [`ROUTES`].
fn paths(group: RouteGroup) -> impl Iterator<Item = PathRoutes> {
    let routes: Vec<&RouteInfo> = ROUTES.iter().filter(|route| route.group == group).collect();
    let by_path = routes.chunk_by(|a, b| a.path == b.path).map(|routes| {
        let first = routes.first().map(|first| PathRoutes::new(first));
        first.map(|first| routes.iter().fold(first, |path, route| path.add(route)))
    });
    by_path.flatten().collect::<Vec<_>>().into_iter()
}

/// Configures all routes.
pub fn configure(config: &mut ServiceConfig) {
    let api = paths(RouteGroup::Api).fold(web::scope(API_BASE), |scope, path| scope.service(path));
    config.service(api.default_service(to(api_not_found)));
    for path in paths(RouteGroup::Operations).chain(paths(RouteGroup::Page)) {
        config.service(path);
    }
    config.default_service(to(static_files::not_found));
}

/// Configures the routes of a process without the gateway.
pub fn configure_health_only(config: &mut ServiceConfig) {
    for path in paths(RouteGroup::Operations) {
        config.service(path);
    }
    config.default_service(to(api_not_found));
}

/// Responds to unknown paths under the base of the API: always a problem, even for browsers.
async fn api_not_found() -> Result<HttpResponse, Problem> {
    Err(Problem::not_found())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_of_one_path_stand_together() {
        let mut seen = Vec::new();
        for route in ROUTES {
            let path = route.pattern();
            let is_new = seen.last() != Some(&path);
            assert!(!is_new || !seen.contains(&path), "{route:?} is not beside the other routes of its path");
            assert!(
                !ROUTES.iter().any(|other| !std::ptr::eq(route, other) && format!("{other:?}") == format!("{route:?}"))
            );
            seen.push(path);
        }
    }

    #[test]
    fn route_matches_its_own_path_first() {
        for route in ROUTES {
            let path = route.path.replace("{path:.*}", "css/base.css").replace(['{', '}'], "x");
            let first = ROUTES.iter().find(|other| other.group == route.group && other.matches(route.method, &path));
            assert!(first.is_some_and(|first| std::ptr::eq(first, route)), "{route:?} is shadowed by {first:?}");
        }
    }

    #[test]
    fn every_message_is_documented_with_its_reply() {
        for route in ROUTES.iter().filter(|route| route.group == RouteGroup::Api) {
            let is_stream = matches!(route.reply, ReplyInfo::Stream);
            assert_eq!(route.message.is_none(), is_stream, "{route:?}");
            if let ReplyInfo::Json { status, type_name } = route.reply {
                assert!((200..300).contains(&status), "{route:?}");
                assert_ne!(type_name(), "()", "{route:?} replies with a body, so name its type");
            }
        }
    }
}
