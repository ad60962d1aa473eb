//! `chat` without a terminal: lines in, answers out, and what of them is sent with the next turn.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::process::Stdio;

use recurve_proto::v1::generate_request::Prompt;

use crate::fake::Fake;
use crate::program::{Ran, interrupt, program, run_with};

/// The conversations that the daemon was sent, as "role: content" lines.
fn conversations(fake: &Fake) -> Vec<Vec<String>> {
    let lines = |request: recurve_proto::v1::GenerateRequest| {
        let Some(Prompt::Chat(chat)) = request.prompt else {
            panic!("not a chat");
        };
        let line = |message: recurve_proto::v1::ChatMessage| format!("{}: {}", message.role, message.content);
        chat.messages.into_iter().map(line).collect()
    };
    fake.requests().into_iter().map(lines).collect()
}

#[test]
fn each_turn_sends_the_conversation_so_far() {
    let fake = Fake::start();
    let ran =
        run_with(&["chat", "--on", &fake.on, "--system", "Be brief."], b"one\n\ntwo\n/reset\n//three\n/exit\nnever\n");
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert_eq!(ran.out, "You said one.\nYou said two.\nYou said /three.\n");
    assert_eq!(
        conversations(&fake),
        [
            &["system: Be brief.", "user: one"][..],
            &["system: Be brief.", "user: one", "assistant: You said one.\n", "user: two"],
            &["system: Be brief.", "user: /three"],
        ]
    );
}

#[test]
fn help_and_unknown_commands_are_answered_here() {
    let fake = Fake::start();
    let ran = run_with(&["chat", "--on", &fake.on], b"/help\n/frob\n");
    assert_eq!((ran.code, ran.out.as_str()), (Some(0), ""));
    assert!(ran.err.contains("/reset"), "{ran:?}");
    assert!(ran.err.contains("/frob is not known"), "{ran:?}");
    assert!(fake.requests().is_empty());
}

#[test]
fn a_script_ends_at_the_first_error() {
    let fake = Fake::start();
    let ran = run_with(&["chat", "--on", &fake.on], b"violations\nnever\n");
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert_eq!(fake.requests().len(), 1);
}

#[test]
fn a_daemon_that_is_gone_between_turns_is_unreachable() {
    let fake = Fake::start();
    let mut child = program(&["chat", "--on", &fake.on]).stdin(Stdio::piped()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    input.write_all(b"one\n").unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    out.read_line(&mut String::new()).unwrap();
    drop(fake);
    input.write_all(b"two\n").unwrap();
    let ran = Ran::from(child.wait_with_output().unwrap());
    assert_eq!(ran.code, Some(3), "{ran:?}");
    // The loss is seen at the next call or before it; the words differ, what to do does not.
    assert!(ran.err.contains("recurved"), "{ran:?}");
    assert_eq!(ran.err.lines().count(), 1, "{ran:?}");
}

#[test]
fn ctrl_c_stops_the_answer_and_what_came_of_it_stays() {
    let fake = Fake::start();
    let mut child = program(&["chat", "--on", &fake.on]).stdin(Stdio::piped()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    let mut out = child.stdout.take().unwrap();
    input.write_all(b"endless\n").unwrap();
    let mut begin = [0; 10];
    out.read_exact(&mut begin).unwrap();
    interrupt(&child);
    input.write_all(b"next\n").unwrap();
    drop(input);
    let mut rest = String::new();
    out.read_to_string(&mut rest).unwrap();
    assert!(rest.ends_with("word \nYou said next.\n") || rest == "\nYou said next.\n", "{rest:?}");
    assert_eq!(child.wait().unwrap().code(), Some(0));

    let conversations = conversations(&fake);
    let [user, assistant, next] = &conversations[1][..] else {
        panic!("{conversations:?}");
    };
    assert_eq!((user.as_str(), next.as_str()), ("user: endless", "user: next"));
    assert!(assistant.starts_with("assistant: word word "), "{assistant}");
}
