//! Asks a proxy's HTTP API, as `curl` does.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1::handshake;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::runtime::{Builder, Runtime};

/// How often a call looks whether it is still wanted.
const LOOK: Duration = Duration::from_millis(50);

/// A proxy's HTTP API.
#[derive(Debug)]
pub struct Admin {
    addr: String,
    pass: Option<SecretString>,
    runtime: Runtime,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// Not `http://host:port`.
    #[error("{0}: not http://host:port")]
    Url(String),
    /// The connection.
    #[error("could not ask {0}: {1}")]
    Connect(String, #[source] io::Error),
    /// HTTP.
    #[error("no answer from {0}: {1}")]
    Http(String, #[source] hyper::Error),
    /// What cannot stand in a request.
    #[error("could not ask {0}: {1}")]
    Request(String, #[source] hyper::http::Error),
    /// Not JSON.
    #[error("the answer of {0} is not JSON: {1}")]
    Json(String, #[source] serde_json::Error),
    /// The caller went away.
    #[error("given up")]
    GivenUp,
}

impl Admin {
    /// `http://host:port`, or that without `http://`.
    pub fn new(url: &str, pass: Option<SecretString>) -> Result<Self, AdminError> {
        let addr = url.strip_prefix("http://").unwrap_or(url).trim_end_matches('/').to_owned();
        if !addr.contains(':') || addr.contains('/') {
            return Err(AdminError::Url(url.to_owned()));
        }
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|why| AdminError::Connect(addr.clone(), why))?;
        Ok(Admin { addr, pass, runtime })
    }

    /// `host:port`.
    pub fn addr(&self) -> &str {
        &self.addr
    }

    /// `GET /info.json`.
    pub fn info(&self) -> Result<Value, AdminError> {
        let asked = self.ask(Method::GET, "/info.json", String::new());
        let limit = Duration::from_secs(5);
        let late = || io::Error::new(io::ErrorKind::TimedOut, "it does not answer");
        self.runtime.block_on(async {
            match tokio::time::timeout(limit, asked).await {
                Ok(answer) => answer.map(|it| it.1),
                Err(_) => Err(AdminError::Connect(self.addr.clone(), late())),
            }
        })
    }

    /// `POST /cmd/` with these fields. It ends early when `given_up`.
    pub fn command(
        &self,
        form: &str,
        given_up: &AtomicBool,
    ) -> Result<(StatusCode, Value), AdminError> {
        self.runtime.block_on(async {
            let mut asked = Box::pin(self.ask(Method::POST, "/cmd/", form.to_owned()));
            loop {
                tokio::select! {
                    answer = &mut asked => return answer,
                    () = tokio::time::sleep(LOOK) => {
                        if given_up.load(Ordering::Relaxed) {
                            return Err(AdminError::GivenUp);
                        }
                    }
                }
            }
        })
    }

    async fn ask(
        &self,
        method: Method,
        path: &str,
        body: String,
    ) -> Result<(StatusCode, Value), AdminError> {
        let addr = || self.addr.clone();
        let http = |why| AdminError::Http(addr(), why);
        // Without a password, an API takes no name that may be an attacker's.
        let host = if self.pass.is_some() { &self.addr } else { "localhost" };
        let mut request = Request::builder().method(method).uri(path).header(HOST, host);
        if let Some(pass) = &self.pass {
            request = request.header(AUTHORIZATION, format!("Bearer {}", pass.expose_secret()));
        }
        let request = request
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(Full::new(Bytes::from(body)))
            .map_err(|why| AdminError::Request(addr(), why))?;
        let stream = TcpStream::connect(&self.addr).await;
        let stream = stream.map_err(|why| AdminError::Connect(addr(), why))?;
        let (mut sender, connection) = handshake(TokioIo::new(stream)).await.map_err(http)?;
        let answer = async {
            let answer = sender.send_request(request).await?;
            let status = answer.status();
            Ok((status, answer.into_body().collect().await?.to_bytes()))
        };
        // The connection must be driven, too; it may end first.
        let mut answer = Box::pin(answer);
        let answered = tokio::select! {
            answered = &mut answer => answered,
            _ = connection => answer.await,
        };
        let (status, body) = answered.map_err(http)?;
        let json = serde_json::from_slice(&body).map_err(|why| AdminError::Json(addr(), why))?;
        Ok((status, json))
    }
}
