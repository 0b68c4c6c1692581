//! Handlers of `/product/{id}/images`: upload in a multipart form, and delivery that browsers may cache permanently.
//!
//! Does not contain: decoding and resizing, which the catalog does.

use std::time::Duration;

use actix_multipart::{Field, Multipart, MultipartError};
use actix_web::http::header::{self, HeaderMap, HeaderValue};
use actix_web::http::{Method, StatusCode};
use actix_web::web::Bytes;
use actix_web::{HttpMessage, HttpResponse, web};
use futures_util::StreamExt;
use serde_json::json;

use super::body::expect_length;
use super::catalog::product_id;
use super::extract::ApiRequest;
use super::problem::Problem;
use super::query::Query;
use super::respond::ApiResult;
use crate::contract::catalog::{AddImage, CatalogError, DeleteImage, GetImage, ListImages};
use crate::messaging::CommonError;
use crate::types::{FieldError, ImageId};

/// Longest text part of a form, in bytes.
const TEXT_BYTES_MAX: usize = 4_096;
/// Most parts of a form.
const PARTS_MAX: usize = 16;
/// Bytes that boundaries and headers of a form may take in addition to the file.
const FORM_OVERHEAD_MAX: usize = 65_536;

fn image_id(request: &ApiRequest) -> Result<ImageId, Problem> {
    request.path_id("image_id", CatalogError::ImageNotFound)
}

/// GET `/product/{id}/images/`.
pub async fn list(request: ApiRequest) -> ApiResult {
    let product_id = product_id(&request)?;
    let images = request.clients().catalog.call(request.ctx(), ListImages { product_id }).await?;
    request.ok(&json!({ "items": images, "next": null }))
}

/// POST `/product/{id}/images/`: a multipart form with `file`, and optionally `alt`.
pub async fn add(request: ApiRequest, payload: web::Payload) -> ApiResult {
    let product_id = product_id(&request)?;
    // Checked before the upload: a rejection need not cost ten megabytes.
    request.authorize(&AddImage { product_id, alt: String::new(), data: Vec::new() })?;
    let max = request.state().settings.catalog.image_bytes_max;
    if !request.http().content_type().eq_ignore_ascii_case("multipart/form-data") {
        return Err(Problem::unsupported_media_type("multipart/form-data"));
    }
    expect_length(request.http(), max + FORM_OVERHEAD_MAX)?;
    let form = Multipart::new(request.http().headers(), payload);
    // An upload may take as long as its network needs; the timeout is for each chunk.
    let ImageForm { file, alt } = read_form(form, max, request.state().settings.http.request_timeout).await?;
    let Some(data) = file else {
        return Err(CommonError::field(FieldError::new(
            "file",
            "required",
            "must be given, as a part with the picture",
        ))
        .into());
    };
    let message = AddImage { product_id, alt: alt.unwrap_or_default(), data };
    let image = request.clients().catalog.call(request.ctx_with_fresh_timeout(), message).await?;
    request.created(&image.url, &image)
}

/// Parts of an upload form.
#[derive(Default)]
struct ImageForm {
    file: Option<Vec<u8>>,
    alt: Option<String>,
}

async fn read_form(mut form: Multipart, max: usize, chunk_timeout: Duration) -> Result<ImageForm, Problem> {
    let mut read = ImageForm::default();
    for _ in 0..PARTS_MAX {
        let next = tokio::time::timeout(chunk_timeout, form.next()).await.map_err(|_| Problem::request_timeout())?;
        let Some(part) = next else { return Ok(read) };
        let mut part = part.map_err(|error| malformed_form(&error))?;
        match part.name() {
            Some("file") if read.file.is_none() => read.file = Some(read_part(&mut part, max, chunk_timeout).await?),
            Some("alt") if read.alt.is_none() => {
                let text = String::from_utf8(read_part(&mut part, TEXT_BYTES_MAX, chunk_timeout).await?);
                read.alt = Some(text.map_err(|_| Problem::malformed_body("`alt` is not UTF-8"))?);
            }
            other => {
                let name = other.unwrap_or_default().chars().take(100).collect::<String>();
                let error = FieldError::new(name, "unknown_field", "is not a part of this form, or is given twice");
                return Err(CommonError::field(error).into());
            }
        }
    }
    Err(Problem::malformed_body("the form has too many parts"))
}

async fn read_part(part: &mut Field, max: usize, chunk_timeout: Duration) -> Result<Vec<u8>, Problem> {
    let mut bytes = Vec::new();
    loop {
        let chunk = tokio::time::timeout(chunk_timeout, part.next()).await.map_err(|_| Problem::request_timeout())?;
        let Some(chunk) = chunk else { return Ok(bytes) };
        let chunk = chunk.map_err(|error| malformed_form(&error))?;
        if bytes.len() + chunk.len() > max {
            return Err(Problem::too_large(max));
        }
        bytes.extend_from_slice(&chunk);
    }
}

fn malformed_form(error: &MultipartError) -> Problem {
    log::debug!("web: malformed multipart form: {error}");
    Problem::malformed_body("the form cannot be read; it broke off, or is not multipart/form-data as RFC 7578 has it")
}

/// GET `/product/{id}/images/{image_id}`; `width` selects a smaller copy.
pub async fn get(request: ApiRequest) -> ApiResult {
    let (product_id, image_id) = (product_id(&request)?, image_id(&request)?);
    let mut query = Query::of(request.http());
    let width: Option<u32> = query.number("width");
    query.finish()?;
    let file = request.clients().catalog.call(request.ctx(), GetImage { product_id, image_id, width }).await?;
    // The bytes of an id and a width never change, so both together are the tag.
    let tag = format!("\"{image_id}-{}\"", width.unwrap_or(0));
    let is_head = request.http().method() == Method::HEAD;
    Ok(serve(request.http().headers(), is_head, &tag, &file.content_type, file.data.into()))
}

/// DELETE `/product/{id}/images/{image_id}`.
pub async fn delete(request: ApiRequest) -> ApiResult {
    let (product_id, image_id) = (product_id(&request)?, image_id(&request)?);
    request.clients().catalog.call(request.ctx(), DeleteImage { product_id, image_id }).await?;
    request.no_content()
}

/// Responds with the file, with the requested range of it, or with 304 if the client has it already.
fn serve(request_headers: &HeaderMap, is_head: bool, tag: &str, content_type: &str, data: Bytes) -> HttpResponse {
    let mut response = HttpResponse::Ok();
    response.insert_header((header::ETAG, tag));
    response.insert_header((header::CACHE_CONTROL, "public, max-age=31536000, immutable"));
    // Public pictures: a storefront on another site shows them too.
    response.insert_header((header::CROSS_ORIGIN_RESOURCE_POLICY, "cross-origin"));
    response.insert_header((header::ACCEPT_RANGES, "bytes"));
    if super::etag::is_known(request_headers, tag) {
        return response.status(StatusCode::NOT_MODIFIED).finish();
    }
    response.insert_header((header::CONTENT_TYPE, content_type));
    let is_current = request_headers.get(header::IF_RANGE).is_none_or(|given| given == tag);
    let range =
        request_headers.get(header::RANGE).filter(|_| is_current && !is_head).and_then(|range| range.to_str().ok());
    match range.map_or(ByteRange::All, |range| parse_range(range, data.len())) {
        ByteRange::All => response.body(data),
        ByteRange::Part { first, last } => {
            response.insert_header((header::CONTENT_RANGE, format!("bytes {first}-{last}/{}", data.len())));
            response.status(StatusCode::PARTIAL_CONTENT).body(data.slice(first..=last))
        }
        ByteRange::Unsatisfiable => {
            let problem = Problem::new(
                StatusCode::RANGE_NOT_SATISFIABLE,
                "range_not_satisfiable",
                "the picture has no such bytes",
            );
            let mut response = HttpResponse::from_error(problem);
            if let Ok(range) = HeaderValue::from_str(&format!("bytes */{}", data.len())) {
                response.headers_mut().insert(header::CONTENT_RANGE, range);
            }
            response
        }
    }
}

/// Bytes that a `Range` header requests (RFC 9110 §14).
#[derive(Debug, PartialEq)]
enum ByteRange {
    /// The whole file: also for several ranges and for units other than bytes, which a server may ignore.
    All,
    /// Bytes from `first` to `last`, both included.
    Part { first: usize, last: usize },
    /// No byte of the file: 416.
    Unsatisfiable,
}

fn parse_range(range: &str, length: usize) -> ByteRange {
    let Some((first, last)) = range.strip_prefix("bytes=").and_then(|range| range.split_once('-')) else {
        return ByteRange::All;
    };
    match (first.trim().parse::<usize>(), last.trim()) {
        (Ok(first), "") if first < length => ByteRange::Part { first, last: length - 1 },
        (Ok(first), last) => match last.parse::<usize>() {
            Ok(last) if last < first => ByteRange::All,
            Ok(last) if first < length => ByteRange::Part { first, last: last.min(length - 1) },
            Err(_) if !last.is_empty() => ByteRange::All,
            _ => ByteRange::Unsatisfiable,
        },
        (Err(_), last) if first.trim().is_empty() => match last.parse::<usize>() {
            Ok(0) => ByteRange::Unsatisfiable,
            Ok(_) if length == 0 => ByteRange::Unsatisfiable,
            Ok(tail) => ByteRange::Part { first: length.saturating_sub(tail), last: length - 1 },
            Err(_) => ByteRange::All,
        },
        (Err(_), _) => ByteRange::All,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parse_range_follows_rfc_9110() {
        let cases = [
            ("bytes=0-9", ByteRange::Part { first: 0, last: 9 }),
            ("bytes=90-", ByteRange::Part { first: 90, last: 99 }),
            ("bytes=90-200", ByteRange::Part { first: 90, last: 99 }),
            ("bytes=-10", ByteRange::Part { first: 90, last: 99 }),
            ("bytes=-200", ByteRange::Part { first: 0, last: 99 }),
            ("bytes=100-", ByteRange::Unsatisfiable),
            ("bytes=100-200", ByteRange::Unsatisfiable),
            ("bytes=-0", ByteRange::Unsatisfiable),
            ("bytes=9-0", ByteRange::All),
            ("bytes=0-1,5-6", ByteRange::All),
            ("bytes=a-b", ByteRange::All),
            ("bytes=-", ByteRange::All),
            ("lines=1-2", ByteRange::All),
        ];
        for (range, part) in cases {
            assert_eq!(parse_range(range, 100), part, "{range}");
        }
        assert_eq!(parse_range("bytes=0-", 0), ByteRange::Unsatisfiable);
        assert_eq!(parse_range("bytes=-5", 0), ByteRange::Unsatisfiable);
    }
}
