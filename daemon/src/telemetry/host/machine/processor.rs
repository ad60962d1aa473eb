//! The processor's name, from `/proc/cpuinfo`.

/// Implementer, part, and the name that both stand for.
const PARTS: &[(u32, u32, &str)] = &[
    (0x41, 0xb76, "ARM1176"),
    (0x41, 0xc07, "Cortex-A7"),
    (0x41, 0xc08, "Cortex-A8"),
    (0x41, 0xc09, "Cortex-A9"),
    (0x41, 0xc0d, "Cortex-A17"),
    (0x41, 0xc0f, "Cortex-A15"),
    (0x41, 0xd02, "Cortex-A34"),
    (0x41, 0xd03, "Cortex-A53"),
    (0x41, 0xd04, "Cortex-A35"),
    (0x41, 0xd05, "Cortex-A55"),
    (0x41, 0xd06, "Cortex-A65"),
    (0x41, 0xd07, "Cortex-A57"),
    (0x41, 0xd08, "Cortex-A72"),
    (0x41, 0xd09, "Cortex-A73"),
    (0x41, 0xd0a, "Cortex-A75"),
    (0x41, 0xd0b, "Cortex-A76"),
    (0x41, 0xd0c, "Neoverse-N1"),
    (0x41, 0xd0d, "Cortex-A77"),
    (0x41, 0xd0e, "Cortex-A76AE"),
    (0x41, 0xd40, "Neoverse-V1"),
    (0x41, 0xd41, "Cortex-A78"),
    (0x41, 0xd42, "Cortex-A78AE"),
    (0x41, 0xd44, "Cortex-X1"),
    (0x41, 0xd46, "Cortex-A510"),
    (0x41, 0xd47, "Cortex-A710"),
    (0x41, 0xd48, "Cortex-X2"),
    (0x41, 0xd49, "Neoverse-N2"),
    (0x41, 0xd4a, "Neoverse-E1"),
    (0x41, 0xd4b, "Cortex-A78C"),
    (0x41, 0xd4d, "Cortex-A715"),
    (0x41, 0xd4e, "Cortex-X3"),
    (0x41, 0xd4f, "Neoverse-V2"),
    (0x41, 0xd80, "Cortex-A520"),
    (0x41, 0xd81, "Cortex-A720"),
    (0x41, 0xd82, "Cortex-X4"),
    (0x41, 0xd83, "Neoverse-V3AE"),
    (0x41, 0xd84, "Neoverse-V3"),
    (0x41, 0xd85, "Cortex-X925"),
    (0x41, 0xd87, "Cortex-A725"),
    (0x41, 0xd8e, "Neoverse-N3"),
    (0x4e, 0x003, "Denver 2"),
    (0x4e, 0x004, "Carmel"),
    (0x51, 0x001, "Oryon"),
    (0xc0, 0xac3, "Ampere-1"),
    (0xc0, 0xac4, "Ampere-1a"),
];

/// The name: of all kinds of cores where they differ.
pub(super) fn name(cpuinfo: &str) -> Option<String> {
    let parts = fields(cpuinfo, "CPU implementer").zip(fields(cpuinfo, "CPU part"));
    let mut known: Vec<String> = Vec::new();
    for (implementer, part) in parts {
        let name = arm(implementer, part);
        if !known.contains(&name) {
            known.push(name);
        }
    }
    let model = || fields(cpuinfo, "model name").next().filter(|name| !name.is_empty()).map(ToOwned::to_owned);
    if known.is_empty() { model() } else { Some(known.join(" + ")) }
}

/// How many cores are listed.
pub(super) fn cores(cpuinfo: &str) -> u32 {
    u32::try_from(fields(cpuinfo, "processor").count()).unwrap_or(u32::MAX)
}

fn fields<'a>(cpuinfo: &'a str, key: &'static str) -> impl Iterator<Item = &'a str> {
    let pairs = cpuinfo.lines().filter_map(|line| line.split_once(':'));
    pairs.filter(move |(name, _)| name.trim() == key).map(|(_, value)| value.trim())
}

fn arm(implementer: &str, part: &str) -> String {
    let number = |text: &str| u32::from_str_radix(text.trim_start_matches("0x"), 16).ok();
    let (i, p) = (number(implementer), number(part));
    match PARTS.iter().find(|(implementer, part, _)| Some(*implementer) == i && Some(*part) == p) {
        Some((_, _, name)) => (*name).to_owned(),
        None => format!("implementer {implementer}, part {part}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processors_have_names() {
        let core = |part: &str| format!("processor\t: 0\nCPU implementer\t: 0x41\nCPU part\t: {part}\n\n");
        assert_eq!(name(&core("0xd0b")).unwrap(), "Cortex-A76");
        assert_eq!(name(&(core("0xd05") + &core("0xd05") + &core("0xd0b"))).unwrap(), "Cortex-A55 + Cortex-A76");
        assert_eq!(name(&core("0xfff")).unwrap(), "implementer 0x41, part 0xfff");
        let intel = "processor\t: 0\nmodel name\t: Intel(R) Xeon(R) Gold 6338 CPU @ 2.00GHz\n";
        assert_eq!(name(intel).unwrap(), "Intel(R) Xeon(R) Gold 6338 CPU @ 2.00GHz");
        assert_eq!(name("garbage"), None);
        assert_eq!((cores(intel), cores("")), (1, 0));
    }

    #[test]
    fn every_part_is_there_once() {
        assert!(PARTS.windows(2).all(|pair| (pair[0].0, pair[0].1) < (pair[1].0, pair[1].1)));
    }
}
