//! What somebody may have meant who mistyped a name.

/// Most names that are told.
const MOST: usize = 3;
/// How alike two names are, from 0 to 1, so that one may be the other mistyped.
const ALIKE: f64 = 0.8;

/// The end of a message about `wrong`: names like it, or else all of them where they are few, after `otherwise`.
pub(super) fn told<'a>(wrong: &str, names: impl Iterator<Item = &'a str>, otherwise: &str) -> String {
    let names: Vec<&str> = names.collect();
    let mut alike: Vec<(f64, &str)> = names
        .iter()
        .map(|name| (strsim::jaro_winkler(&wrong.to_lowercase(), &name.to_lowercase()), *name))
        .filter(|(alike, _)| *alike >= ALIKE)
        .collect();
    alike.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(b.1)));
    let quoted = |names: &[&str]| names.iter().map(|name| format!("{name:?}")).collect::<Vec<_>>().join(", ");
    let alike: Vec<&str> = alike.into_iter().take(MOST).map(|(_, name)| name).collect();
    match (alike.is_empty(), names.len()) {
        (false, _) => format!("; did you mean {}?", quoted(&alike).replace(", ", " or ")),
        (true, 0) => String::new(),
        (true, 1..=6) => format!("; {otherwise} {}", quoted(&names)),
        (true, count) => format!("; {otherwise} {} and {} more", quoted(&names[..5]), count - 5),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_like_it_come_first_and_few_are_told() {
        let names = ["gw-north-1", "gw-north-2", "gw-south-1", "press"];
        let said = |wrong| told(wrong, names.into_iter(), "there are");
        assert!(said("gw-nroth-1").starts_with("; did you mean \"gw-north-1\" or"), "{}", said("gw-nroth-1"));
        assert_eq!(said("PRESS"), "; did you mean \"press\"?");
        assert_eq!(said("xyz"), "; there are \"gw-north-1\", \"gw-north-2\", \"gw-south-1\", \"press\"");
        let many: Vec<String> = (0..9).map(|number| format!("q{number}")).collect();
        assert!(told("xyz", many.iter().map(String::as_str), "there are").ends_with("\"q4\" and 4 more"));
        assert_eq!(told("xyz", [].into_iter(), "there are"), "");
    }
}
