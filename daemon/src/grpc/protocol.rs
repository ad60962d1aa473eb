//! Requests that are no calls of ours: not gRPC at all, of no method that there is, or not to be decoded. The transport's own
//! answers blame the server, or say nothing; here they get a code and words by which a caller can mend the request.

use std::collections::HashMap;

use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use recurve_proto::reason;
use tonic::body::Body;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

/// How the transport's message begins where a request cannot be decoded.
const UNDECODED: &str = "failed to decode Protobuf message: ";
/// The same where it is too long.
const TOO_LONG: &str = "Error, decoded message length too large";

/// The answer to a request that is not gRPC; none where it is.
pub(super) fn not_grpc<B>(request: &Request<B>) -> Option<Response<Body>> {
    let kind = request.headers().get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
    let (status, words) = if request.method() != Method::POST {
        (StatusCode::METHOD_NOT_ALLOWED, "this port speaks gRPC: the method must be POST\n")
    } else if !kind.is_some_and(|kind| kind.starts_with(b"application/grpc")) {
        (StatusCode::UNSUPPORTED_MEDIA_TYPE, "this port speaks gRPC: the content-type must be application/grpc\n")
    } else {
        return None;
    };
    let mut response = Response::new(Body::new(words.to_owned()));
    *response.status_mut() = status;
    // HTTP asks for it beside 405.
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("POST"));
    Some(response)
}

/// An answer of the transport's own in the words of the contract. `known`: whether there is such a method.
pub(super) fn in_our_words(response: Response<Body>, path: &str, known: bool) -> Response<Body> {
    let Some(status) = Status::from_header_map(response.headers()) else { return response };
    let details = || ErrorDetails::with_error_info(reason::INVALID_REQUEST, reason::DOMAIN, HashMap::new());
    match (status.code(), status.message()) {
        (Code::Internal, message) if message.starts_with(UNDECODED) => {
            let words = format!("the request cannot be decoded: {}", &message[UNDECODED.len()..]);
            Status::with_error_details(Code::InvalidArgument, words, details()).into_http()
        }
        (code @ (Code::OutOfRange | Code::ResourceExhausted), message) if message.starts_with(TOO_LONG) => {
            let words = format!("the request is too long ({message}): the node's setting is limits.max_message_bytes");
            Status::with_error_details(code, words, details()).into_http()
        }
        (Code::Unimplemented, "") if !known => Status::unimplemented(format!(
            "this node has no method {path:?}: server reflection lists those that it has"
        ))
        .into_http(),
        _ => response,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(method: Method, kind: Option<&str>) -> Request<()> {
        let builder = Request::builder().method(method);
        let builder = kind.into_iter().fold(builder, |builder, kind| builder.header(header::CONTENT_TYPE, kind));
        builder.body(()).unwrap()
    }

    #[test]
    fn only_posts_of_grpc_pass() {
        let status = |method, kind| not_grpc(&request(method, kind)).map(|response| response.status().as_u16());
        assert_eq!(status(Method::POST, Some("application/grpc")), None);
        assert_eq!(status(Method::POST, Some("application/grpc+proto")), None);
        assert_eq!(status(Method::GET, Some("application/grpc")), Some(405));
        assert_eq!(status(Method::POST, Some("application/json")), Some(415));
        assert_eq!(status(Method::POST, None), Some(415));
    }

    #[test]
    fn the_transports_answers_get_codes_and_words() {
        let answered = |status: Status, known| {
            let response = in_our_words(status.into_http(), "/recurve.v1.X/Y", known);
            Status::from_header_map(response.headers()).unwrap()
        };
        let undecoded = answered(Status::internal(format!("{UNDECODED}GenerateRequest.prompt: not UTF-8")), true);
        assert_eq!(undecoded.code(), Code::InvalidArgument);
        assert_eq!(undecoded.message(), "the request cannot be decoded: GenerateRequest.prompt: not UTF-8");
        assert_eq!(undecoded.get_error_details().error_info().unwrap().reason, reason::INVALID_REQUEST);
        let long = answered(Status::out_of_range(format!("{TOO_LONG}: found 9 bytes")), true);
        assert!(long.code() == Code::OutOfRange && long.message().contains("limits.max_message_bytes"), "{long:?}");
        let unknown = answered(Status::unimplemented(""), false);
        assert!(unknown.message().contains(r#"no method "/recurve.v1.X/Y""#), "{unknown:?}");
        for own in [Status::internal("the engine failed"), Status::unimplemented("not yet")] {
            let kept = answered(own.clone(), false);
            assert_eq!((kept.code(), kept.message()), (own.code(), own.message()));
        }
    }
}
