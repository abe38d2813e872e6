//! What a command's body says.

use std::convert::Infallible;

use futures_util::future::ready;
use futures_util::stream;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::StatusCode;
use hyper::body::{Bytes, Incoming};
use hyper::header::{self, HeaderMap};
use tokio::time::timeout;

use super::callers::PATIENCE;
use super::routes::ApiRefusal;

const MAX_BODY: usize = 16 * 1024;

/// Reads the whole body, if it is not too long.
pub(super) async fn read(body: Incoming) -> Result<Bytes, ApiRefusal> {
    let whole = timeout(PATIENCE, Limited::new(body, MAX_BODY).collect());
    match whole.await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(why)) if why.is::<LengthLimitError>() => {
            Err(ApiRefusal::new(StatusCode::PAYLOAD_TOO_LARGE, "the body is too long"))
        }
        Ok(Err(why)) => Err(ApiRefusal::new(StatusCode::BAD_REQUEST, why.to_string())),
        Err(_) => Err(ApiRefusal::new(StatusCode::REQUEST_TIMEOUT, "the body did not come")),
    }
}

/// Makes of a form in parts, as `curl -F` sends it, what `curl -d` sends.
pub(super) async fn form(headers: &HeaderMap, body: Bytes) -> Result<Bytes, ApiRefusal> {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let Some(boundary) = kind.and_then(|kind| multer::parse_boundary(kind).ok()) else {
        return Ok(body);
    };
    let bad = |why: multer::Error| ApiRefusal::new(StatusCode::BAD_REQUEST, why.to_string());
    let whole = stream::once(ready(Ok::<_, Infallible>(body)));
    let mut parts = multer::Multipart::new(whole, boundary);
    let mut fields = Vec::new();
    while let Some(part) = parts.next_field().await.map_err(bad)? {
        let name = part.name().unwrap_or_default().to_owned();
        fields.push((name, part.text().await.map_err(bad)?));
    }
    let form = form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
    Ok(form.into())
}
