//! `generate`: prompts in, text or JSON out.

use std::io::{BufRead as _, BufReader, Read as _};

use recurve_proto::v1::generate_request::Prompt;
use recurve_proto::v1::{Chat, ChatMessage, GenerateRequest, Priority, Sampling, TokenIds};
use serde_json::json;

use crate::fake::Fake;
use crate::program::{interrupt, program, run, run_with};

#[test]
fn an_answer_is_printed_with_one_line_end() {
    let fake = Fake::start();
    let ran = run(&["generate", "--on", &fake.on, "good", "morning"]);
    assert_eq!((ran.code, ran.out.as_str(), ran.err.as_str()), (Some(0), "You said good morning.\n", ""));
    let chat = Chat { messages: vec![ChatMessage { role: "user".to_owned(), content: "good morning".to_owned() }] };
    assert_eq!(fake.requests()[0].prompt, Some(Prompt::Chat(chat)));
}

#[test]
fn a_unix_socket_and_the_environment_name_the_daemon() {
    let dir = tempfile::tempdir().unwrap();
    let fake = Fake::start_at(&dir.path().join("r d.sock"));
    let ran = program(&["generate", "hi"]).env("RECURVE_ON", &fake.on).output().unwrap();
    assert_eq!(String::from_utf8(ran.stdout).unwrap(), "You said hi.\n");
}

#[test]
fn text_ids_and_standard_input_are_prompts() {
    let fake = Fake::start();
    run(&["generate", "--on", &fake.on, "--raw", "a", "b"]);
    run(&["generate", "--on", &fake.on, "--tokens", "2,17"]);
    run_with(&["generate", "--on", &fake.on, "--raw", "-"], "zwölf\n\n".as_bytes());
    let prompts: Vec<_> = fake.requests().into_iter().filter_map(|request| request.prompt).collect();
    assert_eq!(
        prompts,
        [
            Prompt::Text("a b".to_owned()),
            Prompt::Tokens(TokenIds { ids: vec![2, 17] }),
            Prompt::Text("zwölf\n".to_owned()),
        ]
    );
}

#[test]
fn every_setting_reaches_the_daemon_and_nothing_else_is_set() {
    let fake = Fake::start();
    run(&["generate", "--on", &fake.on, "--raw", "x"]);
    let line = "generate --raw --control-tokens x --max-tokens 9 --temperature 0.5 --top-k 4 --top-p 0.9 --min-p 0.1 \
        --repetition-penalty 1.1 --presence-penalty -0.5 --frequency-penalty 0.25 --logit-bias 17=-100 \
        --logit-bias 3=1.5 --seed 7 --stop a --stop b --ignore-eos --background --top-logprobs 2 --format json";
    let mut args: Vec<&str> = line.split_whitespace().collect();
    args.extend(["--on", &fake.on]);
    assert_eq!(run(&args).code, Some(0));
    let plain = GenerateRequest {
        prompt: Some(Prompt::Text("x".to_owned())),
        sampling: Some(Sampling::default()),
        priority: Priority::Interactive.into(),
        ..Default::default()
    };
    let full = GenerateRequest {
        prompt: Some(Prompt::Text("x".to_owned())),
        sampling: Some(Sampling {
            temperature: Some(0.5),
            top_k: Some(4),
            top_p: Some(0.9),
            min_p: Some(0.1),
            repetition_penalty: Some(1.1),
            presence_penalty: Some(-0.5),
            frequency_penalty: Some(0.25),
            logit_bias: [(17, -100.0), (3, 1.5)].into(),
            seed: Some(7),
        }),
        max_tokens: Some(9),
        stop: vec!["a".to_owned(), "b".to_owned()],
        ignore_eos: true,
        top_logprobs: Some(2),
        priority: Priority::Background.into(),
        read_control_tokens: true,
    };
    assert_eq!(fake.requests(), [plain, full]);
}

#[test]
fn json_is_one_object_with_everything_in_it() {
    let fake = Fake::start();
    let ran = run(&["generate", "--on", &fake.on, "--format", "json", "hi"]);
    let expected = json!({
        "text": "You said hi.\n",
        "tokens": [5, 6, 7, 8],
        "finish_reason": "end_of_text",
        "usage": {"prompt_tokens": 7, "completion_tokens": 4},
        "timings": {
            "queue_ms": 1.0, "prefill_ms": 2.0, "time_to_first_token_ms": 4.0, "decode_ms": 8.0, "total_ms": 12.0
        },
        "seed": 42,
        "model": "fake",
        "bundle": "sha256:00",
        "request_id": "0190",
    });
    assert_eq!(ran.json(), expected);
}

#[test]
fn json_has_logprobs_where_they_are_asked_for() {
    let fake = Fake::start();
    let ran = run(&["generate", "--on", &fake.on, "--format", "json", "--top-logprobs", "1", "hi"]);
    let logprobs = ran.json()["logprobs"].clone();
    assert_eq!(logprobs.as_array().unwrap().len(), 4);
    assert_eq!(logprobs[0], json!({"token": 5, "logprob": -0.5, "top": [{"token": 5, "logprob": -0.5}]}));
}

#[test]
fn stats_go_to_standard_error() {
    let fake = Fake::start();
    let ran = run(&["generate", "--on", &fake.on, "--stats", "hi"]);
    assert_eq!(ran.out, "You said hi.\n");
    assert!(ran.err.starts_with("7 + 4 tokens, end_of_text; queue 1.0 ms"), "{ran:?}");
}

#[test]
fn text_is_printed_as_it_arrives_and_ctrl_c_ends_it() {
    let fake = Fake::start();
    let mut child = program(&["generate", "--on", &fake.on, "endless"]).spawn().unwrap();
    let mut out = child.stdout.take().unwrap();
    let mut begin = [0; 10];
    out.read_exact(&mut begin).unwrap();
    assert_eq!(&begin, b"word word ");
    interrupt(&child);
    let mut rest = String::new();
    out.read_to_string(&mut rest).unwrap();
    assert!(rest.ends_with('\n'), "{rest:?}");
    assert_eq!(child.wait().unwrap().code(), Some(130));
}

#[test]
fn a_reader_that_has_enough_ends_it_quietly() {
    let fake = Fake::start();
    let mut child = program(&["generate", "--on", &fake.on, "endless"]).spawn().unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut word = Vec::new();
    out.read_until(b' ', &mut word).unwrap();
    drop(out);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(output.stderr, b"");
}
