//! Ends a text before the first of its stop strings, whatever pieces it arrives in.

/// Passes text on, except what may still become a stop string.
///
/// The match that begins first wins; of several that begin at the same place, the one that is complete first, which
/// is the shortest. The text is never held back longer than the longest stop string.
#[derive(Debug)]
pub struct StopFilter {
    stops: Vec<String>,
    held: String,
}

/// What a piece of text did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Filtered {
    /// No stop string is complete: this text may leave.
    Released(String),
    /// A stop string is complete: this text is what was before it, and the last to leave.
    Stopped {
        /// The text before the stop string.
        text: String,
        /// The stop string.
        stop: String,
    },
}

impl StopFilter {
    /// Watches for these strings, none of them empty.
    pub fn new(stops: &[String]) -> Self {
        Self { stops: stops.to_vec(), held: String::new() }
    }

    /// Takes the next piece of text.
    pub fn push(&mut self, text: &str) -> Filtered {
        if self.stops.is_empty() {
            return Filtered::Released(text.to_owned());
        }
        self.held.push_str(text);
        let open = self.first_open();
        match self.first_complete() {
            // An earlier beginning may still be completed and then wins.
            Some((at, stop)) if open.is_none_or(|open| at <= open) => {
                let stop = self.stops[stop].clone();
                let mut text = std::mem::take(&mut self.held);
                text.truncate(at);
                Filtered::Stopped { text, stop }
            }
            _ => {
                let kept = self.held.split_off(open.unwrap_or(self.held.len()));
                Filtered::Released(std::mem::replace(&mut self.held, kept))
            }
        }
    }

    /// The end of the text: what was held back.
    pub fn flush(&mut self) -> Filtered {
        let mut text = std::mem::take(&mut self.held);
        match find(&self.stops, &text) {
            Some((at, stop)) => {
                text.truncate(at);
                Filtered::Stopped { text, stop: self.stops[stop].clone() }
            }
            None => Filtered::Released(text),
        }
    }

    fn first_complete(&self) -> Option<(usize, usize)> {
        find(&self.stops, &self.held)
    }

    /// Where the first suffix begins that a longer stop string begins with.
    fn first_open(&self) -> Option<usize> {
        self.held.char_indices().map(|(at, _)| at).find(|&at| {
            let suffix = &self.held[at..];
            self.stops.iter().any(|stop| stop.len() > suffix.len() && stop.starts_with(suffix))
        })
    }
}

/// The first match: its place, then the shortest.
fn find(stops: &[String], text: &str) -> Option<(usize, usize)> {
    stops
        .iter()
        .enumerate()
        .filter_map(|(index, stop)| text.find(stop.as_str()).map(|at| (at, stop.len(), index)))
        .min()
        .map(|(at, _, index)| (at, index))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// All that leaves, and the stop string.
    fn run(stops: &[String], pieces: &[String]) -> (String, Option<String>) {
        let mut filter = StopFilter::new(stops);
        let mut out = String::new();
        for piece in pieces {
            match filter.push(piece) {
                Filtered::Released(text) => out.push_str(&text),
                Filtered::Stopped { text, stop } => return (out + &text, Some(stop)),
            }
        }
        match filter.flush() {
            Filtered::Released(text) => (out + &text, None),
            Filtered::Stopped { text, stop } => (out + &text, Some(stop)),
        }
    }

    fn owned(texts: &[&str]) -> Vec<String> {
        texts.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn holds_back_only_what_may_become_a_stop_string() {
        let mut filter = StopFilter::new(&owned(&["\n\n", "END"]));
        assert_eq!(filter.push("a\n"), Filtered::Released("a".into()));
        assert_eq!(filter.push("bE"), Filtered::Released("\nb".into()));
        assert_eq!(filter.push("N"), Filtered::Released(String::new()));
        assert_eq!(filter.push("!"), Filtered::Released("EN!".into()));
        assert_eq!(filter.push("xEND y"), Filtered::Stopped { text: "x".into(), stop: "END".into() });
    }

    #[test]
    fn the_first_beginning_wins_even_if_it_is_complete_later() {
        assert_eq!(run(&owned(&["abcd", "bc"]), &owned(&["xabc", "d"])), ("x".into(), Some("abcd".into())));
        assert_eq!(run(&owned(&["abcd", "bc"]), &owned(&["xabc", "e"])), ("xa".into(), Some("bc".into())));
        assert_eq!(run(&owned(&["abcd", "bc"]), &owned(&["xabc"])), ("xa".into(), Some("bc".into())));
    }

    #[test]
    fn of_equal_beginnings_the_shortest_wins() {
        assert_eq!(run(&owned(&["ab", "a"]), &owned(&["xa", "b"])), ("x".into(), Some("a".into())));
        assert_eq!(run(&owned(&["ab", "a"]), &owned(&["xab"])), ("x".into(), Some("a".into())));
    }

    #[test]
    fn characters_of_several_bytes_are_not_cut() {
        assert_eq!(run(&owned(&["é!"]), &owned(&["né", "e", "é", "!"])), ("née".into(), Some("é!".into())));
    }

    proptest! {
        #[test]
        fn pieces_do_not_matter(
            stops in prop::collection::vec("[ab🦀]{1,4}", 0..4),
            pieces in prop::collection::vec("[abc🦀]{0,5}", 0..8),
        ) {
            let whole = pieces.concat();
            let expected = match find(&stops, &whole) {
                Some((at, stop)) => (whole[..at].to_owned(), Some(stops[stop].clone())),
                None => (whole.clone(), None),
            };
            prop_assert_eq!(run(&stops, &pieces), expected);
        }
    }
}
