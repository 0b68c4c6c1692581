//! Responses of API handlers: JSON bodies, and the headers and cookies that go with them.

use actix_web::HttpResponse;
use actix_web::http::header;
use actix_web::http::{Method, StatusCode};
use serde::Serialize;

use super::cookies::session_cookie;
use super::etag;
use super::extract::ApiRequest;
use super::headers::{IDEMPOTENT_REPLAYED, set_header};
use super::problem::Problem;
use crate::contract::users::SignedIn;
use crate::messaging::CommonError;
use crate::types::{Cursor, Timestamp};

/// Result of a handler.
pub type ApiResult = Result<HttpResponse, Problem>;

impl ApiRequest {
    /// 200 with a body.
    pub fn ok(&self, body: &impl Serialize) -> ApiResult {
        self.json(StatusCode::OK, body)
    }

    /// 200 with a resource that can be edited and its entity tag, or 304 if the client has it.
    pub fn ok_tagged(&self, updated_at: Timestamp, body: &impl Serialize) -> ApiResult {
        let json = self.to_json(body)?;
        let tag = etag::of_resource(updated_at, &json);
        let is_read = matches!(*self.http().method(), Method::GET | Method::HEAD);
        let mut response = if is_read && etag::is_known(self.http().headers(), &tag) {
            HttpResponse::new(StatusCode::NOT_MODIFIED)
        } else {
            HttpResponse::Ok().insert_header((header::CONTENT_TYPE, "application/json")).body(json)
        };
        self.set_api_headers(&mut response);
        set_header(&mut response, header::ETAG, &tag);
        Ok(response)
    }

    /// 201 with a body, and the new resource's address in `Location`.
    pub fn created(&self, location: &str, body: &impl Serialize) -> ApiResult {
        let mut response = self.json(StatusCode::CREATED, body)?;
        self.set_location(&mut response, location);
        Ok(response)
    }

    /// 202 with a body.
    pub fn accepted(&self, body: &impl Serialize) -> ApiResult {
        self.json(StatusCode::ACCEPTED, body)
    }

    /// 204 without a body.
    pub fn no_content(&self) -> ApiResult {
        let mut response = HttpResponse::new(StatusCode::NO_CONTENT);
        self.set_api_headers(&mut response);
        Ok(response)
    }

    /// 200 with a page of a list, and the address of the next page in `Link` (RFC 8288).
    pub fn page(&self, next: Option<&Cursor>, body: &impl Serialize) -> ApiResult {
        let mut response = self.ok(body)?;
        if let Some(next) = next {
            set_header(&mut response, header::LINK, &self.next_link(next));
        }
        Ok(response)
    }

    /// Sets `Location` to the resource that the request leads to.
    pub fn set_location(&self, response: &mut HttpResponse, location: &str) {
        set_header(response, header::LOCATION, location);
    }

    /// Signs the browser in: the cookie expires with the session.
    pub fn set_session_cookie(&self, response: &mut HttpResponse, signed_in: &SignedIn) {
        set_header(response, header::CACHE_CONTROL, "no-store");
        self.add_session_cookie(response, signed_in.token.clone(), signed_in.expires_at);
    }

    /// Removes the session cookie, if the caller was authenticated by it.
    pub fn remove_cookie(&self) {
        if self.token().is_some_and(|presented| presented.is_cookie) {
            self.meta().remove_cookie.set(true);
        }
    }

    fn add_session_cookie(&self, response: &mut HttpResponse, token: String, expires_at: Timestamp) {
        let max_age = expires_at.duration_since(self.state().clock.now());
        let cookie = session_cookie(token, max_age, self.state().settings.http.secure_cookies);
        if response.add_cookie(&cookie).is_err() {
            log::error!("web: session token is not valid in a cookie");
        }
    }

    /// The present list's address with another cursor.
    fn next_link(&self, next: &Cursor) -> String {
        let mut link = format!("<{}?", self.http().path());
        for pair in self.http().query_string().split('&') {
            // Characters that would end the link early are left out; a client that encodes its query sends none.
            if !pair.is_empty() && pair != "cursor" && !pair.starts_with("cursor=") && !pair.contains(['<', '>', '"']) {
                link.push_str(pair);
                link.push('&');
            }
        }
        link.push_str("cursor=");
        link.push_str(next.as_str());
        link.push_str(">; rel=\"next\"");
        link
    }

    fn json(&self, status: StatusCode, body: &impl Serialize) -> ApiResult {
        let json = self.to_json(body)?;
        let mut response =
            HttpResponse::build(status).insert_header((header::CONTENT_TYPE, "application/json")).body(json);
        self.set_api_headers(&mut response);
        Ok(response)
    }

    fn to_json(&self, body: &impl Serialize) -> Result<Vec<u8>, CommonError> {
        serde_json::to_vec(body).map_err(|error| {
            log::error!("web: response has no JSON form: {error} [{}]", self.meta().request_id);
            CommonError::Internal
        })
    }

    /// Sets the headers that depend on the caller and the idempotency key, and binds the key to its target.
    fn set_api_headers(&self, response: &mut HttpResponse) {
        if let Some(guard) = self.guard() {
            guard.record_success();
        }
        if self.is_replayed() {
            set_header(response, IDEMPOTENT_REPLAYED, "true");
        }
        if self.token().is_some() {
            // Personal responses are not for caches, nor for the next user of the browser.
            set_header(response, header::CACHE_CONTROL, "no-store");
        }
    }
}
