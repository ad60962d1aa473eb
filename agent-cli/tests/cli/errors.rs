//! Whatever goes wrong: one clear message on standard error, its own exit code, and no result on standard output.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener};

use crate::fake::Fake;
use crate::program::{Ran, run, run_with};

fn ask(fake: &Fake, prompt: &str) -> Ran {
    run(&["generate", "--on", &fake.on, prompt])
}

/// Checks the code and that standard error is this many lines and holds these words.
fn check(ran: &Ran, code: i32, lines: usize, words: &[&str]) {
    assert_eq!(ran.code, Some(code), "{ran:?}");
    assert!(ran.err.starts_with("agent-cli: "), "{ran:?}");
    assert_eq!(ran.err.lines().count(), lines, "{ran:?}");
    for word in words {
        assert!(ran.err.contains(word), "{word:?} is missing in {ran:?}");
    }
}

#[test]
fn wrong_fields_have_a_line_each() {
    let fake = Fake::start();
    let ran = ask(&fake, "violations");
    check(
        &ran,
        1,
        3,
        &[
            "refused: 2 fields are wrong\n",
            "\n  sampling.top_p: 7 is not above 0 and up to 1\n",
            "\n  stop[0]: is empty\n",
        ],
    );
    assert_eq!(ran.out, "");
}

#[test]
fn a_busy_daemon_says_when_to_come_back() {
    check(&ask(&Fake::start(), "busy"), 6, 1, &["the queue is full", "ask again in 1.5 s"]);
}

#[test]
fn without_a_chat_template_the_way_out_is_raw() {
    check(&ask(&Fake::start(), "template"), 1, 1, &["no chat template", "--raw"]);
}

#[test]
fn a_daemon_that_fails_or_stops_is_told_apart() {
    let fake = Fake::start();
    check(&ask(&fake, "internal"), 1, 1, &["failed: the engine failed"]);
    check(&ask(&fake, "unavailable"), 3, 1, &["cannot answer now: shutting down"]);
}

#[test]
fn what_a_daemon_says_cannot_steer_the_terminal() {
    let ran = ask(&Fake::start(), "escape");
    assert!(!ran.err.contains('\x1b'), "{ran:?}");
}

#[test]
fn an_answer_that_breaks_off_is_incomplete() {
    let fake = Fake::start();
    for prompt in ["dead", "shutdown"] {
        let ran = ask(&fake, prompt);
        check(&ran, 4, 1, &[&fake.on]);
        assert_eq!(ran.out, "half of\n", "{prompt}");
    }
    let ran = ask(&fake, "broken");
    check(&ran, 1, 1, &["the engine failed"]);
    assert_eq!(ran.out, "half of\n");
}

#[test]
fn a_connection_that_dies_in_the_middle_leaves_an_incomplete_answer() {
    let fake = Fake::start();
    let mut child = crate::program::program(&["generate", "--on", &fake.on, "endless"]).spawn().unwrap();
    let mut begin = [0; 5];
    child.stdout.as_mut().unwrap().read_exact(&mut begin).unwrap();
    drop(fake);
    let ran = Ran::from(child.wait_with_output().unwrap());
    check(&ran, 4, 1, &["broke before the answer was complete"]);
    assert!(ran.out.ends_with('\n'), "{ran:?}");
}

#[test]
fn json_of_an_answer_that_breaks_off_is_not_printed() {
    let fake = Fake::start();
    let ran = run(&["generate", "--on", &fake.on, "--format", "json", "dead"]);
    check(&ran, 4, 1, &[]);
    assert_eq!(ran.out, "");
}

#[test]
fn the_time_limit_holds() {
    let fake = Fake::start();
    for prompt in ["silent", "endless"] {
        let ran = run(&["generate", "--on", &fake.on, "--timeout", "100ms", prompt]);
        check(&ran, 5, 1, &["--timeout"]);
    }
}

#[test]
fn where_nobody_listens_the_message_says_what_to_do() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let ran = run(&["tokenize", "--on", &format!("127.0.0.1:{port}"), "x"]);
    check(&ran, 3, 1, &["nothing listens there", "start it with `recurved`", "--on"]);

    let ran = run(&["chat", "--on", "unix:/nowhere/recurved.sock"]);
    check(&ran, 3, 1, &["no such socket", "start it with `recurved`"]);

    let dir = tempfile::tempdir().unwrap();
    let (folder, file) = (dir.path().to_str().unwrap(), dir.path().join("file"));
    std::fs::write(&file, "").unwrap();
    check(&run(&["status", "--on", &format!("unix:{folder}")]), 3, 1, &["that is a directory: name the socket in it"]);
    check(&run(&["status", "--on", &format!("unix:{folder}/file")]), 3, 1, &["that is a file and not a socket"]);
    check(&run(&["status", "--on", folder]), 2, 1, &[&format!("write `unix:{folder}`")]);

    let ran = run(&["generate", "--on", "no-such-host.invalid:50051", "x"]);
    check(&ran, 3, 1, &["no-such-host.invalid:50051"]);
}

#[test]
fn what_is_no_grpc_server_is_called_that() {
    let certificates = "if the daemon wants TLS, name certificates with --ca, --certificate and --key";
    let replies: [(&[u8], &str); 4] = [
        (b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n", "an HTTP/1 server answers there, not recurved"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", certificates),
        (b"\x15\x03\x03\x00\x02\x02\x46", "it speaks TLS, and no certificates were given: name them with --ca"),
        (b"", certificates),
    ];
    for (reply, words) in replies {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut preface = [0; 24];
                stream.read_exact(&mut preface).unwrap();
                stream.write_all(reply).unwrap();
                // A socket that is closed before all of it was read is reset, and the reply may be lost.
                stream.shutdown(Shutdown::Write).unwrap();
                let _ = std::io::copy(&mut stream, &mut std::io::sink());
            }
        });
        let ran = run(&["generate", "--on", &address, "x"]);
        check(&ran, 3, 1, &[&address, words]);
    }
}

#[test]
fn wrong_command_lines_are_named() {
    let ran = run(&["generate", "--on", "http://gateway:50051", "x"]);
    check(&ran, 2, 1, &["leave out `http://`", "unix:/path"]);
    let ran = run(&["generate", "--top-logprobs", "3", "x"]);
    check(&ran, 2, 1, &["--format json"]);
    let ran = run_with(&["generate", "-"], b"\xff");
    check(&ran, 2, 1, &["not UTF-8", "byte 0"]);
    let ran = run_with(&["detokenize", "-"], b"2,x");
    check(&ran, 2, 1, &["\"x\" is not a token id"]);
    for args in [
        &["generate"][..],
        &["generate", "--tokens", "2", "words"],
        &["generate", "--timeout", "30", "x"],
        &["score"],
        &["bench", "--concurrency", "0"],
        &["frobnicate"],
    ] {
        assert_eq!(run(args).code, Some(2), "{args:?}");
    }
}

#[test]
fn help_lists_the_exit_codes() {
    let ran = run(&["--help"]);
    assert_eq!(ran.code, Some(0));
    assert!(ran.out.contains("Exit codes:\n    0  done\n"), "{}", ran.out);
}
