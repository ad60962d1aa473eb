//! Reading `tokenizer.json`: what the crate does, with fewer copies of its largest part.

use std::fmt;

use serde::de::value::SeqAccessDeserializer;
use serde::de::{Error, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;
use serde_json::{from_str, json};
use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::{AddedToken, Tokenizer};

/// The file with its model read as BPE, and its other parts as they are written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File<'f> {
    #[serde(borrow)]
    model: Model<'f>,
    #[serde(default)]
    added_tokens: Vec<Added>,
    #[serde(borrow)]
    version: Option<&'f RawValue>,
    #[serde(borrow)]
    truncation: Option<&'f RawValue>,
    #[serde(borrow)]
    padding: Option<&'f RawValue>,
    #[serde(borrow)]
    normalizer: Option<&'f RawValue>,
    #[serde(borrow)]
    pre_tokenizer: Option<&'f RawValue>,
    #[serde(borrow)]
    post_processor: Option<&'f RawValue>,
    #[serde(borrow)]
    decoder: Option<&'f RawValue>,
}

/// A BPE model, as `tokenizer.json` writes it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Model<'f> {
    #[serde(rename = "type")]
    kind: &'f str,
    dropout: Option<f32>,
    unk_token: Option<String>,
    continuing_subword_prefix: Option<String>,
    end_of_word_suffix: Option<String>,
    fuse_unk: Option<bool>,
    byte_fallback: Option<bool>,
    ignore_merges: Option<bool>,
    vocab: Vocabulary,
    merges: Vec<Merge>,
}

impl Model<'_> {
    fn build(self) -> tokenizers::Result<BPE> {
        let merges = self.merges.into_iter().map(|merge| merge.0).collect();
        let mut builder = BPE::builder().vocab_and_merges(self.vocab.0, merges);
        if let Some(dropout) = self.dropout {
            builder = builder.dropout(dropout);
        }
        if let Some(token) = self.unk_token {
            builder = builder.unk_token(token);
        }
        if let Some(prefix) = self.continuing_subword_prefix {
            builder = builder.continuing_subword_prefix(prefix);
        }
        if let Some(suffix) = self.end_of_word_suffix {
            builder = builder.end_of_word_suffix(suffix);
        }
        builder
            .fuse_unk(self.fuse_unk.unwrap_or_default())
            .byte_fallback(self.byte_fallback.unwrap_or_default())
            .ignore_merges(self.ignore_merges.unwrap_or_default())
            .build()
    }
}

/// Tokens and their ids, in a table that was made once and not grown.
struct Vocabulary(Vocab);

impl<'de> Deserialize<'de> for Vocabulary {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pairs;
        impl<'de> Visitor<'de> for Pairs {
            type Value = Vec<(String, u32)>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("tokens with their ids")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(pairs)
            }
        }
        Ok(Self(deserializer.deserialize_map(Pairs)?.into_iter().collect()))
    }
}

/// Two tokens that become one: a pair, or in older files both in one string.
struct Merge((String, String));

impl<'de> Deserialize<'de> for Merge {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pair;
        impl<'de> Visitor<'de> for Pair {
            type Value = Merge;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("two tokens")
            }

            fn visit_str<E: Error>(self, both: &str) -> Result<Merge, E> {
                match both.split_once(' ') {
                    // The crate leaves such a line out.
                    Some(_) if both.starts_with("#version") => Err(E::custom("a version")),
                    Some((one, other)) if !other.contains(' ') => Ok(Merge((one.to_owned(), other.to_owned()))),
                    _ => Err(E::custom("not two tokens")),
                }
            }

            fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Merge, A::Error> {
                Deserialize::deserialize(SeqAccessDeserializer::new(seq)).map(Merge)
            }
        }
        deserializer.deserialize_any(Pair)
    }
}

#[derive(Deserialize)]
struct Added {
    // The crate gives ids by the vocabulary, and wants the file's to be there.
    #[serde(rename = "id")]
    _id: u32,
    #[serde(flatten)]
    token: AddedToken,
}

/// The same without added tokens, and with a model of no tokens.
#[derive(Serialize)]
struct Rest<'f> {
    model: serde_json::Value,
    added_tokens: [(); 0],
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<&'f RawValue>,
    truncation: Option<&'f RawValue>,
    padding: Option<&'f RawValue>,
    normalizer: Option<&'f RawValue>,
    pre_tokenizer: Option<&'f RawValue>,
    post_processor: Option<&'f RawValue>,
    decoder: Option<&'f RawValue>,
}

/// Reads the file's text.
///
/// The crate copies a model four times while it finds out of which kind it is: for Gemma's 256,000 tokens and 580,000 merges that
/// is most of the time. Here a BPE model is read as what it is. Any other file, and one that is wrong, is left to the crate.
pub(crate) fn read(text: &str) -> tokenizers::Result<Tokenizer> {
    let Some(file) = from_str::<File<'_>>(text).ok().filter(|file| file.model.kind == "BPE") else {
        return text.parse();
    };
    let File { model, added_tokens, version, truncation, padding, normalizer, pre_tokenizer, post_processor, decoder } =
        file;
    let empty = json!({"type": "BPE", "vocab": {}, "merges": []});
    let rest = Rest {
        model: empty,
        added_tokens: [],
        version,
        truncation,
        padding,
        normalizer,
        pre_tokenizer,
        post_processor,
        decoder,
    };
    let mut tokenizer: Tokenizer = serde_json::to_string(&rest)?.parse()?;
    tokenizer.with_model(model.build()?);
    tokenizer.add_tokens(added_tokens.into_iter().map(|added| added.token))?;
    Ok(tokenizer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::gemma_like_json;

    /// Asserts that `read` and the crate agree on a file: the same tokenizer, or both refuse it.
    fn is_as_the_crate_reads_it(file: &serde_json::Value) {
        let text = file.to_string();
        let (ours, theirs) = (read(&text), text.parse::<Tokenizer>());
        match (ours, theirs) {
            (Ok(ours), Ok(theirs)) => assert_eq!(ours.to_string(true).unwrap(), theirs.to_string(true).unwrap()),
            (ours, theirs) => assert_eq!(ours.is_err(), theirs.is_err(), "{:?} {:?}", ours.err(), theirs.err()),
        }
    }

    #[test]
    fn the_result_is_the_crates() {
        let good = gemma_like_json();
        is_as_the_crate_reads_it(&good);
        let changed = |change: &dyn Fn(&mut serde_json::Value)| {
            let mut file = good.clone();
            change(&mut file);
            is_as_the_crate_reads_it(&file);
        };
        // A token that is not in the vocabulary, legacy merges, no kind, another kind, parts that are missing or wrong.
        let token = json!({"id": 999, "content": "<new>", "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": true, "special": false});
        changed(&|file| file["added_tokens"].as_array_mut().unwrap().push(token.clone()));
        changed(&|file| file["model"]["merges"] = json!(["\u{2581} t", "h e"]));
        changed(&|file| drop(file["model"].as_object_mut().unwrap().remove("type")));
        changed(&|file| file["model"] = json!({"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"}));
        changed(&|file| drop(file.as_object_mut().unwrap().remove("added_tokens")));
        changed(&|file| drop(file.as_object_mut().unwrap().remove("model")));
        changed(&|file| file["model"]["merges"] = json!([["no", "such"]]));
        changed(&|file| file["added_tokens"][0]["id"] = json!("x"));
        changed(&|file| drop(file["added_tokens"][0].as_object_mut().unwrap().remove("id")));
        changed(&|file| file["version"] = json!("2.0"));
        changed(&|file| file["other"] = json!(1));
        changed(&|file| file["model"]["merges"] = json!(["#version: 0.2", "h e"]));
        changed(&|file| file["model"]["merges"] = json!(["h e e"]));
        changed(&|file| file["model"]["merges"] = json!([["h", "e", "e"]]));
        changed(&|file| file["model"]["other"] = json!(1));
        changed(&|file| file["model"]["dropout"] = json!(0.5));
        changed(&|file| file["model"]["dropout"] = json!(1.5));
        changed(&|file| file["model"]["end_of_word_suffix"] = json!("</w>"));
        changed(&|file| file["model"]["ignore_merges"] = json!(true));
    }
}
