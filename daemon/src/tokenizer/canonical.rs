//! A `tokenizer.json` of any version, in the format that the crate reads.

use std::collections::BTreeMap;

use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Map, Value, from_str};
use tokenizers::canonicalize_value;

/// The values of an object, as they are written.
type Written<'a> = BTreeMap<String, &'a RawValue>;

/// The parts of the model that are nearly the whole file.
const LARGE: [&str; 2] = ["vocab", "merges"];

/// The same tokenizer in the present format. Vocabulary and merges are passed on as they are written: to take hundreds of
/// thousands of them apart and write them anew takes as long as reading them.
///
/// # Errors
/// It is not JSON, or not a tokenizer; in words.
pub(super) fn canonical(text: &str) -> Result<String, String> {
    let mut file: Written<'_> = from_str(text).map_err(words)?;
    let Some(model) = file.remove("model") else { return Err("it has no `model`".to_owned()) };
    let mut model: Written<'_> = from_str(model.get()).map_err(words)?;
    let mut large = Vec::new();
    for name in LARGE {
        if let Some(&written) = model.get(name)
            && let Some(empty) = placeholder(written.get())
        {
            model.remove(name);
            large.push((name, written, empty));
        }
    }
    let mut small = values(&file)?;
    let mut parts = values(&model)?;
    parts.extend(large.iter().map(|(name, _, empty)| ((*name).to_owned(), empty.clone())));
    small.insert("model".to_owned(), Value::Object(parts));
    let mut small = Value::Object(small);
    canonicalize_value(&mut small).map_err(|error| error.to_string())?;

    let mut file = written(&small)?;
    let mut model = written(&small["model"])?;
    model.extend(large.iter().map(|&(name, written, _)| (name, written.to_owned())));
    file.insert("model", to_raw_value(&model).map_err(words)?);
    serde_json::to_string(&file).map_err(words)
}

/// What stands for a large part that needs no change: an object, or a list of lists. A list of texts is the old spelling
/// of merges.
fn placeholder(written: &str) -> Option<Value> {
    match written.strip_prefix('[') {
        Some(rest) => rest.trim_start().starts_with(['[', ']']).then(|| Value::Array(Vec::new())),
        None => written.starts_with('{').then(|| Value::Object(Map::new())),
    }
}

fn values(written: &Written<'_>) -> Result<Map<String, Value>, String> {
    written.iter().map(|(name, raw)| Ok((name.clone(), from_str(raw.get()).map_err(words)?))).collect()
}

fn written(value: &Value) -> Result<BTreeMap<&str, Box<RawValue>>, String> {
    let entries = value.as_object().into_iter().flatten();
    entries.map(|(name, value)| Ok((name.as_str(), to_raw_value(value).map_err(words)?))).collect()
}

fn words(error: serde_json::Error) -> String {
    error.to_string()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// What the crate's own, slower way makes of it.
    fn reference(text: &str) -> Value {
        from_str(&tokenizers::canonicalize_str(text).unwrap()).unwrap()
    }

    fn file(model: Value) -> String {
        json!({
            "version": "1.0", "added_tokens": [], "normalizer": null, "decoder": {"type": "Fuse"},
            "pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "never", "split": false},
            "post_processor": {"type": "BertProcessing", "sep": ["b", 1], "cls": ["a", 0]},
            "model": model
        })
        .to_string()
    }

    #[test]
    fn is_what_the_crate_makes_of_it() {
        let vocab = json!({"a": 0, "b": 1, "ab": 2, "\"é\\": 3});
        for model in [
            json!({"type": "BPE", "vocab": vocab, "merges": [["a", "b"]]}),
            json!({"vocab": vocab, "merges": ["#version: 0.2", "a b"], "unk_token": null}),
            json!({"vocab": vocab, "merges": []}),
            json!({"vocab": vocab, "merges": null}),
            json!({"vocab": [["a", -1.5], ["b", -2.0]], "unk_id": 0}),
            json!({"vocab": vocab}),
        ] {
            let text = file(model);
            let ours = canonical(&text).unwrap();
            assert_eq!(from_str::<Value>(&ours).unwrap(), reference(&text), "{text}");
            // The present format stays what it is.
            assert_eq!(from_str::<Value>(&canonical(&ours).unwrap()).unwrap(), reference(&text));
        }
    }

    #[test]
    fn says_what_is_no_tokenizer() {
        for text in
            ["", "[1", "[]", "{}", r#"{"model": 3}"#, r#"{"model": {"merges": 3}}"#, r#"{"model": {"merges": [3]}}"#]
        {
            assert!(canonical(text).is_err_and(|error| !error.is_empty()), "{text}");
        }
    }
}
