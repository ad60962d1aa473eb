//! Requests to a registry: over TLS or not, as whoever the registry wants to know.

use std::sync::{Mutex, PoisonError};

use recurve_bundle::{Digest, MEDIA_INDEX, MEDIA_MANIFEST, Manifest};
use reqwest::header::{ACCEPT, AUTHORIZATION, HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use reqwest::redirect::Policy;
use reqwest::{Certificate, Client, ClientBuilder, RequestBuilder, Response, StatusCode, Url};
use serde::Deserialize;
use tokio::sync::OnceCell;

use crate::access::{Access, is_loopback};
use crate::answer::SILENCE;
use crate::challenge::Challenge;
use crate::error::RegistryError;
use crate::reference::{Repository, Version};
use crate::retry::Retry;

const USER_AGENT: &str = concat!("recurve/", env!("CARGO_PKG_VERSION"));
const REDIRECTS: usize = 5;
/// Most bytes of an answer that holds a token.
const TOKEN: u64 = 256 << 10;
/// The header in which a registry tells a manifest's digest.
pub(crate) const CONTENT_DIGEST: &str = "docker-content-digest";

/// What a request needs at the registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Right {
    Pull,
    Push,
}

/// A repository of a registry, and the way to it.
#[derive(Debug)]
pub struct Registry {
    repository: Repository,
    access: Access,
    client: Client,
    base: OnceCell<Url>,
    /// The header `Authorization` that was accepted last.
    authorization: Mutex<Option<HeaderValue>>,
}

#[derive(Deserialize)]
struct Token {
    #[serde(alias = "access_token")]
    token: String,
}

impl Registry {
    /// Prepares to talk to a registry. Nothing is sent yet.
    ///
    /// # Errors
    /// The authority's certificates cannot be read, or the system has none.
    pub fn new(repository: Repository, access: Access) -> Result<Self, RegistryError> {
        let setup = |problem: String| RegistryError::Setup { registry: repository.registry().to_owned(), problem };
        let own = access.authority.as_deref().map(Certificate::from_pem_bundle).transpose();
        let own = own.map_err(|_| setup("the file of its authority holds no certificates in PEM".to_owned()))?;
        if own.as_ref().is_some_and(Vec::is_empty) {
            return Err(setup("the file of its authority holds no certificates in PEM".to_owned()));
        }
        let client = builder().tls_certs_merge(own.unwrap_or_default()).build();
        let client = match client {
            // Where nothing is encrypted, a system without authorities will do.
            Err(_) if access.plain_http || is_loopback(repository.registry()) => {
                builder().tls_certs_only([]).build().map_err(|error| setup(error.to_string()))?
            }
            Err(_) => {
                return Err(setup(
                    "this system knows no authorities: install its certificates (ca-certificates)".to_owned(),
                ));
            }
            Ok(client) => client,
        };
        Ok(Self { repository, access, client, base: OnceCell::new(), authorization: Mutex::new(None) })
    }

    /// Where this is.
    pub fn repository(&self) -> &Repository {
        &self.repository
    }

    /// How long a link that is lost in the middle of a blob is tried again.
    pub(crate) fn retry(&self) -> Retry {
        self.access.retry
    }

    /// The user's name there.
    pub(crate) fn user(&self) -> Option<&str> {
        self.access.credentials.as_ref().map(|own| own.username.as_str())
    }

    /// The same, in a message.
    pub(crate) fn who(&self) -> String {
        self.user().map_or_else(|| "those who give no name".to_owned(), |user| format!("user `{user}`"))
    }

    /// A manifest's digest and its bytes, as they are hashed.
    ///
    /// # Errors
    /// It is not there, the registry cannot be asked, or its bytes are not those of the digest.
    pub async fn manifest(&self, version: &Version) -> Result<(Digest, Vec<u8>), RegistryError> {
        Retry::BRIEF.run(|| self.manifest_once(version)).await
    }

    async fn manifest_once(&self, version: &Version) -> Result<(Digest, Vec<u8>), RegistryError> {
        let what = format!("manifest {version}");
        let url = self.url(&format!("manifests/{version}")).await?;
        let accept = format!("{MEDIA_MANIFEST}, {MEDIA_INDEX}");
        let response =
            self.send(Right::Pull, &what, &url, || self.client.get(url.clone()).header(ACCEPT, &accept)).await?;
        let response = self.expect(&what, response, &[StatusCode::OK]).await?;
        let told = response.headers().get(CONTENT_DIGEST).and_then(|told| told.to_str().ok()?.parse::<Digest>().ok());
        let bytes = self.whole(&what, response, Manifest::MOST_BYTES).await?;
        let actual = Digest::of(&bytes);
        let declared = match version {
            Version::Digest(digest) => Some(*digest),
            Version::Tag(_) => told,
        };
        match declared {
            Some(declared) if declared != actual => {
                Err(self.wrong(&what, format!("they hash to {actual}, not to {declared}")))
            }
            _ => Ok((actual, bytes)),
        }
    }

    /// An address below the repository.
    pub(crate) async fn url(&self, path: &str) -> Result<Url, RegistryError> {
        let base = self.base.get_or_try_init(|| self.find_base()).await?;
        let path = format!("v2/{}/{path}", self.repository.name());
        base.join(&path).map_err(|error| self.setup(error.to_string()))
    }

    /// An address that the registry gave.
    pub(crate) async fn given(&self, location: &str) -> Result<Url, RegistryError> {
        let base = self.base.get_or_try_init(|| self.find_base()).await?;
        base.join(location).map_err(|error| self.setup(format!("it names the address {location:?}: {error}")))
    }

    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    /// With TLS or without: a registry on loopback is asked what it speaks.
    async fn find_base(&self) -> Result<Url, RegistryError> {
        let registry = self.repository.registry();
        let base = |scheme: &str| {
            Url::parse(&format!("{scheme}://{registry}/")).map_err(|error| self.setup(error.to_string()))
        };
        if self.access.plain_http {
            return base("http");
        }
        let encrypted = base("https")?;
        if !is_loopback(registry) {
            return Ok(encrypted);
        }
        let asked = tokio::time::timeout(SILENCE, self.client.get(encrypted.clone()).send()).await;
        match asked {
            Ok(Err(error)) => match self.failed("its address", error) {
                error @ RegistryError::Untrusted { .. } => Err(error),
                _ => base("http"),
            },
            _ => Ok(encrypted),
        }
    }

    fn setup(&self, problem: String) -> RegistryError {
        RegistryError::Setup { registry: self.repository.registry().to_owned(), problem }
    }

    /// Sends a request to `url`, once more where the registry wants to know who asks. `make` makes it anew each time.
    pub(crate) async fn send(
        &self,
        right: Right,
        what: &str,
        url: &Url,
        make: impl Fn() -> RequestBuilder,
    ) -> Result<Response, RegistryError> {
        let response = self.once(what, self.signed(url, make())).await?;
        if response.status() != StatusCode::UNAUTHORIZED || !self.is_own(url) {
            return Ok(response);
        }
        let challenges = challenges(response.headers());
        if self.authorize(right, what, &challenges).await? {
            self.once(what, self.signed(url, make())).await
        } else {
            Ok(response)
        }
    }

    async fn once(&self, what: &str, request: RequestBuilder) -> Result<Response, RegistryError> {
        match tokio::time::timeout(SILENCE, request.send()).await {
            Ok(response) => response.map_err(|error| self.failed(what, error)),
            Err(_) => Err(self.silent(what)),
        }
    }

    /// The request with what the registry accepted before; nobody else is shown that.
    pub(crate) fn signed(&self, url: &Url, request: RequestBuilder) -> RequestBuilder {
        let known = self.authorization.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match known {
            Some(value) if self.is_own(url) => request.header(AUTHORIZATION, value),
            _ => request,
        }
    }

    fn is_own(&self, url: &Url) -> bool {
        self.base.get().is_some_and(|base| base.origin() == url.origin())
    }

    /// Answers the registry's challenge; whether it is worth to ask again.
    async fn authorize(&self, right: Right, what: &str, challenges: &[Challenge]) -> Result<bool, RegistryError> {
        let own = self.access.credentials.as_ref();
        let value = match (challenges.first(), own) {
            (Some(Challenge::Bearer { realm, service }), _) => {
                let token = self.token(right, what, realm, service.as_deref()).await?;
                HeaderValue::from_str(&format!("Bearer {token}"))
                    .map_err(|_| self.setup("its token is no text".to_owned()))?
            }
            (Some(Challenge::Basic), Some(own)) => {
                use base64::Engine as _;
                let pair = format!("{}:{}", own.username, own.password);
                let text = base64::engine::general_purpose::STANDARD.encode(pair);
                HeaderValue::from_str(&format!("Basic {text}")).map_err(|error| self.setup(error.to_string()))?
            }
            _ => return Ok(false),
        };
        let mut value = value;
        value.set_sensitive(true);
        let mut known = self.authorization.lock().unwrap_or_else(PoisonError::into_inner);
        let news = known.as_ref() != Some(&value);
        *known = Some(value);
        Ok(news)
    }

    /// Fetches a token for the repository.
    async fn token(
        &self,
        right: Right,
        what: &str,
        realm: &str,
        service: Option<&str>,
    ) -> Result<String, RegistryError> {
        let actions = match right {
            Right::Pull => "pull",
            Right::Push => "pull,push",
        };
        let scope = format!("repository:{}:{actions}", self.repository.name());
        let realm = Url::parse(realm).map_err(|_| self.setup("it names no address for tokens".to_owned()))?;
        let encrypted = self.base.get().is_none_or(|base| base.scheme() == "https");
        if encrypted && realm.scheme() != "https" {
            return Err(self.setup("it wants credentials to be sent without TLS".to_owned()));
        }
        let mut request = self.client.get(realm).query(&[("scope", scope.as_str())]);
        if let Some(service) = service {
            request = request.query(&[("service", service)]);
        }
        if let Some(own) = &self.access.credentials {
            request = request.basic_auth(&own.username, Some(&own.password));
        }
        let response = self.once(what, request).await?;
        let response = self.expect(what, response, &[StatusCode::OK]).await?;
        let body = self.whole(what, response, TOKEN).await?;
        let token = serde_json::from_slice::<Token>(&body);
        token.map(|found| found.token).map_err(|_| self.setup("its service for tokens gives none".to_owned()))
    }
}

fn builder() -> ClientBuilder {
    let policy = Policy::custom(|attempt| {
        let before = attempt.previous().last().map(Url::scheme);
        if attempt.previous().len() > REDIRECTS {
            attempt.error("too many redirects")
        } else if before == Some("https") && attempt.url().scheme() != "https" {
            attempt.error("it redirects from TLS to plain HTTP")
        } else {
            attempt.follow()
        }
    });
    // No proxies of the environment: what nobody configured changes nothing.
    Client::builder().user_agent(USER_AGENT).no_proxy().referer(false).connect_timeout(SILENCE).redirect(policy)
}

fn challenges(headers: &HeaderMap) -> Vec<Challenge> {
    let all = headers.get_all(WWW_AUTHENTICATE).iter();
    all.filter_map(|header| Challenge::parse(header.to_str().ok()?)).collect()
}
