//! Asks the admin API, one connection at a time.

use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::time::timeout;

use super::endpoint::ApiEndpoint;
use super::error::Error;

/// How long an answer that needs no time may take.
pub(super) const TIME_LIMIT: Duration = Duration::from_secs(5);
/// How long a probe of the uplink is waited for. It goes on after that, and the state says that there is
/// no answer yet.
const PROBE_LIMIT: Duration = Duration::from_secs(2);
const INFO: &str = "/info.json";
/// The longest answer that is read.
const LONGEST: usize = 64 * 1024 * 1024;

/// A connection to the API, or the way to the next one.
#[derive(Debug)]
pub(super) struct Line<'a> {
    endpoint: &'a ApiEndpoint,
    sender: Option<SendRequest<Full<Bytes>>>,
}

/// What the API answered.
#[derive(Debug)]
pub(super) struct ApiAnswer {
    pub(super) status: StatusCode,
    /// The JSON document as it came.
    pub(super) body: String,
    pub(super) json: Value,
}

impl ApiAnswer {
    /// The error that the answer tells, if it tells one.
    pub(super) fn error(&self) -> Option<String> {
        match self.json["error"].as_str() {
            None if self.status == StatusCode::OK => None,
            None => Some(format!("the admin API answers {}", self.status)),
            Some(error) => Some(error.to_owned()),
        }
    }

    /// The faults that the answer tells, each on its own.
    pub(super) fn faults(&self) -> Vec<String> {
        let faults = self.json["faults"].as_array().into_iter().flatten();
        faults.filter_map(Value::as_str).map(str::to_owned).collect()
    }
}

impl<'a> Line<'a> {
    /// A line that connects when it is needed.
    pub(super) fn new(endpoint: &'a ApiEndpoint) -> Self {
        Line { endpoint, sender: None }
    }

    /// A line that is connected.
    pub(super) async fn connect(endpoint: &'a ApiEndpoint) -> Result<Self, Error> {
        let failed = |why: hyper::Error| endpoint.unreachable(&why.to_string());
        let stream = TokioIo::new(endpoint.connect().await?);
        let (sender, connection) = http1::handshake(stream).await.map_err(failed)?;
        // Its end is told to who waits for an answer.
        tokio::spawn(connection);
        Ok(Line { endpoint, sender: Some(sender) })
    }

    /// Asks for the state. Cancel safe.
    pub(super) async fn info(&mut self) -> Result<ApiAnswer, Error> {
        let limit = Some(TIME_LIMIT);
        // The API ends a connection when it has had its time.
        if let Some(mut sender) = self.sender.take_if(|sender| !sender.is_closed())
            && let Ok(answer) = self.ask(&mut sender, Method::GET, INFO, "", limit).await
        {
            self.sender = Some(sender);
            return Ok(answer);
        }
        let Some(mut sender) = Line::connect(self.endpoint).await?.sender else {
            return Err(self.endpoint.unreachable("no connection"));
        };
        let answer = self.ask(&mut sender, Method::GET, INFO, "", limit).await?;
        self.sender = Some(sender);
        Ok(answer)
    }

    /// Has the proxy ask its uplink, and waits for what comes of it; the state tells.
    pub(super) async fn probe(&mut self) {
        let limit = Some(PROBE_LIMIT);
        if let Some(mut sender) = self.sender.take()
            && self.ask(&mut sender, Method::GET, "/readyz", "", limit).await.is_ok()
        {
            self.sender = Some(sender);
        }
    }

    /// Sends a command, and gives the answer.
    pub(super) async fn post(
        mut self,
        fields: &[(&str, String)],
        limit: Option<Duration>,
    ) -> Result<ApiAnswer, Error> {
        let Some(mut sender) = self.sender.take() else {
            return Err(self.endpoint.unreachable("no connection"));
        };
        let form = form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
        self.ask(&mut sender, Method::POST, "/cmd/", &form, limit).await
    }

    async fn ask(
        &self,
        sender: &mut SendRequest<Full<Bytes>>,
        method: Method,
        path: &str,
        form: &str,
        limit: Option<Duration>,
    ) -> Result<ApiAnswer, Error> {
        let request = self.request(method, path, form)?;
        let answer = async {
            let lost = |why: hyper::Error| self.endpoint.lost(&reason(&why), !why.is_parse());
            sender.ready().await.map_err(lost)?;
            let response = sender.send_request(request).await.map_err(lost)?;
            self.read(response).await.map_err(|why| self.endpoint.lost(&why, true))
        };
        match limit {
            None => answer.await?,
            Some(limit) => match timeout(limit, answer).await {
                Ok(answer) => answer?,
                Err(_) => {
                    let why = format!("no answer within {} s", limit.as_secs());
                    return Err(self.endpoint.unreachable(&why));
                }
            },
        }
        .ok_or_else(|| {
            self.endpoint.unreachable("what answers there speaks HTTP, but not this API")
        })
    }

    fn request(
        &self,
        method: Method,
        path: &str,
        form: &str,
    ) -> Result<Request<Full<Bytes>>, Error> {
        let mut request =
            Request::builder().method(method).uri(path).header(HOST, self.endpoint.host());
        if !form.is_empty() {
            request = request.header(CONTENT_TYPE, "application/x-www-form-urlencoded");
        }
        if let Some(authorization) = &self.endpoint.authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        request
            .body(Full::new(Bytes::from(form.to_owned())))
            .map_err(|why| Error::Usage(why.to_string()))
    }

    /// Reads an answer; `None` if it is not JSON.
    async fn read(&self, response: Response<Incoming>) -> Result<Option<ApiAnswer>, String> {
        let status = response.status();
        let body = Limited::new(response.into_body(), LONGEST).collect().await;
        let body = body.map_err(|why| why.to_string())?.to_bytes();
        let Ok(json @ Value::Object(_)) = serde_json::from_slice(&body) else { return Ok(None) };
        let body = String::from_utf8_lossy(&body).trim().to_owned();
        Ok(Some(ApiAnswer { status, body, json }))
    }
}

/// The reason of an error with its cause, which hyper's own text leaves out.
fn reason(why: &hyper::Error) -> String {
    let mut text = why.to_string();
    let mut source = std::error::Error::source(why);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
