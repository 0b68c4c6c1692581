//! Pictures of imported products, fetched from the addresses in a file.

use crate::contract::catalog::{AddImage, GetProduct};
use crate::domains::catalog::CatalogActor;
use crate::messaging::{Client, RequestContext};
use crate::outgoing_http::OutgoingHttp;
use crate::settings::CatalogSettings;
use crate::types::ProductId;

use super::open::context;

/// Maximum number of pictures of a product that are fetched.
const PICTURES_MAX: usize = 20;

/// Reader of pictures for the products of a shop.
pub struct PictureImport {
    catalog: Client<CatalogActor>,
    outgoing: OutgoingHttp,
    bytes_max: usize,
}

/// Result for one product.
#[derive(Default)]
pub struct Fetched {
    /// Number of pictures that were added.
    pub added: u64,
    /// Reasons for which others were not.
    pub failed: Vec<String>,
}

impl PictureImport {
    /// Makes a reader.
    ///
    /// # Errors
    /// TLS is not available.
    pub fn new(catalog: Client<CatalogActor>, settings: &CatalogSettings) -> Result<Self, &'static str> {
        let outgoing = OutgoingHttp::new(settings.private_image_addresses)?;
        Ok(Self { catalog, outgoing, bytes_max: settings.image_bytes_max })
    }

    /// Adds pictures to a product that has none; one that has keeps them, so that a second import adds nothing.
    pub async fn add_to(&self, product_id: ProductId, addresses: &[String]) -> Fetched {
        let mut fetched = Fetched::default();
        match self.catalog.call(context(), GetProduct { product_id }).await {
            Ok(product) if !product.images.is_empty() => return fetched,
            Ok(_) => {}
            Err(error) => {
                fetched.failed.push(format!("its pictures were not fetched: {error}"));
                return fetched;
            }
        }
        for address in addresses.iter().take(PICTURES_MAX) {
            match self.add(product_id, address).await {
                Ok(()) => fetched.added += 1,
                Err(reason) => fetched.failed.push(format!("the picture {address} {reason}")),
            }
        }
        fetched
    }

    async fn add(&self, product_id: ProductId, address: &str) -> Result<(), String> {
        let data = self.outgoing.get(address, self.bytes_max).await.map_err(|error| error.to_string())?;
        let ctx: RequestContext = context();
        let request = AddImage { product_id, alt: String::new(), data };
        self.catalog.call(ctx, request).await.map(|_| ()).map_err(|error| format!("was not added: {error}"))
    }
}
