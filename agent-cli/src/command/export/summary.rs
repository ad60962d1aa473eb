//! The result of an export, for people and for programs.

use std::borrow::Cow;
use std::path::Path;

use indicatif::HumanBytes;
use recurve_author::{ChatRules, ChatTemplate, Comparison, Exported};
use recurve_bundle::{parameter_size, shell};
use serde::Serialize;

/// The result for people.
pub(super) fn text(exported: &Exported, out: &Path) -> String {
    let info = &exported.info;
    let block = info.block_size.map_or_else(String::new, |size| format!(", block {size}"));
    let mut text = format!(
        "{} at {}\n\
         digest      {}\n\
         size        {}\n\
         parameters  {}\n\
         weights     {}{block}\n\
         session     {} of state\n",
        info.name,
        out.display(),
        exported.digest,
        HumanBytes(exported.bytes),
        parameter_size(info.parameters),
        info.weights,
        HumanBytes(info.state_bytes()),
    );
    if let Some((name, error)) = worst(exported) {
        text.push_str(&format!("worst error {:.2} % RMS, in {name}\n", 100.0 * error));
    }
    if let Some(comparison) = &exported.comparison {
        text.push_str(&format!(
            "against f32 perplexity {:.4}, {:+.2} %; same likeliest token {:.2} %; mean KL {:.2e} ({} tokens)\n",
            comparison.perplexity,
            100.0 * comparison.loss(),
            100.0 * comparison.top1_agreement,
            comparison.mean_kl,
            comparison.tokens,
        ));
    }
    if !exported.tokenizer {
        text.push_str("tokenizer   none: the model reads and returns token ids only\n");
    }
    for (at, line) in chat(exported).iter().enumerate() {
        text.push_str(&format!("{:<12}{line}\n", if at == 0 { "chat" } else { "" }));
    }
    if !exported.end_tokens.is_empty() {
        text.push_str(&format!("answers end {}\n", exported.end_tokens.join(", ")));
    }
    text.push_str(&format!("\nServe it:   recurved --bundle {}", shell::quote(out)));
    text
}

/// The chat template that was taken, those that were left out, and its rules; nothing where the checkpoint was exported without
/// its tokenizer.
fn chat(exported: &Exported) -> Vec<String> {
    let ChatTemplate { from, unused, .. } = &exported.chat_template;
    if !exported.tokenizer {
        return Vec::new();
    }
    let mut lines = vec![match from {
        Some(from) => format!("template of {from}"),
        None => "no template in the checkpoint: conversations are refused, texts and tokens are taken".to_owned(),
    }];
    if !unused.is_empty() {
        lines.push(format!("templates left out: {}", unused.join(", ")));
    }
    lines.extend(exported.chat_rules.iter().flat_map(rules));
    lines
}

/// The rules of a chat template, in words.
fn rules(rules: &ChatRules) -> Vec<String> {
    if let ([], [(_, words), ..]) = (rules.roles.as_slice(), rules.refused.as_slice()) {
        return vec![format!("refuses every conversation ({words}): send texts or token ids")];
    }
    let alternating = if rules.alternating { "; turns alternate" } else { "" };
    let mut lines = vec![format!("takes the roles {}{alternating}", rules.roles.join(", "))];
    if !rules.refused.is_empty() {
        let refused = rules.refused.iter().map(|(role, words)| format!("{role} ({words})"));
        lines.push(format!("refuses {}", refused.collect::<Vec<_>>().join(", ")));
    }
    let begins = if rules.begins {
        "begins with the model's first token"
    } else {
        "does not write the model's first token, and the daemon does not add it"
    };
    lines.push(match rules.opening.as_str() {
        "" => format!("{begins}; writes nothing to open an answer"),
        opening => format!("{begins}; opens an answer with {opening:?}"),
    });
    if let Some((id, token)) = &rules.unended {
        lines.push(format!(
            "warning: {token} ({id}) follows an answer, but is not an end token: add {id} to eos_token_id in \
             generation_config.json, and export again"
        ));
    }
    lines
}

/// The matrix that moved most, and how far; none where nothing was rounded.
fn worst(exported: &Exported) -> Option<(&str, f64)> {
    let error = |report: &recurve_author::TensorReport| report.relative_rms;
    let report = exported.reports.iter().max_by(|a, b| error(a).total_cmp(&error(b)))?;
    (report.relative_rms > 0.0).then_some((report.name.as_str(), report.relative_rms))
}

/// The result for programs.
#[derive(Debug, Serialize)]
pub(super) struct Report<'a> {
    name: &'a str,
    digest: String,
    /// The bundle's directory; characters that are no UTF-8 are replaced.
    path: Cow<'a, str>,
    bytes: u64,
    parameters: u64,
    weights: &'a str,
    block_size: Option<u32>,
    /// Bytes that one session carries.
    state_bytes: u64,
    tokenizer: bool,
    /// The checkpoint's file that the chat template comes from.
    chat_template: Option<&'a str>,
    /// Chat templates that were left out.
    unused_chat_templates: &'a [String],
    /// What the chat template does.
    chat_rules: Option<&'a ChatRules>,
    /// The tokens that end an answer, as the vocabulary has them.
    end_tokens: &'a [String],
    worst_tensor: Option<&'a str>,
    /// Root mean square of its error over that of its values.
    worst_relative_rms: Option<f64>,
    /// How the stored weights read the file of --compare.
    comparison: Option<&'a Comparison>,
}

impl<'a> Report<'a> {
    pub(super) fn new(exported: &'a Exported, out: &'a Path) -> Self {
        let info = &exported.info;
        let worst = worst(exported);
        Self {
            name: &info.name,
            digest: exported.digest.to_string(),
            path: out.to_string_lossy(),
            bytes: exported.bytes,
            parameters: info.parameters,
            weights: &info.weights,
            block_size: info.block_size,
            state_bytes: info.state_bytes(),
            tokenizer: exported.tokenizer,
            chat_template: exported.chat_template.from.as_deref(),
            unused_chat_templates: &exported.chat_template.unused,
            chat_rules: exported.chat_rules.as_ref(),
            end_tokens: &exported.end_tokens,
            worst_tensor: worst.map(|(name, _)| name),
            worst_relative_rms: worst.map(|(_, error)| error),
            comparison: exported.comparison.as_ref(),
        }
    }
}

#[cfg(test)]
mod tests {
    use recurve_bundle::{ARCHITECTURE, Digest, INFO_FORMAT, ModelInfo};

    use super::*;

    /// A model whose chat template comes from this file.
    fn exported(from: Option<&str>, unused: &[&str]) -> Exported {
        Exported {
            info: ModelInfo {
                format: INFO_FORMAT,
                name: "tiny".to_owned(),
                architecture: ARCHITECTURE.to_owned(),
                parameters: 1_000,
                hidden_size: 8,
                layers: 1,
                vocab_size: 16,
                window: 4,
                max_chunk: 4,
                weights: "f32".to_owned(),
                block_size: None,
                states: Vec::new(),
                bos_token: None,
                end_tokens: Vec::new(),
            },
            digest: Digest::of(b""),
            bytes: 1_000,
            reports: Vec::new(),
            comparison: None,
            tokenizer: true,
            chat_template: ChatTemplate {
                text: from.map(|_| "template".to_owned()),
                from: from.map(str::to_owned),
                unused: unused.iter().map(ToString::to_string).collect(),
            },
            chat_rules: None,
            end_tokens: Vec::new(),
        }
    }

    /// The lines about the chat template, without the margin.
    fn chat_lines(exported: &Exported) -> Vec<String> {
        let text = text(exported, Path::new("out"));
        let lines = text.lines().skip_while(|line| !line.starts_with("chat "));
        let lines = lines.enumerate().take_while(|(at, line)| *at == 0 || line.starts_with("            "));
        lines.map(|(_, line)| line[12..].to_owned()).collect()
    }

    #[test]
    fn the_chat_template_is_named_with_its_file() {
        for from in ["tokenizer_config.json", "chat_template.jinja", "chat_template.json"] {
            assert_eq!(chat_lines(&exported(Some(from), &[])), [format!("template of {from}")]);
        }
    }

    #[test]
    fn a_checkpoint_without_a_chat_template_takes_no_conversations() {
        let words = "no template in the checkpoint: conversations are refused, texts and tokens are taken";
        assert_eq!(chat_lines(&exported(None, &[])), [words]);
        // It may have templates that nothing asks for.
        let more = "additional_chat_templates/rag.jinja";
        assert_eq!(chat_lines(&exported(None, &[more])), [words.to_owned(), format!("templates left out: {more}")]);
    }

    #[test]
    fn templates_that_were_left_out_are_named() {
        let unused = ["tokenizer_config.json", "tool_use in chat_template.json"];
        assert_eq!(
            chat_lines(&exported(Some("chat_template.jinja"), &unused)),
            [
                "template of chat_template.jinja",
                "templates left out: tokenizer_config.json, tool_use in chat_template.json"
            ]
        );
    }

    #[test]
    fn the_rules_of_a_chat_template_follow_its_file() {
        let mut exported = exported(Some("tokenizer_config.json"), &[]);
        exported.chat_rules = Some(ChatRules {
            roles: vec!["user", "assistant"],
            refused: vec![("system", "System role not supported".to_owned())],
            alternating: true,
            begins: true,
            opening: "<start_of_turn>model\n".to_owned(),
            unended: Some((107, "<end_of_turn>".to_owned())),
        });
        assert_eq!(
            chat_lines(&exported),
            [
                "template of tokenizer_config.json",
                "takes the roles user, assistant; turns alternate",
                "refuses system (System role not supported)",
                r#"begins with the model's first token; opens an answer with "<start_of_turn>model\n""#,
                "warning: <end_of_turn> (107) follows an answer, but is not an end token: add 107 to eos_token_id in \
                 generation_config.json, and export again",
            ]
        );
    }

    #[test]
    fn a_template_that_refuses_everything_is_told() {
        let mut exported = exported(Some("chat_template.jinja"), &[]);
        exported.chat_rules = Some(ChatRules {
            roles: Vec::new(),
            refused: vec![("user", "tools only".to_owned())],
            alternating: false,
            begins: false,
            opening: String::new(),
            unended: None,
        });
        let told = "refuses every conversation (tools only): send texts or token ids";
        assert_eq!(chat_lines(&exported), ["template of chat_template.jinja", told]);
    }

    #[test]
    fn without_a_tokenizer_nothing_is_said_of_conversations() {
        let exported = Exported { tokenizer: false, ..exported(None, &[]) };
        let text = text(&exported, Path::new("my model"));
        assert!(text.contains("\ntokenizer   none: the model reads and returns token ids only\n"), "{text}");
        assert!(!text.contains("\nchat ") && !text.contains("conversations"), "{text}");
        assert!(text.ends_with("\nServe it:   recurved --bundle 'my model'"), "{text}");
    }
}
