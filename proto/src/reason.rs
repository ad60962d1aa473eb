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
/// An operator told the node to take no new requests; ask another. UNAVAILABLE.
pub const DRAINING: &str = "DRAINING";
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
/// No model was deployed to the node yet. FAILED_PRECONDITION.
pub const NO_MODEL: &str = "NO_MODEL";
/// The node serves the bundle of its configuration, and keeps no models. FAILED_PRECONDITION.
pub const NOT_MANAGED: &str = "NOT_MANAGED";
/// The caller may not do this. PERMISSION_DENIED.
pub const NOT_ALLOWED: &str = "NOT_ALLOWED";
/// The node's history cannot be read. INTERNAL.
pub const HISTORY_FAILED: &str = "HISTORY_FAILED";
/// The node's store cannot be read or written. INTERNAL.
pub const STORE_FAILED: &str = "STORE_FAILED";
/// The node has no such model. NOT_FOUND; FAILED_PRECONDITION for a roll-back without a model before.
pub const NO_SUCH_MODEL: &str = "NO_SUCH_MODEL";
/// The model is not whole, damaged, or cannot be loaded on the node. FAILED_PRECONDITION.
pub const MODEL_UNUSABLE: &str = "MODEL_UNUSABLE";
/// The model's logits on the node are too far from its golden ones. FAILED_PRECONDITION.
pub const GOLDEN_TEST_FAILED: &str = "GOLDEN_TEST_FAILED";
/// The model is active or the one to go back to, or not ready to become that. FAILED_PRECONDITION.
pub const MODEL_IN_USE: &str = "MODEL_IN_USE";
/// The blob is not the model's, or other bytes came than its digest and size say. INVALID_ARGUMENT.
pub const WRONG_BLOB: &str = "WRONG_BLOB";
/// Fewer bytes came before than the upload wants to go on from. OUT_OF_RANGE.
pub const WRONG_OFFSET: &str = "WRONG_OFFSET";
/// The upload ended early, or another one of the same blob is under way. ABORTED.
pub const UPLOAD_INTERRUPTED: &str = "UPLOAD_INTERRUPTED";
/// The node's memory has no room for it. FAILED_PRECONDITION.
pub const NO_MEMORY: &str = "NO_MEMORY";
/// The registry does not answer, or the link to it stays lost; what came is kept. UNAVAILABLE.
pub const REGISTRY_UNREACHABLE: &str = "REGISTRY_UNREACHABLE";
/// The registry wants credentials, does not accept those that it was given, or shows a certificate that is not accepted.
/// FAILED_PRECONDITION.
pub const REGISTRY_REFUSED: &str = "REGISTRY_REFUSED";
/// The registry has no such model, or not all of it. NOT_FOUND.
pub const REGISTRY_NOT_FOUND: &str = "REGISTRY_NOT_FOUND";
/// The registry gives other bytes than the digest says; nothing of them is kept. DATA_LOSS.
pub const REGISTRY_WRONG_BYTES: &str = "REGISTRY_WRONG_BYTES";
/// The node's settings for registries cannot be used. FAILED_PRECONDITION.
pub const REGISTRY_SETTINGS: &str = "REGISTRY_SETTINGS";
/// As many pulls as may already run or wait at the node. RESOURCE_EXHAUSTED.
pub const PULLS_FULL: &str = "PULLS_FULL";
/// The node's disk has no room for it. FAILED_PRECONDITION.
pub const NO_ROOM: &str = "NO_ROOM";
/// The model is not among those that the node's metadata sign. FAILED_PRECONDITION.
pub const NOT_SIGNED: &str = "NOT_SIGNED";
/// The node has no root of trust, and serves signed models only. FAILED_PRECONDITION.
pub const NO_TRUST_ROOT: &str = "NO_TRUST_ROOT";
/// The node has a root of trust already. ALREADY_EXISTS.
pub const TRUST_INSTALLED: &str = "TRUST_INSTALLED";
/// Metadata have expired. FAILED_PRECONDITION.
pub const TRUST_EXPIRED: &str = "TRUST_EXPIRED";
/// Metadata are older than what the node has. FAILED_PRECONDITION.
pub const TRUST_ROLLED_BACK: &str = "TRUST_ROLLED_BACK";
/// Metadata files do not belong together, or one that others name is missing. INVALID_ARGUMENT.
pub const TRUST_MIXED: &str = "TRUST_MIXED";
/// Metadata have more bytes, or more files, than is ever needed. INVALID_ARGUMENT.
pub const TRUST_TOO_LARGE: &str = "TRUST_TOO_LARGE";
/// Metadata are damaged, or not signed by enough keys of their role. INVALID_ARGUMENT.
pub const TRUST_INVALID: &str = "TRUST_INVALID";
/// The node's clock is behind a time that was reached before, so nobody can say what has expired. FAILED_PRECONDITION.
pub const CLOCK_BEHIND: &str = "CLOCK_BEHIND";
