//! The daemon writes escape sequences only to a terminal that understands them, and whose user wants them.

use recurve_tests::process::{binary, clean, run};

/// The output of `recurved` on a terminal, with these variables.
fn on_a_terminal(args: &str, variables: &[(&str, &str)]) -> String {
    let mut script = clean("script".into());
    script.args(["-qec", &format!("{} {args}", binary("recurved").display()), "/dev/null"]);
    for name in ["NO_COLOR", "CI", "CLICOLOR", "CLICOLOR_FORCE", "JOURNAL_STREAM"] {
        script.env_remove(name);
    }
    let ran = run(script.envs(variables.iter().copied()));
    assert!(!ran.stdout.is_empty(), "{ran:?}");
    ran.stdout
}

#[test]
fn help_and_errors_have_colours_where_they_are_understood() {
    for args in ["--help", "--bundel x"] {
        assert!(on_a_terminal(args, &[("TERM", "xterm")]).contains('\x1b'), "{args}");
        for wish in [("TERM", "dumb"), ("CI", "true"), ("CLICOLOR", "1"), ("CLICOLOR_FORCE", "1")] {
            let shown = on_a_terminal(args, &[wish, ("TERM", "dumb")]);
            assert!(!shown.contains('\x1b'), "{args} {wish:?}: {shown}");
        }
    }
}

#[test]
fn so_has_the_log() {
    // It logs a line before it finds that the file is not there.
    let log = |variables: &[(&str, &str)]| on_a_terminal("--bundle /nonexistent --listen unix:/tmp/no/such", variables);
    assert!(log(&[("TERM", "xterm")]).contains('\x1b'));
    for plain in [&[("TERM", "dumb")][..], &[("TERM", "xterm"), ("NO_COLOR", "1")]] {
        let shown = log(plain);
        assert!(!shown.contains('\x1b'), "{plain:?}: {shown}");
    }
}
