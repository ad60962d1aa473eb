//! A registry's answers: bounded, and its refusals as errors.

use std::time::Duration;

use reqwest::{Response, StatusCode};
use serde::Deserialize;

use crate::error::RegistryError;
use crate::link::Registry;

/// How long a registry may be silent.
pub(crate) const SILENCE: Duration = Duration::from_secs(30);
/// Most bytes of a refusal that are read,
const REFUSAL: u64 = 16 << 10;
/// and most characters of it that are told.
const TOLD: usize = 200;

#[derive(Deserialize)]
struct Refusal {
    errors: Vec<Fault>,
}

#[derive(Deserialize)]
struct Fault {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}

impl Registry {
    /// The answer, if it has the status that is expected; else what it says is wrong.
    pub(crate) async fn expect(
        &self,
        what: &str,
        response: Response,
        expected: &[StatusCode],
    ) -> Result<Response, RegistryError> {
        let status = response.status();
        if expected.contains(&status) {
            return Ok(response);
        }
        let said = self.said(what, response).await;
        let (repository, what) = (self.repository().clone(), what.to_owned());
        Err(match status {
            StatusCode::UNAUTHORIZED if self.user().is_none() => RegistryError::NoCredentials { repository, what },
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                RegistryError::Refused { repository, what, who: self.who(), said }
            }
            StatusCode::NOT_FOUND => RegistryError::NotFound { repository, what },
            _ => RegistryError::Answer { repository, what, status: status.as_u16(), said },
        })
    }

    /// A refusal in one line.
    pub(crate) async fn said(&self, what: &str, response: Response) -> String {
        let reason = response.status().canonical_reason().unwrap_or("no reason").to_owned();
        let Ok(body) = self.whole(what, response, REFUSAL).await else { return reason };
        let text = match serde_json::from_slice::<Refusal>(&body) {
            Ok(refusal) => {
                let faults = refusal.errors.iter();
                faults.map(|fault| format!("{} {}", fault.code, fault.message)).collect::<Vec<_>>().join("; ")
            }
            Err(_) => String::from_utf8_lossy(&body).into_owned(),
        };
        let text: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
        let text: String = text.chars().filter(|c| !c.is_control()).take(TOLD).collect();
        if text.is_empty() { reason } else { text }
    }

    /// An answer's whole body, of at most `limit` bytes.
    pub(crate) async fn whole(&self, what: &str, mut response: Response, limit: u64) -> Result<Vec<u8>, RegistryError> {
        let mut body = Vec::new();
        while let Some(bytes) = self.piece(what, &mut response).await? {
            if body.len() as u64 + bytes.len() as u64 > limit {
                return Err(self.wrong(what, format!("it has more than {limit} bytes")));
            }
            body.extend_from_slice(&bytes);
        }
        Ok(body)
    }

    /// The next bytes of a body.
    pub(crate) async fn piece(
        &self,
        what: &str,
        response: &mut Response,
    ) -> Result<Option<bytes::Bytes>, RegistryError> {
        match tokio::time::timeout(SILENCE, response.chunk()).await {
            Ok(Ok(bytes)) => Ok(bytes),
            Ok(Err(error)) => Err(self.failed(what, error)),
            Err(_) => Err(self.silent(what)),
        }
    }

    pub(crate) fn silent(&self, what: &str) -> RegistryError {
        let cause = format!("nothing came for {} s", SILENCE.as_secs());
        RegistryError::Lost { repository: self.repository().clone(), what: what.to_owned(), cause }
    }

    pub(crate) fn wrong(&self, what: &str, problem: String) -> RegistryError {
        RegistryError::WrongBytes { repository: self.repository().clone(), what: what.to_owned(), problem }
    }

    /// What went wrong below HTTP.
    pub(crate) fn failed(&self, what: &str, error: reqwest::Error) -> RegistryError {
        let (registry, cause) = (self.repository().registry().to_owned(), root(&error));
        if error.is_builder() || error.is_redirect() {
            return RegistryError::Setup { registry, problem: cause };
        }
        // rustls words it so, and nothing else does.
        if error.is_connect() && cause.contains("certificate") {
            return RegistryError::Untrusted { registry, cause };
        }
        if error.is_connect() {
            return RegistryError::Unreachable { registry, cause };
        }
        RegistryError::Lost { repository: self.repository().clone(), what: what.to_owned(), cause }
    }
}

/// The last cause, in its own words. Addresses are left out: those of storage behind a registry hold keys.
fn root(error: &(dyn std::error::Error + 'static)) -> String {
    let mut cause = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    match cause.downcast_ref::<reqwest::Error>() {
        Some(_) => "the connection failed".to_owned(),
        None => cause.to_string(),
    }
}
