//! The gateway's other door: the typed gRPC services for programs in other languages (`proto/users.proto`,
//! `catalog.proto`, `payments.proto`).
//!
//! Lives here: their form. Who calls is found out as over HTTP, and what they may do is decided at the same messages.
//! Never enters: how the processes of the shop ask each other (`messaging::grpc`).

use std::net::IpAddr;
use std::sync::Arc;

use actix::{Actor, Context, Handler};
use serde::Serialize;
use tonic::metadata::{BinaryMetadataValue, MetadataMap};
use tonic::service::RoutesBuilder;
use tonic::transport::server::TcpConnectInfo;
use tonic::{Code, Extensions, Request, Response, Status};

use crate::app::{App, Clients};
use crate::contract::catalog;
use crate::contract::catalog::{ListProducts, ProductPage, ProductQuery};
use crate::contract::payments;
use crate::contract::payments::PaymentsError;
use crate::contract::users;
use crate::contract::users::{Authenticate, UsersError};
use crate::messaging::grpc::proto::catalog_service_server::{CatalogService, CatalogServiceServer};
use crate::messaging::grpc::proto::payment_service_server::{PaymentService, PaymentServiceServer};
use crate::messaging::grpc::proto::user_service_server::{UserService, UserServiceServer};
use crate::messaging::grpc::proto::{
    CreateUserRequest, GetInvoiceRequest, GetProductRequest, GetUserRequest, Image, Invoice, InvoiceLine,
    ListProductsReply, ListProductsRequest, Product, User, Variant,
};
use crate::messaging::grpc::{DESCRIPTORS, patience};
use crate::messaging::{
    self, Caller, Client, CommonError, DomainError, Envelope, ErrorKind, HealthStatus, IdempotencyKey, RequestContext,
    trace,
};
use crate::settings::Settings;
use crate::types::{PageRequest, fresh};

/// The longest id of a caller's own that is taken over.
const TEXT_MAX: usize = 128;

/// Adds the typed services for the domains that can be asked from this process, and the reflection service, by which
/// programs learn what there is.
///
/// # Errors
/// When the descriptions that were compiled in cannot be read.
pub fn add(app: &App, to: &mut RoutesBuilder) -> Result<(), tonic_reflection::server::Error> {
    let door = Arc::new(TypedServices { clients: app.clients.clone(), settings: Arc::clone(app.settings()) });
    let on = |health: messaging::Health| health.status != HealthStatus::Off;
    let mut names = vec!["grpc.health.v1.Health", "mercat.v1.Domains"];
    if on(app.clients.users.health()) {
        to.add_service(UserServiceServer::from_arc(Arc::clone(&door)));
        names.push("mercat.v1.UserService");
    }
    if on(app.clients.catalog.health()) {
        to.add_service(CatalogServiceServer::from_arc(Arc::clone(&door)));
        names.push("mercat.v1.CatalogService");
    }
    if on(app.clients.payments.health()) {
        to.add_service(PaymentServiceServer::from_arc(door));
        names.push("mercat.v1.PaymentService");
    }
    let reflection = || {
        let builder = tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET);
        names.iter().fold(builder, |builder, name| builder.with_service_name(*name))
    };
    to.add_service(reflection().build_v1()?);
    // What many clients still speak.
    to.add_service(reflection().build_v1alpha()?);
    Ok(())
}

struct TypedServices {
    clients: Clients,
    settings: Arc<Settings>,
}

impl TypedServices {
    /// The context of a call, its caller known.
    async fn context(&self, metadata: &MetadataMap, extensions: &Extensions) -> Result<RequestContext, Status> {
        let text = |name: &str| metadata.get(name).and_then(|value| value.to_str().ok());
        let short = |text: &&str| !text.is_empty() && text.len() <= TEXT_MAX;
        let address = extensions.get::<TcpConnectInfo>().and_then(TcpConnectInfo::remote_addr);
        let address: Option<IpAddr> = address.map(|address| address.ip().to_canonical());
        let networks = &self.settings.stats.internal_networks;
        let internal = address.is_some_and(|address| networks.iter().any(|network| network.contains(address)));
        let caller = Caller::Anyone {
            address: address.map_or_else(|| "unknown".into(), |address| address.to_string().into()),
            internal,
        };
        let request_id = text("x-request-id").filter(short).map_or_else(|| fresh().to_string(), str::to_owned);
        let mut ctx = RequestContext::new(caller, request_id).with_timeout(patience(metadata));
        ctx.trace = text("traceparent").and_then(trace::read);
        if let Some(key) = text("idempotency-key") {
            ctx.key = Some(
                IdempotencyKey::parse(key)
                    .map_err(|bad| Status::invalid_argument(format!("the idempotency-key {bad}")))?,
            );
        }
        if let Some(authorization) = metadata.get("authorization") {
            let token = authorization.to_str().ok().and_then(super::asked::bearer);
            let token = token.ok_or_else(|| status(&UsersError::InvalidToken))?.to_owned();
            let who = self.clients.users.call(ctx.for_downstream_call("gateway", None), Authenticate { token }).await;
            let identity = who.map_err(|error| status(&error))?.identity;
            ctx.caller = Caller::User { identity, internal };
        }
        Ok(ctx)
    }

    /// Asks a domain for a caller.
    async fn ask<A, T, R>(
        &self,
        client: &Client<A>,
        asked: Request<T>,
        message: impl FnOnce(T) -> Result<R, R::Error>,
    ) -> Result<R::Reply, Status>
    where
        A: Actor<Context = Context<A>> + Handler<Envelope<R>>,
        R: messaging::Request,
    {
        let (metadata, extensions, asked) = asked.into_parts();
        let ctx = self.context(&metadata, &extensions).await?;
        let message = message(asked).map_err(|error| status(&error))?;
        client.call(ctx, message).await.map_err(|error| status(&error))
    }
}

/// How every domain's error becomes gRPC: the code of its kind, its sentence, and in `mercat-code` and
/// `mercat-error-bin` what programs rely on.
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
    if let Ok(told) = serde_json::to_value(error) {
        if let Some(code) = told["code"].as_str().and_then(|code| code.parse().ok()) {
            metadata.insert("mercat-code", code);
        }
        metadata.insert_bin("mercat-error-bin", BinaryMetadataValue::from_bytes(told.to_string().as_bytes()));
    }
    Status::with_metadata(code, error.to_string(), metadata)
}

/// The word that something is in JSON.
fn word(value: &impl Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word,
        _ => String::new(),
    }
}

#[tonic::async_trait]
impl UserService for TypedServices {
    async fn get_user(&self, asked: Request<GetUserRequest>) -> Result<Response<User>, Status> {
        let message = |asked: GetUserRequest| {
            let user_id = asked.user_id.parse().map_err(|_| UsersError::UserNotFound)?;
            Ok(users::GetUser { user_id })
        };
        self.ask(&self.clients.users, asked, message).await.map(|user| Response::new(user.into()))
    }

    async fn create_user(&self, asked: Request<CreateUserRequest>) -> Result<Response<User>, Status> {
        let message = |CreateUserRequest { email, password, name }| Ok(users::Register { email, password, name });
        self.ask(&self.clients.users, asked, message).await.map(|user| Response::new(user.into()))
    }
}

#[tonic::async_trait]
impl CatalogService for TypedServices {
    async fn get_product(&self, asked: Request<GetProductRequest>) -> Result<Response<Product>, Status> {
        let message = |asked: GetProductRequest| {
            let product_id = asked.product_id.parse().map_err(|_| catalog::CatalogError::ProductNotFound)?;
            Ok(catalog::GetProduct { product_id })
        };
        self.ask(&self.clients.catalog, asked, message).await.map(|product| Response::new((&product).into()))
    }

    async fn list_products(&self, asked: Request<ListProductsRequest>) -> Result<Response<ListProductsReply>, Status> {
        let message = |asked: ListProductsRequest| {
            let ListProductsRequest { q, category, tag, min_price, max_price, in_stock, sort, .. } = asked;
            let unknown = || {
                let words = "must be name, price, -price, created_at, -created_at or relevance";
                crate::types::FieldError::new("sort", "invalid", words)
            };
            let sort = sort.map(|word| serde_json::from_value(word.into()).map_err(|_| unknown())).transpose()?;
            let all_variants = asked.all_variants;
            let query = ProductQuery { q, category, tag, min_price, max_price, in_stock, sort, all_variants };
            let cursor = asked.cursor.map(|cursor| serde_json::from_value(cursor.into())).transpose();
            let cursor = cursor.map_err(|_| CommonError::Internal)?;
            Ok(ListProducts { query, page: PageRequest { limit: asked.limit, cursor } })
        };
        let ProductPage { items, next, facets } = self.ask(&self.clients.catalog, asked, message).await?;
        Ok(Response::new(ListProductsReply {
            items: items.iter().map(|product| (&**product).into()).collect(),
            next: next.map(|next| next.as_str().to_owned()),
            total: facets.total,
        }))
    }
}

#[tonic::async_trait]
impl PaymentService for TypedServices {
    async fn get_invoice(&self, asked: Request<GetInvoiceRequest>) -> Result<Response<Invoice>, Status> {
        let message = |asked: GetInvoiceRequest| {
            let invoice_id = asked.invoice_id.parse().map_err(|_| PaymentsError::InvoiceNotFound)?;
            Ok(payments::GetInvoice { invoice_id })
        };
        self.ask(&self.clients.payments, asked, message).await.map(|invoice| Response::new(invoice.into()))
    }
}

impl From<users::User> for User {
    fn from(user: users::User) -> Self {
        Self {
            id: user.id.to_string(),
            email: user.email.map(|email| word(&email)),
            name: user.name,
            role: user.role.as_str().to_owned(),
            email_verified: user.email_verified,
            created_at: user.created_at.to_string(),
            updated_at: user.updated_at.to_string(),
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
            status: word(&invoice.status),
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
