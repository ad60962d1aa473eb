//! A terminal is given back as it was, whatever ends the program, and gets no escape sequences that it does not understand.

use std::os::unix::process::ExitStatusExt as _;

use rustix::process::Signal;

use crate::fake::Fake;
use crate::program::{run, run_with};
use crate::pty::Pty;

const ENDINGS: [Signal; 3] = [Signal::TERM, Signal::HUP, Signal::QUIT];
const SCREEN: &str = "\x1b[?1049h";
const SCREEN_LEFT: &str = "\x1b[?1049l";

#[test]
fn a_chat_that_is_told_to_end_gives_the_terminal_back() {
    let fake = Fake::start();
    for signal in ENDINGS {
        let mut pty = Pty::start(&["chat", "--on", &fake.on], "xterm-256color");
        pty.wait_for("the prompt", |pty| pty.text().contains("> ") && pty.is_raw());
        // Also in the middle of a line.
        pty.type_in(b"hel");
        pty.wait_for_text("hel", 1);
        pty.send(signal);
        assert_eq!(pty.ended().signal(), Some(signal.as_raw()), "{:?}", pty.text());
        assert!(pty.is_as_before(), "{signal:?}");
        pty.wait_for_text("\x1b[?2004l", 1);
    }
}

#[test]
fn a_live_view_that_is_told_to_end_gives_the_terminal_back() {
    let fake = Fake::start();
    for signal in ENDINGS {
        let mut pty = Pty::start(&["top", "--on", &fake.on], "xterm-256color");
        pty.wait_for_text(SCREEN, 1);
        pty.wait_for("keys", Pty::is_raw);
        pty.send(signal);
        assert_eq!(pty.ended().signal(), Some(signal.as_raw()), "{:?}", pty.text());
        assert!(pty.is_as_before(), "{signal:?}");
        pty.wait_for_text(SCREEN_LEFT, 1);
    }
}

#[test]
fn a_live_view_is_suspended_and_goes_on() {
    let fake = Fake::start();
    let mut pty = Pty::start(&["top", "--on", &fake.on], "xterm-256color");
    for time in 1..=2 {
        pty.wait_for_text(SCREEN, time);
        pty.wait_for("keys", Pty::is_raw);
        // By the key, and from outside.
        if time == 1 {
            pty.type_in(b"\x1a")
        } else {
            pty.send(Signal::TSTP)
        }
        pty.wait_for("standing still", Pty::is_stopped);
        assert!(pty.is_as_before(), "while it stands still");
        pty.wait_for_text(SCREEN_LEFT, time);
        let drawn = pty.text().len();
        pty.send(Signal::CONT);
        pty.wait_for("the picture again", |pty| pty.text().get(drawn..).is_some_and(|text| text.contains("quit")));
    }
    pty.wait_for("keys", Pty::is_raw);
    pty.type_in(b"q");
    assert_eq!(pty.ended().code(), Some(0), "{:?}", pty.text());
    assert!(pty.is_as_before());
}

#[test]
fn a_terminal_without_escape_sequences_gets_none() {
    let fake = Fake::start();
    let mut pty = Pty::start(&["chat", "--on", &fake.on], "dumb");
    pty.wait_for_text("> ", 1);
    pty.type_in(b"one\n");
    pty.wait_for_text("You said one.", 1);
    pty.wait_for_text("> ", 2);
    pty.type_in(b"/exit\n");
    assert_eq!(pty.ended().code(), Some(0), "{:?}", pty.text());
    assert!(!pty.text().contains('\x1b') && pty.is_as_before(), "{:?}", pty.text());

    let mut pty = Pty::start(&["top", "--on", &fake.on], "dumb");
    assert_eq!(pty.ended().code(), Some(2));
    pty.wait_for_text("top --once", 1);
    assert!(!pty.text().contains('\x1b'), "{:?}", pty.text());

    // Progress bars, errors and help.
    let dir = tempfile::tempdir().unwrap();
    let (config, out) = (crate::bundles::config(dir.path(), 96), dir.path().join("bundle"));
    for args in [
        &["export", "--random-weights", &config, "--out", out.to_str().unwrap()][..],
        &["bundle", "verify", out.to_str().unwrap()],
        &["generate", "--max-tokens", "x", "hello"],
        &["--help"],
    ] {
        // No other variable about colours matters on such a terminal.
        for (name, value) in [("NO_COLOR", "1"), ("CI", "true"), ("CLICOLOR", "1"), ("CLICOLOR_FORCE", "1")] {
            let mut pty = Pty::start_with(args, |command| {
                command.env("TERM", "dumb").env(name, value);
            });
            pty.ended();
            assert!(!pty.text().contains('\x1b'), "{args:?}: {:?}", pty.text());
        }
    }
}

#[test]
fn a_byte_that_is_no_text_does_not_end_a_chat() {
    let fake = Fake::start();
    let mut pty = Pty::start(&["chat", "--on", &fake.on], "xterm-256color");
    pty.wait_for("the prompt", |pty| pty.text().contains("> ") && pty.is_raw());
    pty.type_in(b"a\xffb\r");
    pty.wait_for_text("not UTF-8 text", 1);
    pty.wait_for("the prompt again", Pty::is_raw);
    pty.type_in(b"two\r");
    pty.wait_for_text("You said two.", 1);
    pty.wait_for("the prompt again", Pty::is_raw);
    pty.type_in(b"/exit\r");
    assert_eq!(pty.ended().code(), Some(0), "{:?}", pty.text());
    assert_eq!(fake.requests().len(), 1);
}

#[test]
fn lines_of_a_script_that_are_no_text_are_left_out_and_counted() {
    let fake = Fake::start();
    let ran = run_with(&["chat", "--on", &fake.on], b"one\na\xffb\ntwo\n/exit\n");
    assert_eq!((ran.code, ran.out.as_str()), (Some(2), "You said one.\nYou said two.\n"), "{ran:?}");
    assert!(ran.err.contains("line 2 is left out: it is not UTF-8 text (byte 1 is the first wrong one)"), "{ran:?}");
    assert!(ran.err.ends_with("agent-cli: 1 line of standard input was left out: it is not UTF-8 text\n"), "{ran:?}");
    for command in ["generate", "score", "tokenize"] {
        let ran = run_with(&[command, "--on", &fake.on, "-"], b"a\xffb\n");
        assert_eq!(ran.code, Some(2), "{ran:?}");
        assert!(ran.err.contains("standard input is not UTF-8 text: byte 1"), "{ran:?}");
    }
    assert_eq!(run(&["top", "--on", &fake.on]).code, Some(2));
}
