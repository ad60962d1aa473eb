//! Whether ONNX Runtime is there, and new enough.

use super::{Finding, Patient, Verdict};
use crate::engine::load::Loader;

const CHECK: &str = "onnx runtime";

pub(super) fn check(patient: &Patient<'_>) -> Vec<Finding> {
    if let Some(serving) = patient.serving {
        return vec![match &serving.onnxruntime {
            Some(version) => Finding::ok(CHECK, format!("{version}, loaded")),
            None => Finding::skipped(CHECK, "it is not loaded yet"),
        }];
    }
    vec![match Loader::library(&patient.settings.engine) {
        Ok(library) => Finding::ok(CHECK, format!("{} in {}", library.version(), library.path().display())),
        Err(error) => Finding::new(
            CHECK,
            Verdict::Problem,
            error.to_string(),
            "the package brings it in /usr/lib/recurve; for another one, 1.25 or later, set engine.library or ORT_DYLIB_PATH to its \
             libonnxruntime.so",
        ),
    }]
}
