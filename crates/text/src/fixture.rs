//! A small tokenizer and a chat template built as Gemma's, for tests.

#![allow(clippy::unwrap_used, reason = "fixtures fail as tests do")]

use std::sync::Arc;

use serde_json::json;

use crate::{Message, Tokenizer};

/// The rules that Gemma's template has: <bos>, alternating turns, no system turn, the assistant is "model".
pub const GEMMA_LIKE: &str = "{{ bos_token }}{% if messages[0]['role'] == 'system' %}\
    {{ raise_exception('no system turn') }}{% endif %}\
    {% for message in messages %}\
    {% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('turns must alternate') }}{% endif %}\
    {% set role = 'model' if message['role'] == 'assistant' else message['role'] %}\
    {{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}{% endfor %}\
    {% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}";

/// A conversation of these roles and contents.
pub fn messages(turns: &[(&str, &str)]) -> Vec<Message> {
    turns.iter().map(|(role, content)| Message { role: role.parse().unwrap(), content: (*content).into() }).collect()
}

/// The id of `<bos>` in [`gemma_like`].
pub const BOS: u32 = 2;
/// The id of `<start_of_turn>`.
pub const START_OF_TURN: u32 = 4;
/// The id of the token for byte 0; those of the others follow.
pub const FIRST_BYTE: u32 = 6;

/// A small tokenizer built as Gemma's: special tokens, 256 byte tokens, "▁" for the space, merges.
pub fn gemma_like() -> Arc<Tokenizer> {
    Arc::new(Tokenizer::from_json(&serde_json::to_vec(&gemma_like_json()).unwrap(), GEMMA_LIKE).unwrap())
}

/// The file of that tokenizer.
pub fn gemma_like_json() -> serde_json::Value {
    let specials = ["<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>"];
    let mut tokens: Vec<String> = specials.iter().map(ToString::to_string).collect();
    tokens.extend((0..=255u8).map(|byte| format!("<0x{byte:02X}>")));
    tokens.push("\n".into());
    tokens.push("▁".into());
    tokens.extend(('!'..='~').map(String::from));
    let merges = [("▁", "t"), ("h", "e"), ("▁t", "he"), ("o", "n"), ("▁", "▁")];
    tokens.extend(merges.iter().map(|(a, b)| format!("{a}{b}")));
    tokens.extend(["é".into(), "叫".into()]);
    let vocab: serde_json::Map<_, _> =
        tokens.iter().enumerate().map(|(id, token)| (token.clone(), json!(id))).collect();
    let added: Vec<_> = specials
        .iter()
        .enumerate()
        .map(|(id, token)| {
            json!({"id": id, "content": token, "single_word": false, "lstrip": false, "rstrip": false,
                   "normalized": false, "special": true})
        })
        .collect();
    json!({
        "version": "1.0", "truncation": {"direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0},
        "padding": null, "added_tokens": added,
        "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
        "pre_tokenizer": {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": false},
        "post_processor": {"type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<bos>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"<bos>": {"id": "<bos>", "ids": [2], "tokens": ["<bos>"]}}},
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"}]},
        "model": {"type": "BPE", "dropout": null, "unk_token": "<unk>", "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": true, "byte_fallback": true, "ignore_merges": false,
            "vocab": vocab, "merges": merges.iter().map(|(a, b)| json!([a, b])).collect::<Vec<_>>()}
    })
}
