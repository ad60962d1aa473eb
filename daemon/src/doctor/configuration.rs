//! What is wrong with the configuration, each as a finding.

use super::{Finding, Verdict};
use crate::config::Report;

const CHECK: &str = "configuration";

pub(super) fn check(report: &Report) -> Vec<Finding> {
    let notes = report.notes.iter().map(|note| Finding::skipped(CHECK, note));
    problems(report).into_iter().chain(notes).collect()
}

fn problems(report: &Report) -> Vec<Finding> {
    if report.problems.is_empty() {
        return vec![Finding::ok(CHECK, format!("{} keys are right", report.values.len()))];
    }
    let advice = "the daemon does not start with it: correct the value where it is set; `recurved check-config` shows all values and \
                  where each comes from, docs/configuration.md what is allowed";
    let problems = report.problems.iter();
    problems.map(|problem| Finding::new(CHECK, Verdict::Problem, problem.to_string(), advice)).collect()
}
