//! `/product/{id}/images`: pictures, uploaded in a form and served so that a browser asks for each once.

use actix_multipart::{Field, Multipart, MultipartError};
use actix_web::http::header::{self, HeaderMap, HeaderValue};
use actix_web::http::{Method, StatusCode};
use actix_web::web::Bytes;
use actix_web::{HttpMessage, HttpResponse, web};
use futures_util::StreamExt;
use serde_json::json;

use super::asked::{ApiRequest, ApiResult};
use super::catalog::product_id;
use super::input::{Query, expect_length};
use super::problem::Problem;
use crate::contract::catalog::{AddImage, CatalogError, DeleteImage, GetImage, ListImages};
use crate::messaging::CommonError;
use crate::types::{FieldError, ImageId};

/// Bytes of what a form may say beside its file.
const TEXT_MAX: usize = 4_096;
/// The most parts a form may have.
const PARTS_MAX: usize = 16;
/// Bytes that a form's own marks may take beside the file.
const MARKS_MAX: usize = 65_536;

fn image_id(asked: &ApiRequest) -> Result<ImageId, Problem> {
    asked.id("image_id", CatalogError::ImageNotFound)
}

/// GET `/product/{id}/images/`.
pub async fn list(asked: ApiRequest) -> ApiResult {
    let product_id = product_id(&asked)?;
    let images = asked.clients().catalog.call(asked.ctx(), ListImages { product_id }).await?;
    asked.ok(&json!({ "items": images, "next": null }))
}

/// POST `/product/{id}/images/`: a form (multipart) with `file`, and `alt` if wanted.
pub async fn add(asked: ApiRequest, payload: web::Payload) -> ApiResult {
    let product_id = product_id(&asked)?;
    // Whether the caller may is decided at the message, but nobody has to send ten megabytes to hear a no.
    asked.may(&AddImage { product_id, alt: String::new(), data: Vec::new() })?;
    let max = asked.gate().settings.catalog.image_bytes_max;
    if !asked.request().content_type().eq_ignore_ascii_case("multipart/form-data") {
        return Err(Problem::unsupported_type("multipart/form-data"));
    }
    expect_length(asked.request(), max + MARKS_MAX)?;
    let form = Multipart::new(asked.request().headers(), payload);
    // An upload takes the time its network needs, as long as it goes on; `read` watches that.
    let ImageForm { file, alt } = read(form, max, asked.gate().settings.http.request_timeout).await?;
    let Some(data) = file else {
        return Err(CommonError::field(FieldError::new(
            "file",
            "required",
            "must be given, as a part with the picture",
        ))
        .into());
    };
    let request = AddImage { product_id, alt: alt.unwrap_or_default(), data };
    let image = asked.clients().catalog.call(asked.ctx_from_now(), request).await?;
    asked.created(&image.url, &image)
}

#[derive(Default)]
struct ImageForm {
    file: Option<Vec<u8>>,
    alt: Option<String>,
}

async fn read(mut form: Multipart, max: usize, patience: std::time::Duration) -> Result<ImageForm, Problem> {
    let mut read = ImageForm::default();
    for _ in 0..PARTS_MAX {
        let next = tokio::time::timeout(patience, form.next()).await.map_err(|_| Problem::too_slow())?;
        let Some(part) = next else { return Ok(read) };
        let mut part = part.map_err(|error| broken(&error))?;
        match part.name() {
            Some("file") if read.file.is_none() => read.file = Some(bytes(&mut part, max, patience).await?),
            Some("alt") if read.alt.is_none() => {
                let text = String::from_utf8(bytes(&mut part, TEXT_MAX, patience).await?);
                read.alt = Some(text.map_err(|_| Problem::malformed("`alt` is not UTF-8"))?);
            }
            other => {
                let name = other.unwrap_or_default().chars().take(100).collect::<String>();
                let error = FieldError::new(name, "unknown_field", "is not a part of this form, or is given twice");
                return Err(CommonError::field(error).into());
            }
        }
    }
    Err(Problem::malformed("the form has too many parts"))
}

async fn bytes(part: &mut Field, max: usize, patience: std::time::Duration) -> Result<Vec<u8>, Problem> {
    let mut bytes = Vec::new();
    loop {
        let chunk = tokio::time::timeout(patience, part.next()).await.map_err(|_| Problem::too_slow())?;
        let Some(chunk) = chunk else { return Ok(bytes) };
        let chunk = chunk.map_err(|error| broken(&error))?;
        if bytes.len() + chunk.len() > max {
            return Err(Problem::too_large(max));
        }
        bytes.extend_from_slice(&chunk);
    }
}

fn broken(error: &MultipartError) -> Problem {
    log::debug!("a form cannot be read: {error}");
    Problem::malformed("the form cannot be read; it broke off, or is not multipart/form-data as RFC 7578 has it")
}

/// GET `/product/{id}/images/{image_id}`, with `width` for a smaller one.
pub async fn get(asked: ApiRequest) -> ApiResult {
    let (product_id, image_id) = (product_id(&asked)?, image_id(&asked)?);
    let mut query = Query::of(asked.request());
    let width: Option<u32> = query.number("width");
    query.done()?;
    let file = asked.clients().catalog.call(asked.ctx(), GetImage { product_id, image_id, width }).await?;
    // Under one id and width the bytes never change, so the name is tag enough.
    let tag = format!("\"{image_id}-{}\"", width.unwrap_or(0));
    let head = asked.request().method() == Method::HEAD;
    Ok(serve(asked.request().headers(), head, &tag, &file.content_type, file.data.into()))
}

/// DELETE `/product/{id}/images/{image_id}`.
pub async fn delete(asked: ApiRequest) -> ApiResult {
    let (product_id, image_id) = (product_id(&asked)?, image_id(&asked)?);
    asked.clients().catalog.call(asked.ctx(), DeleteImage { product_id, image_id }).await?;
    asked.done()
}

/// Answers with a file or the part of it that is wanted, or that the caller has it already.
fn serve(asks: &HeaderMap, head: bool, tag: &str, content_type: &str, data: Bytes) -> HttpResponse {
    let mut answer = HttpResponse::Ok();
    answer.insert_header((header::ETAG, tag));
    answer.insert_header((header::CACHE_CONTROL, "public, max-age=31536000, immutable"));
    answer.insert_header((header::ACCEPT_RANGES, "bytes"));
    if super::static_files::matches_tag(asks, tag) {
        return answer.status(StatusCode::NOT_MODIFIED).finish();
    }
    answer.insert_header((header::CONTENT_TYPE, content_type));
    let same = asks.get(header::IF_RANGE).is_none_or(|wanted| wanted == tag);
    let range = asks.get(header::RANGE).filter(|_| same && !head).and_then(|range| range.to_str().ok());
    match range.map_or(ByteRange::All, |range| wanted(range, data.len())) {
        ByteRange::All => answer.body(data),
        ByteRange::Part { first, last } => {
            answer.insert_header((header::CONTENT_RANGE, format!("bytes {first}-{last}/{}", data.len())));
            answer.status(StatusCode::PARTIAL_CONTENT).body(data.slice(first..=last))
        }
        ByteRange::Nothing => {
            let problem = Problem::new(
                StatusCode::RANGE_NOT_SATISFIABLE,
                "range_not_satisfiable",
                "the picture has no such bytes",
            );
            let mut answer = HttpResponse::from_error(problem);
            if let Ok(range) = HeaderValue::from_str(&format!("bytes */{}", data.len())) {
                answer.headers_mut().insert(header::CONTENT_RANGE, range);
            }
            answer
        }
    }
}

/// What a `Range` header asks of a file (RFC 9110, 14).
#[derive(Debug, PartialEq)]
enum ByteRange {
    /// All of it: also when several parts are asked for, or something we do not understand.
    All,
    /// The bytes from `first` to `last`, both included.
    Part { first: usize, last: usize },
    /// Bytes that are not there.
    Nothing,
}

fn wanted(range: &str, length: usize) -> ByteRange {
    let Some((first, last)) = range.strip_prefix("bytes=").and_then(|range| range.split_once('-')) else {
        return ByteRange::All;
    };
    match (first.trim().parse::<usize>(), last.trim()) {
        (Ok(first), "") if first < length => ByteRange::Part { first, last: length - 1 },
        (Ok(first), last) => match last.parse::<usize>() {
            Ok(last) if last < first => ByteRange::All,
            Ok(last) if first < length => ByteRange::Part { first, last: last.min(length - 1) },
            Err(_) if !last.is_empty() => ByteRange::All,
            _ => ByteRange::Nothing,
        },
        (Err(_), last) if first.trim().is_empty() => match last.parse::<usize>() {
            Ok(0) => ByteRange::Nothing,
            Ok(_) if length == 0 => ByteRange::Nothing,
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
    fn ranges_are_read_as_the_rfc_has_them() {
        let cases = [
            ("bytes=0-9", ByteRange::Part { first: 0, last: 9 }),
            ("bytes=90-", ByteRange::Part { first: 90, last: 99 }),
            ("bytes=90-200", ByteRange::Part { first: 90, last: 99 }),
            ("bytes=-10", ByteRange::Part { first: 90, last: 99 }),
            ("bytes=-200", ByteRange::Part { first: 0, last: 99 }),
            ("bytes=100-", ByteRange::Nothing),
            ("bytes=100-200", ByteRange::Nothing),
            ("bytes=-0", ByteRange::Nothing),
            ("bytes=9-0", ByteRange::All),
            ("bytes=0-1,5-6", ByteRange::All),
            ("bytes=a-b", ByteRange::All),
            ("bytes=-", ByteRange::All),
            ("lines=1-2", ByteRange::All),
        ];
        for (range, part) in cases {
            assert_eq!(wanted(range, 100), part, "{range}");
        }
        assert_eq!(wanted("bytes=0-", 0), ByteRange::Nothing);
        assert_eq!(wanted("bytes=-5", 0), ByteRange::Nothing);
    }
}
