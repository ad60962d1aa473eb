//! Large requests, answered or refused, keep no memory when they are over.

use std::time::Duration;

use recurve_proto::v1::generate_request::Prompt;
use recurve_proto::v1::{
    Chat, ChatMessage, DetokenizeRequest, GenerateRequest, ScoreRequest, TokenizeRequest, score_request,
    tokenize_request,
};
use recurve_tests::client::{Client, connect, generate, told};
use recurve_tests::daemon::{Daemon, Setup};
use recurve_tests::world;
use tonic::{Code, Status};

/// Just below the largest message.
const LARGE: usize = 4_100_000;
const TOGETHER: usize = 16;
/// MB that they may take while they run: each a few times its own size, and one text that is tokenized.
const EXTRA: u64 = 450;

/// Anonymous memory of the process in MB: what only it has, not what it maps.
fn anonymous(daemon: &Daemon) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
}

/// Sends so many requests at once, and gives the memory before, at most, and a moment after the last one ended, and what became
/// of them.
async fn together<F>(daemon: &Daemon, send: impl Fn(Client) -> F) -> ([u64; 3], Vec<Status>)
where
    F: Future<Output = Status> + Send + 'static,
{
    let before = anonymous(daemon);
    let mut tasks = Vec::new();
    for _ in 0..TOGETHER {
        tasks.push(tokio::spawn(send(connect(daemon).await)));
    }
    let mut most = before;
    while !tasks.iter().all(tokio::task::JoinHandle::is_finished) {
        most = most.max(anonymous(daemon));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let mut ends = Vec::new();
    for task in tasks {
        ends.push(task.await.unwrap());
    }
    // It is given back half a second after the last request; a loaded machine takes longer.
    for _ in 0..50 {
        tokio::time::sleep(Duration::from_millis(200)).await;
        if anonymous(daemon) < before + 50 {
            break;
        }
    }
    ([before, most, anonymous(daemon)], ends)
}

/// `extra`: MB that the requests may take while they run.
fn is_small(what: &str, [before, most, after]: [u64; 3], extra: u64) {
    println!("{what}: {before} MB before, {most} MB at most, {after} MB after");
    assert!(most < before + extra, "{what}: {most} MB at most, {before} MB before");
    assert!(after < before + 100, "{what}: {after} MB after, {before} MB before");
}

#[tokio::test(flavor = "multi_thread")]
async fn texts_that_are_refused_for_their_bytes() {
    let daemon = Setup::new(&world::demo()).start();
    let text = || "ab ".repeat(LARGE / 3);
    let chat = || Chat { messages: vec![ChatMessage { role: "user".into(), content: text() }] };
    let (memory, ends) = together(&daemon, |client| {
        let request = GenerateRequest { prompt: Some(Prompt::Text(text())), ..GenerateRequest::default() };
        async move { generate(&client, request).await.unwrap_err() }
    })
    .await;
    is_small("Generate", memory, EXTRA);
    for end in ends {
        assert_eq!((told(&end).0, told(&end).2), (Code::InvalidArgument, vec!["text".to_owned()]));
        assert!(end.message().contains("limits.max_text_bytes"), "{end:?}");
    }
    let (memory, ends) = together(&daemon, |mut client| {
        let input = Some(score_request::Input::Chat(chat()));
        async move { client.score(ScoreRequest { input, ..ScoreRequest::default() }).await.unwrap_err() }
    })
    .await;
    is_small("Score", memory, EXTRA);
    assert!(ends.iter().all(|end| told(end).2 == ["chat.messages"]), "{ends:?}");
    let (memory, ends) = together(&daemon, |mut client| {
        let input = Some(tokenize_request::Input::Text(text()));
        async move { client.tokenize(TokenizeRequest { input, ..TokenizeRequest::default() }).await.unwrap_err() }
    })
    .await;
    is_small("Tokenize", memory, EXTRA);
    assert!(ends.iter().all(|end| told(end).2 == ["text"]), "{ends:?}");
    let (memory, ends) = together(&daemon, |mut client| {
        let request = DetokenizeRequest { tokens: vec![5; LARGE], keep_special_tokens: false };
        async move { client.detokenize(request).await.unwrap_err() }
    })
    .await;
    is_small("Detokenize", memory, EXTRA);
    assert!(ends.iter().all(|end| told(end).2 == ["tokens"]), "{ends:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn texts_that_are_refused_for_their_tokens() {
    let daemon = Setup::new(&world::demo()).start();
    // As long as a text may be, and many more tokens than a prompt may have.
    let (memory, ends) = together(&daemon, |client| {
        let text = "a b ".repeat((1 << 20) / 4);
        let request = GenerateRequest { prompt: Some(Prompt::Text(text)), ..GenerateRequest::default() };
        async move { generate(&client, request).await.unwrap_err() }
    })
    .await;
    is_small("Generate", memory, EXTRA);
    for end in &ends {
        let refused = [Code::InvalidArgument, Code::ResourceExhausted].contains(&end.code());
        assert!(refused, "{end:?}");
    }
    assert!(ends.iter().any(|end| end.message().contains("tokens, this node takes at most")), "{ends:?}");
}
