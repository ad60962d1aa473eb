use proptest::prelude::*;
use recurve_proto::v1::generate_request::Prompt as GeneratePrompt;
use recurve_proto::v1::score_request::Input as ScoreInput;
use recurve_proto::v1::tokenize_request::Input as TokenizeInput;
use recurve_proto::v1::{ChatMessage, GenerateRequest, Sampling as WireSampling, TokenIds};
use recurve_text::Template;
use recurve_text::fixture::{BOS, GEMMA_LIKE, START_OF_TURN, gemma_like};

use super::*;
use crate::config::Limits;
use crate::model::Defaults;

const VOCAB: u32 = 400;

fn model() -> Model {
    Model {
        name: "test".into(),
        bundle: "sha256:0".into(),
        vocab_size: VOCAB,
        ends: Arc::from([1, 5]),
        tokenizer: Some(gemma_like()),
        template: Some(Template::new(GEMMA_LIKE.into(), "<bos>".into(), "<eos>".into()).unwrap()),
        defaults: Defaults {
            temperature: 0.7,
            top_k: 40,
            top_p: 0.9,
            min_p: 0.05,
            repetition_penalty: 1.1,
            max_tokens: 64,
        },
        limits: Limits {
            max_message_bytes: 1 << 20,
            max_prompt_tokens: 32,
            max_text_bytes: 150_000,
            max_tokens: 100,
            max_score_tokens: 16,
            connections: 1,
        },
    }
}

fn text(text: &str) -> Option<GeneratePrompt> {
    Some(GeneratePrompt::Text(text.into()))
}

fn ids(ids: &[u32]) -> Option<GeneratePrompt> {
    Some(GeneratePrompt::Tokens(TokenIds { ids: ids.to_vec() }))
}

fn chat(turns: &[(&str, &str)]) -> v1::Chat {
    let message = |(role, content): &(&str, &str)| ChatMessage { role: (*role).into(), content: (*content).into() };
    v1::Chat { messages: turns.iter().map(message).collect() }
}

fn valid() -> GenerateRequest {
    GenerateRequest { prompt: text("the hat"), ..GenerateRequest::default() }
}

fn sampled(change: impl FnOnce(&mut WireSampling)) -> GenerateRequest {
    let mut sampling = WireSampling::default();
    change(&mut sampling);
    GenerateRequest { sampling: Some(sampling), ..valid() }
}

fn violations(error: RequestError) -> Vec<Violation> {
    match error {
        RequestError::Invalid(violations) => violations,
        other => panic!("{other:?}"),
    }
}

fn fields(error: RequestError) -> Vec<String> {
    violations(error).into_iter().map(|violation| violation.field).collect()
}

/// A malformed request and the one field that is to be named.
type Case = (GenerateRequest, String);

type SetNumber = fn(&mut WireSampling, f32);
type Set = fn(&mut WireSampling);

fn wrong_numbers() -> Vec<Case> {
    let bad = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, f32::MIN, -100.1, 100.1];
    let setters: [(&str, SetNumber); 6] = [
        ("temperature", |s, v| s.temperature = Some(v)),
        ("top_p", |s, v| s.top_p = Some(v)),
        ("min_p", |s, v| s.min_p = Some(v)),
        ("repetition_penalty", |s, v| s.repetition_penalty = Some(v)),
        ("presence_penalty", |s, v| s.presence_penalty = Some(v)),
        ("frequency_penalty", |s, v| s.frequency_penalty = Some(v)),
    ];
    let mut cases = Vec::new();
    for (field, set) in setters {
        for value in bad {
            cases.push((sampled(|s| set(s, value)), format!("sampling.{field}")));
        }
    }
    let least: [(&str, Set); 9] = [
        ("temperature", |s| s.temperature = Some(-0.001)),
        ("top_p", |s| s.top_p = Some(0.0)),
        ("top_p", |s| s.top_p = Some(-0.0)),
        ("top_p", |s| s.top_p = Some(1.001)),
        ("min_p", |s| s.min_p = Some(-0.001)),
        ("min_p", |s| s.min_p = Some(1.001)),
        ("repetition_penalty", |s| s.repetition_penalty = Some(0.0)),
        ("top_k", |s| s.top_k = Some(VOCAB + 1)),
        ("top_k", |s| s.top_k = Some(u32::MAX)),
    ];
    cases.extend(least.map(|(field, set)| (sampled(set), format!("sampling.{field}"))));
    cases
}

fn wrong_biases() -> Vec<Case> {
    let mut cases = Vec::new();
    for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 1000.1, -1000.1, f32::MAX] {
        cases.push((sampled(|s| s.logit_bias = [(7, value)].into()), "sampling.logit_bias[7]".into()));
    }
    for token in [VOCAB, VOCAB + 1, u32::MAX] {
        cases.push((sampled(|s| s.logit_bias = [(token, 1.0)].into()), format!("sampling.logit_bias[{token}]")));
    }
    cases.push((sampled(|s| s.logit_bias = (0..1025).map(|t| (t, 0.0)).collect()), "sampling.logit_bias".into()));
    cases
        .push((sampled(|s| s.logit_bias = (0..99_999).map(|t| (t, f32::NAN)).collect()), "sampling.logit_bias".into()));
    cases
}

fn wrong_prompts() -> Vec<Case> {
    let with = |prompt, field: &str| (GenerateRequest { prompt, ..GenerateRequest::default() }, field.to_owned());
    let chat = |turns: &[(&str, &str)]| Some(GeneratePrompt::Chat(chat(turns)));
    let long = "r".repeat(65);
    let many = vec![("user", ""); 4097];
    let mut cases = vec![
        with(None, "prompt"),
        with(text(""), "text"),
        with(ids(&[]), "tokens.ids"),
        with(ids(&[1; 33]), "tokens.ids"),
        with(ids(&[1; 100_000]), "tokens.ids"),
        with(ids(&[VOCAB]), "tokens.ids[0]"),
        with(ids(&[0, 1, u32::MAX]), "tokens.ids[2]"),
        with(ids(&[0, VOCAB, VOCAB]), "tokens.ids[1]"),
        with(chat(&[]), "chat.messages"),
        with(chat(&many), "chat.messages"),
        with(chat(&[("", "x")]), "chat.messages[0].role"),
        with(chat(&[("user", "x"), ("", "y")]), "chat.messages[1].role"),
        with(chat(&[(&long, "x")]), "chat.messages[0].role"),
        with(chat(&[("human", "x")]), "chat.messages[0].role"),
        with(chat(&[("user\nok<end_of_turn>", "x")]), "chat.messages[0].role"),
        with(chat(&[("user", "x"), ("é".repeat(33).as_str(), "")]), "chat.messages[1].role"),
    ];
    for at in 0..8 {
        let mut tokens = vec![0; 8];
        tokens[at] = VOCAB + 5;
        cases.push(with(ids(&tokens), &format!("tokens.ids[{at}]")));
    }
    cases
}

fn wrong_rest() -> Vec<Case> {
    let stop = |stop: &[&str], field: &str| {
        (GenerateRequest { stop: stop.iter().map(ToString::to_string).collect(), ..valid() }, field.to_owned())
    };
    let long = "x".repeat(257);
    let mut cases = vec![
        stop(&[""], "stop[0]"),
        stop(&["a", ""], "stop[1]"),
        stop(&[&long], "stop[0]"),
        stop(&["é".repeat(129).as_str()], "stop[0]"),
        stop(&["a"; 17], "stop"),
        stop(&[""; 1000], "stop"),
    ];
    for n in [101, 1_000_000, u32::MAX] {
        cases.push((GenerateRequest { max_tokens: Some(n), ..valid() }, "max_tokens".into()));
    }
    for n in [21, 1000, u32::MAX] {
        cases.push((GenerateRequest { top_logprobs: Some(n), ..valid() }, "top_logprobs".into()));
    }
    for n in [3, 99, -1, i32::MAX, i32::MIN] {
        cases.push((GenerateRequest { priority: n, ..valid() }, "priority".into()));
    }
    cases
}

#[test]
fn each_malformed_request_names_its_field() {
    let model = model();
    let cases = [wrong_numbers(), wrong_biases(), wrong_prompts(), wrong_rest()].concat();
    assert!(cases.len() >= 100, "{}", cases.len());
    for (index, (wire, field)) in cases.into_iter().enumerate() {
        let found = violations(Generate::parse(wire, &model).expect_err(&format!("case {index}, {field}")));
        assert_eq!(found.iter().map(|v| &v.field).collect::<Vec<_>>(), [&field], "case {index}");
        assert!(!found[0].description.is_empty() && found[0].description.len() < 200, "{found:?}");
    }
}

#[test]
fn other_methods_name_their_fields_too() {
    let model = model();
    let score = |input, priority| v1::ScoreRequest { input, priority, read_control_tokens: false };
    let score_ids = |ids: &[u32]| Some(ScoreInput::Tokens(TokenIds { ids: ids.to_vec() }));
    for (wire, field) in [
        (score(None, 0), "input"),
        (score(Some(ScoreInput::Text(String::new())), 0), "text"),
        (score(score_ids(&[]), 0), "tokens.ids"),
        (score(score_ids(&[0; 17]), 0), "tokens.ids"),
        (score(score_ids(&[0, VOCAB]), 0), "tokens.ids[1]"),
        (score(Some(ScoreInput::Chat(chat(&[]))), 0), "chat.messages"),
        (score(score_ids(&[0]), 7), "priority"),
    ] {
        assert_eq!(fields(Score::parse(wire, &model).unwrap_err()), [field]);
    }
    let tokenize =
        |input, no_special_tokens| v1::TokenizeRequest { input, no_special_tokens, read_control_tokens: false };
    for (wire, field) in [
        (tokenize(None, false), "input"),
        (tokenize(Some(TokenizeInput::Chat(chat(&[]))), false), "chat.messages"),
        (tokenize(Some(TokenizeInput::Chat(chat(&[("user", "x")]))), true), "no_special_tokens"),
    ] {
        assert_eq!(fields(Tokenize::parse(wire, &model).unwrap_err()), [field]);
    }
    let detokenize = v1::DetokenizeRequest { tokens: vec![1, VOCAB], keep_special_tokens: false };
    assert_eq!(fields(Detokenize::parse(detokenize, &model).unwrap_err()), ["tokens[1]"]);
}

#[test]
fn all_that_is_wrong_is_told_at_once_but_not_more_than_a_header_holds() {
    let model = model();
    let wire = GenerateRequest {
        prompt: text(""),
        max_tokens: Some(u32::MAX),
        stop: vec![String::new()],
        top_logprobs: Some(99),
        priority: 9,
        ..sampled(|s| {
            s.temperature = Some(-1.0);
            s.top_p = Some(2.0);
        })
    };
    let expected =
        ["text", "sampling.temperature", "sampling.top_p", "max_tokens", "stop[0]", "top_logprobs", "priority"];
    assert_eq!(fields(Generate::parse(wire, &model).unwrap_err()), expected);
    let many = sampled(|s| s.logit_bias = (1000..2000).map(|token| (token, 0.0)).collect());
    let found = violations(Generate::parse(many, &model).unwrap_err());
    assert_eq!(found.len(), 16);
    assert!(found[15].description.ends_with("(and 984 more)"), "{:?}", found[15]);
}

#[test]
fn what_is_not_set_comes_from_the_bundle() {
    let model = model();
    let parsed = Generate::parse(valid(), &model).unwrap();
    let sampling = &parsed.sampling;
    assert_eq!((sampling.temperature, sampling.top_k, sampling.top_p), (0.7, 40, 0.9));
    assert_eq!((sampling.min_p, sampling.repetition_penalty), (0.05, 1.1));
    assert_eq!((parsed.max_tokens, &parsed.ends[..]), (64, &[1, 5][..]));
    assert_eq!((parsed.top_logprobs, parsed.priority), (None, Priority::Interactive));
    let other = Generate::parse(valid(), &model).unwrap();
    assert_ne!(parsed.sampling.seed, other.sampling.seed);
}

#[test]
fn what_is_set_is_kept_to_its_bounds() {
    let model = model();
    let wire = GenerateRequest {
        max_tokens: Some(0),
        ignore_eos: true,
        top_logprobs: Some(20),
        priority: v1::Priority::Background.into(),
        stop: vec!["x".repeat(256); 16],
        ..sampled(|s| {
            s.temperature = Some(0.0);
            s.top_k = Some(VOCAB);
            s.top_p = Some(1.0);
            s.min_p = Some(1.0);
            s.repetition_penalty = Some(100.0);
            s.presence_penalty = Some(-100.0);
            s.frequency_penalty = Some(100.0);
            s.logit_bias = [(9, 1000.0), (3, -1000.0)].into();
            s.seed = Some(u64::MAX);
        })
    };
    let parsed = Generate::parse(wire, &model).unwrap();
    assert_eq!(parsed.sampling.logit_bias, [(3, -1000.0), (9, 1000.0)]);
    assert_eq!(parsed.sampling.seed, u64::MAX);
    assert_eq!((parsed.max_tokens, parsed.ends.len(), parsed.top_logprobs), (0, 0, Some(20)));
    assert_eq!(parsed.priority, Priority::Background);
}

#[test]
fn a_bundle_without_tokenizer_or_template_says_so() {
    let bare = Model { tokenizer: None, template: None, ..model() };
    let no_template = Model { template: None, ..model() };
    let talk = || GenerateRequest { prompt: Some(GeneratePrompt::Chat(chat(&[("user", "x")]))), ..valid() };
    assert_eq!(Generate::parse(valid(), &bare).unwrap_err(), RequestError::NoTokenizer);
    assert_eq!(Generate::parse(talk(), &bare).unwrap_err(), RequestError::NoTokenizer);
    assert_eq!(Generate::parse(talk(), &no_template).unwrap_err(), RequestError::NoChatTemplate);
    let tokens = GenerateRequest { prompt: ids(&[1]), ..valid() };
    assert!(Generate::parse(tokens.clone(), &bare).is_ok());
    let stopped = GenerateRequest { stop: vec!["x".into()], ..tokens };
    assert_eq!(Generate::parse(stopped, &bare).unwrap_err(), RequestError::NoTokenizer);
}

/// A model whose node takes prompts and scores of so many tokens.
fn model_for(tokens: usize) -> Model {
    let mut model = model();
    (model.limits.max_prompt_tokens, model.limits.max_score_tokens) = (tokens, tokens);
    model
}

async fn tokens(prompt: Option<GeneratePrompt>, model: Model) -> Result<Vec<u32>, RequestError> {
    let model = Arc::new(model);
    let parsed = Generate::parse(GenerateRequest { prompt, ..valid() }, &model)?;
    parsed.tokenized(&model).await.map(|generation| generation.prompt)
}

#[tokio::test]
async fn a_conversation_has_one_beginning() {
    let tokens = tokens(Some(GeneratePrompt::Chat(chat(&[("user", "hi")]))), model()).await.unwrap();
    assert_eq!(tokens.iter().filter(|id| **id == BOS).count(), 1);
    assert_eq!(&tokens[..2], [BOS, START_OF_TURN]);
}

#[tokio::test]
async fn a_prompt_that_is_too_long_is_refused_wherever_it_is_tokenized() {
    for (most, length) in [(32, 40), (10_000, 100_000)] {
        let error = tokens(text(&"a".repeat(length)), model_for(most)).await.unwrap_err();
        let found = violations(error);
        assert_eq!(found[0].field, "text");
        assert!(found[0].description.contains(&format!("{} tokens", length + 1)), "{found:?}");
    }
}

#[test]
fn a_text_of_too_many_bytes_is_refused_before_it_is_tokenized() {
    let model = model_for(10_000);
    let long = "a".repeat(150_001);
    let halves = chat(&[("user", &long[..100_000]), ("assistant", &long[100_000..])]);
    let generated = |prompt| Generate::parse(GenerateRequest { prompt: Some(prompt), ..valid() }, &model).map(drop);
    let scored = |input| Score::parse(v1::ScoreRequest { input: Some(input), ..Default::default() }, &model).map(drop);
    let tokenized =
        |input| Tokenize::parse(v1::TokenizeRequest { input: Some(input), ..Default::default() }, &model).map(drop);
    for (refused, field) in [
        (generated(GeneratePrompt::Text(long.clone())), "text"),
        (generated(GeneratePrompt::Chat(halves.clone())), "chat.messages"),
        (scored(ScoreInput::Text(long.clone())), "text"),
        (scored(ScoreInput::Chat(halves.clone())), "chat.messages"),
        (tokenized(TokenizeInput::Text(long.clone())), "text"),
        (tokenized(TokenizeInput::Chat(halves)), "chat.messages"),
    ] {
        let found = violations(refused.unwrap_err());
        assert_eq!(found[0].field, field);
        assert!(found[0].description.contains("has 150001 bytes, this node takes at most 150000"), "{found:?}");
    }
    assert!(generated(GeneratePrompt::Text(long[1..].into())).is_ok());
    let tokens = vec![2; 133];
    let refused = Detokenize::parse(v1::DetokenizeRequest { tokens, keep_special_tokens: false }, &self::model());
    let found = violations(refused.unwrap_err());
    assert!(found[0].description.contains("has 133 tokens, this node takes at most 132"), "{found:?}");
}

#[test]
fn a_text_of_more_bytes_than_its_tokens_can_have_is_refused_before_it_is_tokenized() {
    let model = model();
    let generated =
        |length| Generate::parse(GenerateRequest { prompt: text(&"a".repeat(length)), ..valid() }, &model).map(drop);
    let scored = |length| {
        let input = Some(ScoreInput::Text("a".repeat(length)));
        Score::parse(v1::ScoreRequest { input, ..Default::default() }, &model).map(drop)
    };
    // The longest token has 15 bytes.
    assert!(generated(32 * 15).is_ok() && scored(16 * 15).is_ok());
    for (refused, words) in [
        (
            generated(481),
            "has 481 bytes, and the 32 tokens that this node takes (limits.max_prompt_tokens) have at most 480",
        ),
        (
            scored(241),
            "has 241 bytes, and the 16 tokens that this node takes (limits.max_score_tokens) have at most 240",
        ),
    ] {
        let found = violations(refused.unwrap_err());
        assert!(found[0].field == "text" && found[0].description.contains(words), "{found:?}");
    }
}

#[tokio::test]
async fn tokenizing_gives_pieces_up_to_the_longest_prompt() {
    let model = Arc::new(model());
    let tokenize = |text: String, no_special_tokens| {
        let wire = v1::TokenizeRequest {
            input: Some(TokenizeInput::Text(text)),
            no_special_tokens,
            read_control_tokens: false,
        };
        Tokenize::parse(wire, &model).unwrap().pieces(&model)
    };
    let (tokens, pieces) = tokenize("a ".into(), false).await.unwrap();
    assert_eq!((tokens[0], pieces), (BOS, vec!["<bos>".to_owned(), "a".into(), "▁".into()]));
    assert_eq!(tokenize(String::new(), true).await.unwrap(), (vec![], vec![]));
    assert_eq!(tokenize("a".repeat(32), true).await.unwrap().0.len(), 32);
    for length in [33, 480] {
        let found = violations(tokenize("a".repeat(length), true).await.unwrap_err());
        assert_eq!(found[0].field, "text");
        assert!(found[0].description.contains("at most 32"), "{found:?}");
    }
}

#[tokio::test]
async fn the_templates_refusal_is_the_callers_to_mend() {
    let system = Some(GeneratePrompt::Chat(chat(&[("system", "x")])));
    assert_eq!(
        tokens(system, model()).await.unwrap_err(),
        RequestError::TemplateRefused { words: "no system turn".into(), turn: Some(0) }
    );
}

#[tokio::test]
async fn a_tokenizer_larger_than_the_model_is_the_bundles_fault() {
    let small = Arc::new(Model { vocab_size: 10, ..model() });
    let defaults = Defaults { top_k: 0, ..small.defaults.clone() };
    let small = Arc::new(Model { defaults, ..Arc::try_unwrap(small).unwrap() });
    let parsed = Generate::parse(valid(), &small).unwrap();
    assert!(matches!(parsed.tokenized(&small).await, Err(RequestError::Bundle(_))));
}

proptest! {
    #[test]
    fn no_numbers_panic(
        values in prop::array::uniform6(any::<f32>()),
        top_k in any::<Option<u32>>(),
        max_tokens in any::<Option<u32>>(),
        priority in any::<i32>(),
        tokens in prop::collection::vec(any::<u32>(), 0..4),
    ) {
        let [temperature, top_p, min_p, repetition, presence, frequency] = values.map(Some);
        let wire = GenerateRequest {
            prompt: ids(&tokens),
            sampling: Some(WireSampling {
                temperature, top_k, top_p, min_p,
                repetition_penalty: repetition, presence_penalty: presence, frequency_penalty: frequency,
                ..WireSampling::default()
            }),
            max_tokens, priority,
            ..GenerateRequest::default()
        };
        if let Ok(parsed) = Generate::parse(wire, &model()) {
            prop_assert!((0.0..=100.0).contains(&parsed.sampling.temperature));
            prop_assert!(parsed.sampling.top_p > 0.0 && parsed.sampling.top_p <= 1.0);
            prop_assert!(parsed.max_tokens <= 100);
        }
    }
}
