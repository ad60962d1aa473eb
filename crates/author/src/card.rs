//! The model card, and the report on quantization that it sums up.

use std::collections::BTreeMap;
use std::fmt::Write;

use recurve_bundle::{Golden, ModelInfo, parameter_size};
use recurve_model::TensorReport;
use serde::Serialize;

use crate::compare::Comparison;

/// The file `quantization.json`: how far every matrix moved when it was stored.
#[derive(Debug, Serialize)]
pub(crate) struct QuantizationReport<'a> {
    /// 1.
    pub(crate) format: u32,
    /// `f32`, `int8` or `int4`.
    pub(crate) weights: &'a str,
    /// The largest block that was asked for.
    pub(crate) block_size: Option<u32>,
    /// How many tokens the model read to find out what matters in each matrix.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) calibration_tokens: Option<u64>,
    /// How the stored weights read the texts that they were to be judged by.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) comparison: Option<&'a Comparison>,
    /// In the order of the shards.
    pub(crate) tensors: &'a [TensorReport],
}

/// The checkpoint's own card, or a title where it has none, and the section that this export adds.
pub(crate) fn card(
    own: Option<&str>,
    info: &ModelInfo,
    bytes: u64,
    report: &QuantizationReport<'_>,
    golden: &Golden,
) -> String {
    let mut card = match own {
        Some(own) => format!("{}\n\n", own.trim_end()),
        None => format!("# {}\n\nA RecurrentGemma model, exported to ONNX by Recurve.\n\n", info.name),
    };
    // Writing to a String cannot fail.
    let _ = section(&mut card, info, bytes, report, golden);
    card
}

fn section(
    card: &mut String,
    info: &ModelInfo,
    bytes: u64,
    report: &QuantizationReport<'_>,
    golden: &Golden,
) -> std::fmt::Result {
    let weights = match info.block_size {
        Some(size) => format!("{} in blocks of up to {size} values with one scale each", info.weights),
        None => info.weights.clone(),
    };
    writeln!(card, "## Quantization\n")?;
    writeln!(card, "| | |\n|---|---|")?;
    writeln!(card, "| Parameters | {} ({}) |", parameter_size(info.parameters), info.parameters)?;
    writeln!(card, "| Weights | {weights} |")?;
    writeln!(card, "| Size of the weights | {bytes} bytes |")?;
    writeln!(card, "| State of one session | {} bytes |", info.state_bytes())?;
    if let Some(tokens) = report.calibration_tokens {
        writeln!(card, "| Rounded by what matters over | {tokens} tokens |")?;
    }
    if let Some(comparison) = report.comparison {
        compared(card, comparison)?;
    }
    writeln!(
        card,
        "\nError of each group of matrices: root mean square of the error over that of the values, for the group and for \
         its worst matrix, and the largest error of one value. `quantization.json` has every matrix.\n"
    )?;
    writeln!(card, "| group | matrices | stored as | relative RMS | worst | largest error |")?;
    writeln!(card, "|---|---|---|---|---|---|")?;
    for (name, group) in groups(report.tensors) {
        writeln!(
            card,
            "| {name} | {} | {} | {:.2e} | {:.2e} | {:.2e} |",
            group.len(),
            stored_as(&group),
            mean_square(&group).sqrt(),
            largest(&group, |report| report.relative_rms),
            largest(&group, |report| report.max_abs),
        )?;
    }
    writeln!(
        card,
        "\nThe golden test has {} tokens and the logits after the last {}, computed in f32 with the weights as they are \
         stored here: what any runtime must give, within the tolerance beside them.",
        golden.tokens.len(),
        golden.positions
    )
}

fn compared(card: &mut String, comparison: &Comparison) -> std::fmt::Result {
    let Comparison { tokens, mean_kl, top1_agreement, perplexity_f32, perplexity } = comparison;
    writeln!(
        card,
        "\nAgainst the checkpoint in f32, over {tokens} tokens of the texts that were given to compare them:\n"
    )?;
    writeln!(card, "| | |\n|---|---|")?;
    writeln!(card, "| Mean KL divergence | {mean_kl:.2e} nats |")?;
    writeln!(card, "| Same likeliest token | {:.2} % |", 100.0 * top1_agreement)?;
    writeln!(card, "| Perplexity, in f32 | {perplexity_f32:.4} |")?;
    writeln!(card, "| Perplexity, as stored | {perplexity:.4} ({:+.2} %) |", 100.0 * comparison.loss())
}

/// Matrices with the same place in their layers, by name.
fn groups(reports: &[TensorReport]) -> BTreeMap<String, Vec<&TensorReport>> {
    let mut groups = BTreeMap::<_, Vec<_>>::new();
    for report in reports {
        groups.entry(group_of(report)).or_default().push(report);
    }
    groups
}

/// The matrix's place in its layer, from the checkpoint's names: `mlp_block.gate_proj + up_proj`.
fn group_of(report: &TensorReport) -> String {
    let place = |name: &str| {
        let name = name.strip_prefix("model.").unwrap_or(name);
        let name = name.strip_suffix(".weight").unwrap_or(name);
        match name.strip_prefix("layers.").and_then(|rest| rest.split_once('.')) {
            Some((_, place)) => place.to_owned(),
            None => name.to_owned(),
        }
    };
    let mut parts = report.sources.iter().map(|source| place(source));
    let mut name = parts.next().unwrap_or_else(|| report.name.clone());
    for part in parts {
        let last = part.rsplit('.').next().unwrap_or(&part);
        name.push_str(" + ");
        name.push_str(last);
    }
    name
}

fn stored_as(group: &[&TensorReport]) -> String {
    let mut kinds: Vec<String> = Vec::new();
    for report in group {
        let kind = match report.block_size {
            Some(size) => format!("{}, block {size}", report.format),
            None => report.format.to_owned(),
        };
        if !kinds.contains(&kind) {
            kinds.push(kind);
        }
    }
    kinds.join("; ")
}

/// The mean of the squared relative errors, each matrix weighed by its number of values.
fn mean_square(group: &[&TensorReport]) -> f64 {
    let size = |report: &TensorReport| report.shape.iter().map(|&n| n as f64).product::<f64>();
    let total: f64 = group.iter().map(|report| size(report)).sum();
    let sum: f64 = group.iter().map(|report| size(report) * report.relative_rms * report.relative_rms).sum();
    if total > 0.0 { sum / total } else { 0.0 }
}

fn largest(group: &[&TensorReport], value: fn(&TensorReport) -> f64) -> f64 {
    group.iter().map(|report| value(report)).fold(0.0, f64::max)
}
