//! A form that a page of ours sent: the one way in which a handler reads one.

use axum::{
    Form,
    body::{Body, Bytes},
    extract::{FromRequest, FromRequestParts, Request},
    response::{IntoResponse, Response},
};
use serde::{Deserialize, de::DeserializeOwned};
use subtle::ConstantTimeEq;

use super::{Fault, Visitor};

/// A form of somebody who is signed in, sent from a page of their session. It has a hidden input
/// `<input type="hidden" name="csrf" value="{{ page.csrf }}">`.
pub struct Posted<T>(pub T);

#[derive(Deserialize)]
struct Csrf {
    #[serde(default)]
    csrf: String,
}

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Posted<T> {
    type Rejection = Response;

    async fn from_request(request: Request, state: &S) -> Result<Self, Response> {
        let (mut parts, body) = request.into_parts();
        let visitor = Visitor::from_request_parts(&mut parts, state).await.map_err(Fault::into_response)?;
        let Some(expected) = visitor.csrf() else { return Err(Fault::forbidden().into_response()) };
        let whole = Request::from_parts(parts.clone(), body);
        let bytes = Bytes::from_request(whole, state).await.map_err(IntoResponse::into_response)?;
        let again = || Request::from_parts(parts.clone(), Body::from(bytes.clone()));
        let Form(Csrf { csrf }) = Form::from_request(again(), state).await.map_err(IntoResponse::into_response)?;
        if !bool::from(csrf.as_bytes().ct_eq(expected.as_bytes())) {
            return Err(Fault::forbidden().into_response());
        }
        let Form(form) = Form::from_request(again(), state).await.map_err(IntoResponse::into_response)?;
        Ok(Self(form))
    }
}
