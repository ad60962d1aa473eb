//! `bench`: the requests it makes and the figures it prints.

use recurve_proto::v1::generate_request::Prompt;

use crate::fake::Fake;
use crate::program::run;

const ARGS: [&str; 7] =
    ["bench", "--prompt-tokens", "4,9", "--concurrency=1,3", "--requests=2", "--max-tokens=5", "--on"];

#[test]
fn each_pair_of_length_and_concurrency_is_measured() {
    let fake = Fake::start();
    let mut args = ARGS.to_vec();
    args.extend([fake.on.as_str(), "--format", "json"]);
    let json = run(&args).json();
    assert_eq!((&json["model"], &json["max_tokens"]), (&"fake".into(), &5.into()));
    let results = json["results"].as_array().unwrap();
    let cells: Vec<_> = results
        .iter()
        .map(|cell| ["prompt_tokens", "concurrency", "requests"].map(|key| cell[key].as_u64().unwrap()))
        .collect();
    assert_eq!(cells, [[4, 1, 2], [4, 3, 3], [9, 1, 2], [9, 3, 3]]);
    for cell in results {
        assert!(cell["tokens_per_second"].as_f64().unwrap() > 0.0);
        assert_eq!(cell["queue_ms"]["p99"], 1.0);
        assert!(cell["first_token_ms"]["p50"].as_f64().unwrap() > 0.0);
    }

    let requests = fake.requests();
    assert_eq!(requests.len(), 1 + 2 + 3 + 2 + 3);
    for request in requests {
        assert!(request.ignore_eos);
        assert_eq!(request.max_tokens, Some(5));
        let Some(Prompt::Tokens(tokens)) = request.prompt else {
            panic!("not ids");
        };
        assert!([4, 9].contains(&tokens.ids.len()));
    }
}

#[test]
fn the_table_has_a_row_for_each_pair() {
    let fake = Fake::start();
    let mut args = ARGS.to_vec();
    args.push(&fake.on);
    let ran = run(&args);
    assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""), "{ran:?}");
    assert!(ran.out.starts_with("fake sha256:00 at 127.0.0.1:"), "{}", ran.out);
    assert_eq!(ran.out.lines().count(), 1 + 2 + 4, "{}", ran.out);
}
