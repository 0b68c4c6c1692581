//! Typed gRPC services for programs in other languages (`proto/users.proto`, `catalog.proto`, `payments.proto`).
//!
//! Contains: the translation between protobuf and messages. Callers are authenticated as over HTTP (`web::auth`), and
//! rights are decided at the same messages. Does not contain: the calls between the processes of a shop
//! (`messaging::grpc`).

use std::sync::Arc;

use actix::{Actor, Context, Handler};
use serde::Serialize;
use tonic::metadata::{BinaryMetadataValue, MetadataMap};
use tonic::service::RoutesBuilder;
use tonic::transport::server::{TcpConnectInfo, TlsConnectInfo};
use tonic::{Code, Extensions, Request, Response, Status};

use super::auth;
use super::client_ip::{ClientAddress, FORWARDED, X_FORWARDED_FOR};
use super::rate_limit::{LimitClass, RateLimits};
use super::request_meta::request_id;
use crate::app::{App, Clients};
use crate::contract::catalog;
use crate::contract::catalog::{ListProducts, ProductPage, ProductQuery};
use crate::contract::payments;
use crate::contract::payments::PaymentsError;
use crate::contract::users;
use crate::contract::users::UsersError;
use crate::messaging::grpc::proto::catalog_service_server::{CatalogService, CatalogServiceServer};
use crate::messaging::grpc::proto::payment_service_server::{PaymentService, PaymentServiceServer};
use crate::messaging::grpc::proto::user_service_server::{UserService, UserServiceServer};
use crate::messaging::grpc::proto::{
    CreateUserRequest, GetInvoiceRequest, GetProductRequest, GetUserRequest, Image, Invoice, InvoiceLine,
    ListProductsReply, ListProductsRequest, Product, User, Variant,
};
use crate::messaging::grpc::{DESCRIPTORS, parse_timeout};
use crate::messaging::{
    self, Client, CommonError, DomainError, Envelope, ErrorKind, HealthStatus, IdempotencyKey, RequestContext, trace,
};
use crate::settings::Settings;
use crate::types::PageRequest;

/// Adds the typed services of the domains that this process can call, and the reflection service, by which clients
/// discover them.
///
/// # Errors
/// When the embedded descriptors cannot be decoded.
pub fn add(app: &App, to: &mut RoutesBuilder) -> Result<(), tonic_reflection::server::Error> {
    let services = Arc::new(TypedServices {
        clients: app.clients.clone(),
        settings: Arc::clone(app.settings()),
        limits: RateLimits::new(&app.settings().limits, app.clock()),
    });
    let is_enabled = |health: messaging::Health| health.status != HealthStatus::Off;
    let mut names = vec!["grpc.health.v1.Health", "mercat.v1.Domains"];
    if is_enabled(app.clients.users.health()) {
        to.add_service(UserServiceServer::from_arc(Arc::clone(&services)));
        names.push("mercat.v1.UserService");
    }
    if is_enabled(app.clients.catalog.health()) {
        to.add_service(CatalogServiceServer::from_arc(Arc::clone(&services)));
        names.push("mercat.v1.CatalogService");
    }
    if is_enabled(app.clients.payments.health()) {
        to.add_service(PaymentServiceServer::from_arc(services));
        names.push("mercat.v1.PaymentService");
    }
    let reflection = || {
        let builder = tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET);
        names.iter().fold(builder, |builder, name| builder.with_service_name(*name))
    };
    to.add_service(reflection().build_v1()?);
    // Many clients still use the older version.
    to.add_service(reflection().build_v1alpha()?);
    Ok(())
}

/// Implementation of all typed services.
struct TypedServices {
    clients: Clients,
    settings: Arc<Settings>,
    /// Rates of these services, counted apart from those of HTTP unless Redis counts both.
    limits: RateLimits,
}

impl TypedServices {
    /// Context of a call with its authenticated caller.
    async fn context(
        &self,
        metadata: &MetadataMap,
        extensions: &Extensions,
        class: LimitClass,
    ) -> Result<RequestContext, Status> {
        let text = |name: &str| metadata.get(name).and_then(|value| value.to_str().ok());
        let plain = || extensions.get::<TcpConnectInfo>();
        let tls = extensions.get::<TlsConnectInfo<TcpConnectInfo>>().map(TlsConnectInfo::get_ref);
        let peer = tls.or_else(plain).and_then(TcpConnectInfo::remote_addr);
        let values = |name| metadata.get_all(name).into_iter().map(|value| value.as_encoded_bytes());
        let peer = peer.map(|address| address.ip());
        let address = ClientAddress::new(peer, values(FORWARDED), values(X_FORWARDED_FOR), &self.settings);
        let limited = |limit| status(&CommonError::from(limit));
        self.limits.check_address(class, &address).await.map_err(limited)?;
        let request_id = request_id(text("x-request-id"));
        let network = address.network();
        let mut ctx =
            RequestContext::new(address.into_anonymous_caller(), request_id).with_timeout(parse_timeout(metadata));
        ctx.network = Some(network);
        ctx.trace = text("traceparent").and_then(trace::parse);
        if let Some(value) = metadata.get("authorization") {
            let token = auth::bearer_token(value.as_encoded_bytes()).map_err(|error| status(&error))?;
            let authenticated = auth::authenticate(&self.clients.users, &ctx, token).await;
            let authenticated = authenticated.map_err(|error| status(&error))?;
            let subject = (&authenticated.identity).into();
            self.limits.check(LimitClass::Api, subject).await.map_err(limited)?;
            auth::set_caller(&mut ctx, &authenticated);
        }
        if let Some(key) = metadata.get("idempotency-key") {
            let key = IdempotencyKey::parse(key.to_str().unwrap_or_default());
            let invalid = |error| Status::invalid_argument(format!("the idempotency-key {error}"));
            ctx.key = Some(key.map_err(invalid)?);
        }
        Ok(ctx)
    }

    /// Calls a domain on behalf of the caller.
    async fn call<A, T, R>(
        &self,
        client: &Client<A>,
        request: Request<T>,
        class: LimitClass,
        message: impl FnOnce(T) -> Result<R, R::Error>,
    ) -> Result<R::Reply, Status>
    where
        A: Actor<Context = Context<A>> + Handler<Envelope<R>>,
        R: messaging::Request,
    {
        let (metadata, extensions, request) = request.into_parts();
        let ctx = self.context(&metadata, &extensions, class).await?;
        let message = message(request).map_err(|error| status(&error))?;
        client.call(ctx, message).await.map_err(|error| status(&error))
    }
}

/// Maps every domain's error to gRPC: the status code by its kind, its text as the message, and the code and the whole
/// JSON form for programs in `mercat-code` and `mercat-error-bin`.
fn status<E: DomainError>(error: &E) -> Status {
    let code = match error.kind() {
        ErrorKind::Malformed | ErrorKind::Invalid | ErrorKind::TooLarge | ErrorKind::UnsupportedMedia => {
            Code::InvalidArgument
        }
        ErrorKind::Unauthenticated => Code::Unauthenticated,
        ErrorKind::Forbidden => Code::PermissionDenied,
        ErrorKind::NotFound => Code::NotFound,
        ErrorKind::PaymentRequired | ErrorKind::Conflict | ErrorKind::PreconditionFailed => Code::FailedPrecondition,
        ErrorKind::TooManyRequests => Code::ResourceExhausted,
        ErrorKind::Internal => Code::Internal,
        ErrorKind::Upstream | ErrorKind::Unavailable => Code::Unavailable,
        ErrorKind::DeadlineExceeded => Code::DeadlineExceeded,
    };
    let mut metadata = MetadataMap::new();
    if let Ok(json) = serde_json::to_value(error) {
        if let Some(code) = json["code"].as_str().and_then(|code| code.parse().ok()) {
            metadata.insert("mercat-code", code);
        }
        metadata.insert_bin("mercat-error-bin", BinaryMetadataValue::from_bytes(json.to_string().as_bytes()));
    }
    Status::with_metadata(code, error.to_string(), metadata)
}

/// Text that a value is in JSON, such as an enum's name.
fn json_text(value: &impl Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(name)) => name,
        _ => String::new(),
    }
}

#[tonic::async_trait]
impl UserService for TypedServices {
    async fn get_user(&self, request: Request<GetUserRequest>) -> Result<Response<User>, Status> {
        let message = |request: GetUserRequest| {
            let user_id = request.user_id.parse().map_err(|_| UsersError::UserNotFound)?;
            Ok(users::GetUser { user_id })
        };
        self.call(&self.clients.users, request, LimitClass::Api, message).await.map(|user| Response::new(user.into()))
    }

    async fn create_user(&self, request: Request<CreateUserRequest>) -> Result<Response<User>, Status> {
        let message = |CreateUserRequest { email, password, name }| Ok(users::Register { email, password, name });
        self.call(&self.clients.users, request, LimitClass::Registration, message)
            .await
            .map(|registration| Response::new(User { token: registration.token, ..registration.user.into() }))
    }
}

#[tonic::async_trait]
impl CatalogService for TypedServices {
    async fn get_product(&self, request: Request<GetProductRequest>) -> Result<Response<Product>, Status> {
        let message = |request: GetProductRequest| {
            let product_id = request.product_id.parse().map_err(|_| catalog::CatalogError::ProductNotFound)?;
            Ok(catalog::GetProduct { product_id })
        };
        self.call(&self.clients.catalog, request, LimitClass::Api, message)
            .await
            .map(|product| Response::new((&product).into()))
    }

    async fn list_products(
        &self,
        request: Request<ListProductsRequest>,
    ) -> Result<Response<ListProductsReply>, Status> {
        let message = |request: ListProductsRequest| {
            let ListProductsRequest { q, category, tag, min_price, max_price, in_stock, sort, .. } = request;
            let unknown = || {
                let requirement = "must be name, price, -price, created_at, -created_at or relevance";
                crate::types::FieldError::new("sort", "invalid", requirement)
            };
            let sort = sort.map(|name| serde_json::from_value(name.into()).map_err(|_| unknown())).transpose()?;
            let all_variants = request.all_variants;
            let query = ProductQuery { q, category, tag, min_price, max_price, in_stock, sort, all_variants };
            let cursor = request.cursor.map(|cursor| serde_json::from_value(cursor.into())).transpose();
            let cursor = cursor.map_err(|_| CommonError::Internal)?;
            Ok(ListProducts { query, page: PageRequest { limit: request.limit, cursor } })
        };
        let ProductPage { items, next, facets, suggestion } =
            self.call(&self.clients.catalog, request, LimitClass::Api, message).await?;
        Ok(Response::new(ListProductsReply {
            items: items.iter().map(|product| (&**product).into()).collect(),
            next: next.map(|next| next.as_str().to_owned()),
            total: facets.total,
            suggestion,
        }))
    }
}

#[tonic::async_trait]
impl PaymentService for TypedServices {
    async fn get_invoice(&self, request: Request<GetInvoiceRequest>) -> Result<Response<Invoice>, Status> {
        let message = |request: GetInvoiceRequest| {
            let invoice_id = request.invoice_id.parse().map_err(|_| PaymentsError::InvoiceNotFound)?;
            Ok(payments::GetInvoice { invoice_id })
        };
        self.call(&self.clients.payments, request, LimitClass::Api, message)
            .await
            .map(|invoice| Response::new(invoice.into()))
    }
}

impl From<users::User> for User {
    fn from(user: users::User) -> Self {
        Self {
            id: user.id.to_string(),
            email: user.email.map(|email| json_text(&email)),
            name: user.name,
            role: user.role.as_str().to_owned(),
            email_verified: user.email_verified,
            created_at: user.created_at.to_string(),
            updated_at: user.updated_at.to_string(),
            token: None,
        }
    }
}

impl From<&catalog::Product> for Product {
    fn from(product: &catalog::Product) -> Self {
        let variants = product.variants.iter().map(|variant| Variant {
            id: variant.id.to_string(),
            sku: variant.sku.clone(),
            name: variant.name.clone(),
            options: variant.options.clone().into_iter().collect(),
            price: variant.price,
            currency: variant.currency.as_str().to_owned(),
            stock: variant.stock,
        });
        let images = product.images.iter().map(|image| Image {
            id: image.id.to_string(),
            url: image.url.clone(),
            width: image.width,
            height: image.height,
            alt: image.alt.clone(),
        });
        Self {
            id: product.id.to_string(),
            name: product.name.clone(),
            sku: product.sku.clone(),
            slug: product.slug.clone(),
            description: product.description.clone(),
            price: product.price,
            currency: product.currency.as_str().to_owned(),
            compare_at_price: product.compare_at_price,
            stock: product.stock,
            track_stock: product.track_stock,
            category: product.category.clone(),
            tags: product.tags.clone(),
            attributes: product.attributes.clone().into_iter().collect(),
            group: product.group.clone(),
            options: product.options.clone().into_iter().collect(),
            variants: variants.collect(),
            images: images.collect(),
            rating: product.rating,
            review_count: product.review_count,
            deleted: product.deleted,
            created_at: product.created_at.to_string(),
            updated_at: product.updated_at.to_string(),
        }
    }
}

impl From<payments::Invoice> for Invoice {
    fn from(invoice: payments::Invoice) -> Self {
        let lines = invoice.lines.into_iter().map(|line| InvoiceLine {
            description: line.description,
            product_id: line.product_id.map(|id| id.to_string()),
            quantity: line.quantity,
            unit_price: line.unit_price,
        });
        Self {
            id: invoice.id.to_string(),
            number: invoice.number,
            user_id: invoice.user_id.to_string(),
            status: json_text(&invoice.status),
            lines: lines.collect(),
            total: invoice.total,
            refunded: invoice.refunded,
            currency: invoice.currency.as_str().to_owned(),
            created_at: invoice.created_at.to_string(),
            expires_at: invoice.expires_at.to_string(),
            paid_at: invoice.paid_at.map(|at| at.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::settings::{DomainLocation, Quota};
    use crate::types::Clock;

    #[actix::test]
    async fn s02_typed_services_limit_each_network() {
        let dir = tempfile::tempdir().unwrap();
        let mut settings = Settings::for_test(dir.path());
        settings.domains.iter_mut().for_each(|domain| domain.place = DomainLocation::Off);
        settings.limits.enabled = true;
        settings.limits.registration = Quota { requests: 1, window: Duration::from_secs(3_600) };
        let app = App::open(settings, Clock::system()).unwrap();
        let services = TypedServices {
            clients: app.clients.clone(),
            settings: Arc::clone(app.settings()),
            limits: RateLimits::new(&app.settings().limits, app.clock()),
        };
        let call = async |class| services.context(&MetadataMap::new(), &Extensions::new(), class).await;
        assert!(call(LimitClass::Registration).await.is_ok());
        let limited = call(LimitClass::Registration).await.unwrap_err();
        assert_eq!(limited.code(), Code::ResourceExhausted);
        assert_eq!(limited.metadata().get("mercat-code").unwrap(), "rate_limited");
        assert!(call(LimitClass::Api).await.is_ok());
        app.close();
    }
}
