//! Pages of the documentation that are executed: what they show as a terminal happens.
//!
//! In blocks of the language `console`, a line that begins with `$ ` is a command. It goes on in the lines that begin with
//! `> `, and in those after one that ends with a backslash. The other lines are what it prints. There `…` stands for any text
//! within a line, and alone in a line for any number of lines.

use std::fs::File;
use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Stdio};

use rustix::process::{Pid, Signal, kill_process_group};

use crate::process::{LIMIT, clean};

/// A command and what the page says it prints.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// Line of the page.
    pub line: usize,
    /// The command, as many lines as it has.
    pub command: String,
    /// What it prints.
    pub output: Vec<String>,
}

/// The commands of a page.
pub fn commands(page: &str) -> Vec<Shown> {
    let (mut found, mut inside, mut going_on) = (Vec::<Shown>::new(), false, false);
    for (number, line) in (1..).zip(page.lines()) {
        if line.trim_start().starts_with("```") {
            inside = line.trim() == "```console";
            going_on = false;
        } else if let (true, Some(last), Some(more)) = (inside, found.last_mut(), goes_on(line, going_on)) {
            last.command.push('\n');
            last.command.push_str(more);
            going_on = line.ends_with('\\');
        } else if let (true, Some(command)) = (inside, line.strip_prefix("$ ")) {
            going_on = command.ends_with('\\');
            found.push(Shown { line: number, command: command.to_owned(), output: Vec::new() });
        } else if let (true, Some(last)) = (inside, found.last_mut()) {
            last.output.push(line.to_owned());
        }
    }
    found
}

fn goes_on(line: &str, after_backslash: bool) -> Option<&str> {
    line.strip_prefix("> ").or(after_backslash.then_some(line))
}

/// Whether these lines are what the page shows.
pub fn matches(shown: &[String], printed: &[&str]) -> bool {
    match shown.split_first() {
        None => printed.is_empty(),
        Some((any, rest)) if any == "…" => (0..=printed.len()).any(|skip| matches(rest, &printed[skip..])),
        Some((line, rest)) => printed.first().is_some_and(|first| within(line, first)) && matches(rest, &printed[1..]),
    }
}

fn within(shown: &str, printed: &str) -> bool {
    let printed = printed.trim_end();
    let mut parts = shown.trim_end().split('…');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = printed.strip_prefix(first) else { return false };
    let parts: Vec<&str> = parts.collect();
    let Some((last, middle)) = parts.split_last() else { return rest.is_empty() };
    for part in middle {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

/// A shell in which a page's commands are typed, one after the other, in a folder.
#[derive(Debug)]
struct Shell {
    process: Child,
}

/// Runs a page's commands in a folder, with the programs of another one first in the search path, and compares what they print.
///
/// # Panics
/// A command fails, or prints something else.
pub fn run(page: &Path, folder: &Path, programs: Option<&Path>) {
    let text = std::fs::read_to_string(page).expect("a page");
    let shown = commands(&text);
    assert!(!shown.is_empty(), "{} shows commands", page.display());
    let search = std::env::var("PATH").unwrap_or_default();
    let path = programs.map_or_else(|| search.clone(), |programs| format!("{}:{search}", programs.display()));
    let output = folder.join(".output");
    let mut command = clean("bash".into());
    command
        .current_dir(folder)
        .env("PATH", path)
        .stdin(Stdio::piped())
        .stdout(File::create(&output).expect("a file"))
        .stderr(Stdio::inherit())
        // What runs in the background ends with the shell.
        .process_group(0);
    let mut shell = Shell { process: command.spawn().expect("bash") };
    let mut input = shell.process.stdin.take().expect("its input");
    writeln!(input, "exec 2>&1").expect("a shell that reads");
    let mut read = 0;
    for (number, shown) in shown.iter().enumerate() {
        let end = format!("--- {number} ends with");
        writeln!(input, "{{ {}\n}} </dev/null\necho \"{end} $?\"", shown.command).expect("a shell that reads");
        let printed = wait_for(&output, read, &end, &shown.command);
        let (own, status) = printed.split_once(&end).expect("its end");
        read += own.len() + end.len() + status.find('\n').map_or(status.len(), |at| at + 1);
        let status = status.lines().next().unwrap_or_default().trim();
        let lines: Vec<&str> = own.lines().collect();
        assert!(
            status == "0" && matches(&shown.output, &lines),
            "{}:{}: `{}` ends with {status} and prints\n{own}\ninstead of\n{}",
            page.display(),
            shown.line,
            shown.command,
            shown.output.join("\n")
        );
    }
}

/// What the shell has printed since, when it has printed this.
fn wait_for(output: &Path, read: usize, end: &str, command: &str) -> String {
    let begun = std::time::Instant::now();
    loop {
        let all = std::fs::read(output).expect("its output");
        let text = String::from_utf8_lossy(&all[read..]).into_owned();
        if text.split_once(end).is_some_and(|(_, rest)| rest.contains('\n')) {
            return text;
        }
        assert!(begun.elapsed() < 3 * LIMIT, "`{command}` does not end; so far:\n{text}");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        let _ = kill_process_group(Pid::from_child(&self.process), Signal::KILL);
        let _ = self.process.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_taken_apart_and_compared() {
        let page = "text\n```console\n$ a \\\n    b\nout …\n\n$ c\n```\n```sh\n$ d\n```\n";
        let found = commands(page);
        assert_eq!(found[0].command, "a \\\n    b");
        assert_eq!(found[0].output, ["out …", ""]);
        assert_eq!((found.len(), found[1].command.as_str(), found[1].line), (2, "c", 7));
        let lines = |lines: &[&str]| lines.iter().map(|&line| line.to_owned()).collect::<Vec<_>>();
        for (shown, printed, same) in [
            (&["a … c"][..], &["a b c"][..], true),
            (&["a … c"], &["a b d"], false),
            (&["a…b…c"], &["axbxc"], true),
            (&["…", "z"], &["x", "y", "z"], true),
            (&["…"], &[], true),
            (&["a"], &["a", "b"], false),
            (&["a"], &[], false),
        ] {
            assert_eq!(matches(&lines(shown), printed), same, "{shown:?} {printed:?}");
        }
    }
}
