//! The stable reasons in `google.rpc.ErrorInfo`: programs decide by these, people read the message beside them.

/// `ErrorInfo.domain` of every error of ours.
pub const DOMAIN: &str = "recurve.dev";

/// A field of the request is wrong; `BadRequest` names each one. INVALID_ARGUMENT.
pub const INVALID_REQUEST: &str = "INVALID_REQUEST";
/// The request needs a tokenizer and the bundle has none. FAILED_PRECONDITION.
pub const NO_TOKENIZER: &str = "NO_TOKENIZER";
/// The request is a conversation and the bundle has no chat template. FAILED_PRECONDITION.
pub const NO_CHAT_TEMPLATE: &str = "NO_CHAT_TEMPLATE";
/// The chat template refused the conversation. INVALID_ARGUMENT.
pub const TEMPLATE_REFUSED: &str = "TEMPLATE_REFUSED";
/// Every place in the queue is taken; `RetryInfo` tells when to ask again. RESOURCE_EXHAUSTED.
pub const QUEUE_FULL: &str = "QUEUE_FULL";
/// The caller's deadline passed. DEADLINE_EXCEEDED.
pub const DEADLINE_EXCEEDED: &str = "DEADLINE_EXCEEDED";
/// The node stops; ask again when it is back, or ask another. UNAVAILABLE.
pub const SHUTTING_DOWN: &str = "SHUTTING_DOWN";
/// The engine failed at a step; the node's log says why. INTERNAL.
pub const ENGINE_FAILED: &str = "ENGINE_FAILED";
/// The model gave values that are not numbers for this request. INTERNAL.
pub const NOT_A_NUMBER: &str = "NOT_A_NUMBER";
/// The model is being loaded; `RetryInfo` tells when to ask again. UNAVAILABLE.
pub const LOADING: &str = "LOADING";
/// The bundle's tokenizer or chat template failed, or its parts do not fit together. INTERNAL.
pub const BUNDLE_UNUSABLE: &str = "BUNDLE_UNUSABLE";
/// The caller stopped reading its answer while others waited for its slot. ABORTED.
pub const NOT_READ: &str = "NOT_READ";
