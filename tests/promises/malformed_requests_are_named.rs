//! Every malformed request gets a status of its own that names what is wrong, and the daemon serves on.

use prost::Message;
use recurve_proto::reason;
use recurve_proto::v1::generate_request::Prompt;
use recurve_proto::v1::{
    Chat, ChatMessage, DetokenizeRequest, GenerateRequest, Sampling, ScoreRequest, TokenIds, TokenizeRequest,
    score_request, tokenize_request,
};
use recurve_tests::client::{channel, connect, generate, greedy, told};
use recurve_tests::daemon::Setup;
use recurve_tests::wire::{self, RawCall, frame, framed};
use recurve_tests::world;
use tonic::Code;

/// A call, and the code, reason and fields of its answer.
struct Case {
    name: String,
    call: RawCall,
    code: Code,
    reason: &'static str,
    field: String,
}

/// Vocabulary of the demo model.
const VOCAB: u32 = 2048;

fn invalid(name: &str, field: &str, method: &str, message: &impl Message) -> Case {
    Case {
        name: format!("{method}: {name}"),
        call: RawCall::new(method, frame(message)),
        code: Code::InvalidArgument,
        reason: reason::INVALID_REQUEST,
        field: field.to_owned(),
    }
}

fn good() -> GenerateRequest {
    GenerateRequest { prompt: tokens(&[2]), max_tokens: Some(1), ..GenerateRequest::default() }
}

fn tokens(ids: &[u32]) -> Option<Prompt> {
    Some(Prompt::Tokens(TokenIds { ids: ids.to_vec() }))
}

fn messages(count: usize, role: &str) -> Chat {
    Chat { messages: vec![ChatMessage { role: role.into(), content: "x".into() }; count] }
}

/// Each setting of the sampler with each value that it may not have.
fn sampling() -> Vec<Case> {
    type Set = fn(&mut Sampling, f32);
    let fields: [(&str, Set, &[f32]); 6] = [
        ("temperature", |s, v| s.temperature = Some(v), &[-0.01, 100.5]),
        ("top_p", |s, v| s.top_p = Some(v), &[-1.0, 0.0, 1.01]),
        ("min_p", |s, v| s.min_p = Some(v), &[-0.01, 1.01]),
        ("repetition_penalty", |s, v| s.repetition_penalty = Some(v), &[-1.0, 0.0, 1e-38, 0.009, 100.5]),
        ("presence_penalty", |s, v| s.presence_penalty = Some(v), &[-100.5, 100.5]),
        ("frequency_penalty", |s, v| s.frequency_penalty = Some(v), &[-100.5, 100.5]),
    ];
    let everywhere = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, f32::MIN];
    let mut cases = Vec::new();
    let mut add = |name: String, field: &str, sampling: Sampling| {
        let request = GenerateRequest { sampling: Some(sampling), ..good() };
        cases.push(invalid(&name, field, "Generate", &request));
    };
    for (field, set, values) in fields {
        for &value in values.iter().chain(&everywhere) {
            let mut sampling = Sampling::default();
            set(&mut sampling, value);
            add(format!("{field} {value}"), &format!("sampling.{field}"), sampling);
        }
    }
    for k in [VOCAB + 1, u32::MAX] {
        add(format!("top_k {k}"), "sampling.top_k", Sampling { top_k: Some(k), ..Sampling::default() });
    }
    let biased = |bias: &[(u32, f32)]| Sampling { logit_bias: bias.iter().copied().collect(), ..Sampling::default() };
    for value in everywhere.into_iter().chain([1000.5, -1000.5]) {
        add(format!("bias {value}"), "sampling.logit_bias[7]", biased(&[(3, 1.0), (7, value)]));
    }
    for id in [VOCAB, u32::MAX] {
        add(format!("bias of token {id}"), &format!("sampling.logit_bias[{id}]"), biased(&[(id, 1.0)]));
    }
    let many: Vec<_> = (0..1025).map(|id| (id, 0.0)).collect();
    add("1025 biases".into(), "sampling.logit_bias", biased(&many));
    cases
}

fn settings() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut add = |name: &str, field: &str, request: GenerateRequest| {
        cases.push(invalid(name, field, "Generate", &request));
    };
    for most in [131_073, u32::MAX] {
        add(&format!("{most} tokens"), "max_tokens", GenerateRequest { max_tokens: Some(most), ..good() });
    }
    for top in [21, u32::MAX] {
        add(&format!("{top} top"), "top_logprobs", GenerateRequest { top_logprobs: Some(top), ..good() });
    }
    for priority in [-1, 3, i32::MIN, i32::MAX] {
        add(&format!("priority {priority}"), "priority", GenerateRequest { priority, ..good() });
    }
    let stops = |stop: Vec<String>| GenerateRequest { stop, ..good() };
    let much = GenerateRequest { max_tokens: Some(u32::MAX), top_logprobs: Some(99), priority: 9, ..good() };
    add("all that is wrong at once", "max_tokens top_logprobs priority", much);
    add("17 stops", "stop", stops(vec!["x".into(); 17]));
    for at in [0, 5, 15] {
        for (what, wrong) in [("empty", String::new()), ("long", "x".repeat(257))] {
            let mut all = vec!["x".to_owned(); 16];
            all[at] = wrong;
            add(&format!("{what} stop {at}"), &format!("stop[{at}]"), stops(all));
        }
    }
    cases
}

/// Prompts that cannot be read, for each method that takes one.
fn prompts() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut add = |name: &str, field: &str, prompt: Option<Prompt>| {
        let field_of = |none: &str| if prompt.is_none() { none.to_owned() } else { field.to_owned() };
        let request = GenerateRequest { prompt: prompt.clone(), ..good() };
        cases.push(invalid(name, &field_of("prompt"), "Generate", &request));
        let input = prompt.clone().map(|prompt| match prompt {
            Prompt::Text(text) => score_request::Input::Text(text),
            Prompt::Tokens(tokens) => score_request::Input::Tokens(tokens),
            Prompt::Chat(chat) => score_request::Input::Chat(chat),
        });
        cases.push(invalid(name, &field_of("input"), "Score", &ScoreRequest { input, ..ScoreRequest::default() }));
        let input = match prompt.clone() {
            None => None,
            Some(Prompt::Chat(chat)) => Some(tokenize_request::Input::Chat(chat)),
            Some(_) => return,
        };
        let request = TokenizeRequest { input, no_special_tokens: false, read_control_tokens: false };
        cases.push(invalid(name, &field_of("input"), "Tokenize", &request));
    };
    add("nothing", "", None);
    add("empty text", "text", Some(Prompt::Text(String::new())));
    add("no tokens", "tokens.ids", tokens(&[]));
    for id in [VOCAB, VOCAB + 1, 1 << 31, u32::MAX] {
        for at in [0, 1, 99] {
            let mut ids = vec![2; 100];
            ids[at] = id;
            add(&format!("token {id} at {at}"), &format!("tokens.ids[{at}]"), tokens(&ids));
        }
    }
    add("too many tokens", "tokens.ids", tokens(&vec![2; 131_073]));
    add("no messages", "chat.messages", Some(Prompt::Chat(messages(0, "user"))));
    add("4097 messages", "chat.messages", Some(Prompt::Chat(messages(4097, "user"))));
    add("no role", "chat.messages[0].role", Some(Prompt::Chat(messages(1, ""))));
    add("a long role", "chat.messages[0].role", Some(Prompt::Chat(messages(1, &"r".repeat(65)))));
    let mut third = messages(3, "user");
    third.messages[2].role.clear();
    add("no third role", "chat.messages[2].role", Some(Prompt::Chat(third)));
    cases
}

fn others() -> Vec<Case> {
    let mut cases = Vec::new();
    for priority in [-1, 3, i32::MAX] {
        let input = Some(score_request::Input::Tokens(TokenIds { ids: vec![2, 3] }));
        cases.push(invalid(
            &format!("priority {priority}"),
            "priority",
            "Score",
            &ScoreRequest { input, priority, ..ScoreRequest::default() },
        ));
    }
    let input = Some(tokenize_request::Input::Chat(messages(1, "user")));
    let request = TokenizeRequest { input, no_special_tokens: true, read_control_tokens: false };
    cases.push(invalid("chat without special tokens", "no_special_tokens", "Tokenize", &request));
    for (at, id) in [(0, VOCAB), (1, u32::MAX), (99, VOCAB)] {
        let mut tokens = vec![2; 100];
        tokens[at] = id;
        let request = DetokenizeRequest { tokens, keep_special_tokens: false };
        cases.push(invalid(&format!("token {id}"), &format!("tokens[{at}]"), "Detokenize", &request));
    }
    for header in ["", "S", "1", "1s", "-1S", "1.5S", "123456789S", "1 S", "0x1S", "one second"] {
        let name = format!("timeout {header:?}");
        let plain = DetokenizeRequest { tokens: vec![2], keep_special_tokens: false };
        for mut case in
            [invalid(&name, "grpc-timeout", "Generate", &good()), invalid(&name, "grpc-timeout", "Detokenize", &plain)]
        {
            case.call = case.call.header("grpc-timeout", header);
            cases.push(case);
        }
    }
    cases
}

/// Bodies that are no message, for each method.
fn bodies() -> Vec<Case> {
    let half = frame(&good());
    let bodies: [(&str, Vec<u8>, Code); 14] = [
        ("no body", vec![], Code::Internal),
        ("half a prefix", vec![0, 0, 0], Code::Internal),
        ("half a message", half[..half.len() - 1].to_vec(), Code::Internal),
        ("an endless number", framed(0, &[0xFF; 12]), Code::InvalidArgument),
        ("a field number of 0", framed(0, &[0x00, 0x01]), Code::InvalidArgument),
        ("a group that does not end", framed(0, &[0x0B, 0x0B]), Code::InvalidArgument),
        ("a length beyond the end", framed(0, &[0x0A, 0x7F, 0x61]), Code::InvalidArgument),
        ("four bytes for a message", framed(0, &[0x0D, 1, 2, 3, 4]), Code::InvalidArgument),
        ("eight bytes for a message", framed(0, &[0x09, 1, 2, 3, 4, 5, 6, 7, 8]), Code::InvalidArgument),
        ("text that is not UTF-8", framed(0, &[0x0A, 0x01, 0xFF]), Code::InvalidArgument),
        ("4 GB announced", vec![0, 0xFF, 0xFF, 0xFF, 0xFF], Code::OutOfRange),
        ("compressed, and not saying how", framed(1, b"x"), Code::Internal),
        ("an unknown flag", framed(7, b"x"), Code::Internal),
        ("5 MB", framed(0, &vec![0; 5 << 20]), Code::OutOfRange),
    ];
    let mut cases = Vec::new();
    for method in ["Generate", "Score", "Tokenize", "Detokenize"] {
        for (name, body, code) in &bodies {
            cases.push(Case {
                name: format!("{method}: {name}"),
                call: RawCall::new(method, body.clone()),
                code: *code,
                reason: match code {
                    Code::InvalidArgument | Code::OutOfRange => reason::INVALID_REQUEST,
                    _ => "",
                },
                field: String::new(),
            });
        }
    }
    cases
}

/// Calls of what is not there, or not in our language.
fn calls() -> Vec<Case> {
    let call = || RawCall::new("Generate", frame(&good()));
    let at = |path: &str| RawCall { path: path.into(), ..call() };
    [
        ("an unknown method", at("/recurve.v1.Inference/Improve"), Code::Unimplemented),
        ("an unknown service", at("/recurve.v1.Nothing/Generate"), Code::Unimplemented),
        ("no service", at("/"), Code::Unimplemented),
        ("another version", at("/recurve.v2.Inference/Generate"), Code::Unimplemented),
        ("an unknown compression", call().header("grpc-encoding", "middle-out"), Code::Unimplemented),
    ]
    .into_iter()
    .map(|(name, call, code)| Case { name: name.into(), call, code, reason: "", field: String::new() })
    .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_with_its_code_and_field() {
    let daemon = Setup::new(&world::demo()).start();
    let channel = channel(&daemon).await;
    let client = connect(&daemon).await;
    let expected = generate(&client, greedy(&[2, 7], 5)).await.unwrap().tokens;
    let (mut count, mut wrong) = (0, Vec::new());
    for case in [sampling(), settings(), prompts(), others(), bodies(), calls()].into_iter().flatten() {
        count += 1;
        let status = case.call.send(&channel).await;
        let (code, reason, fields) = told(&status);
        let named = fields.join(" ") == case.field;
        if code != case.code
            || reason != case.reason
            || !named
            || status.message().is_empty() && code != Code::Unimplemented
        {
            let want = (case.code, case.reason, case.field);
            wrong.push(format!(
                "{}: {code:?} {reason} {fields:?} {:?}, expected {want:?}",
                case.name,
                status.message()
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(count >= 200, "{count} cases");
    println!("{count} malformed requests");
    assert_eq!(generate(&client, greedy(&[2, 7], 5)).await.unwrap().tokens, expected, "the daemon serves on");
    assert!(daemon.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_grpc_at_all_is_closed() {
    let daemon = Setup::new(&world::tiny("f32")).start();
    let preface: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let after = |bytes: &[u8]| [preface, bytes].concat();
    let random: Vec<u8> = world::ids(4096, 9).iter().map(|&id| (id * 37 % 256) as u8).collect();
    for bytes in [
        vec![],
        b"\n".to_vec(),
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec(),
        b"POST /recurve.v1.Inference/Generate HTTP/1.1\r\nContent-Length: 99999999\r\n\r\n".to_vec(),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(),
        b"SSH-2.0-OpenSSH_9.6\r\n".to_vec(),
        preface[..10].to_vec(),
        after(&random),
        after(b"\xff\xff\xff\x00\x00\x00\x00\x00\x00"),
        after(b"\x00\x00\x00\x00\x00\x00\x00\x00\x01"),
        random.clone(),
    ] {
        wire::bytes(&daemon.address, &bytes).await;
    }
    let client = connect(&daemon).await;
    assert_eq!(generate(&client, greedy(&[2], 5)).await.unwrap().tokens.len(), 5);
    assert!(daemon.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bundle_without_a_tokenizer_says_what_it_lacks() {
    let daemon = Setup::new(&world::tiny("f32")).start();
    let channel = channel(&daemon).await;
    let text = || Some(Prompt::Text("hello".into()));
    let chat = || Some(Prompt::Chat(messages(1, "user")));
    let score = |input| frame(&ScoreRequest { input: Some(input), ..ScoreRequest::default() });
    let tokenize =
        |input| frame(&TokenizeRequest { input: Some(input), no_special_tokens: false, read_control_tokens: false });
    for (method, body) in [
        ("Generate", frame(&GenerateRequest { prompt: text(), ..good() })),
        ("Generate", frame(&GenerateRequest { prompt: chat(), ..good() })),
        ("Generate", frame(&GenerateRequest { stop: vec!["x".into()], ..good() })),
        ("Score", score(score_request::Input::Text("hello".into()))),
        ("Score", score(score_request::Input::Chat(messages(1, "user")))),
        ("Tokenize", tokenize(tokenize_request::Input::Text("hello".into()))),
        ("Tokenize", tokenize(tokenize_request::Input::Chat(messages(1, "user")))),
        ("Detokenize", frame(&DetokenizeRequest { tokens: vec![2], keep_special_tokens: false })),
    ] {
        let status = RawCall::new(method, body).send(&channel).await;
        assert_eq!(told(&status), (Code::FailedPrecondition, reason::NO_TOKENIZER.into(), vec![]), "{method}");
    }
    assert!(daemon.stop().success());
}
