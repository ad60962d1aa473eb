//! What daemon and gRPC add to a token, beside the bare loop over the same graph with the same threads.
//!
//!     cargo build --release -p recurved -p agent-cli
//!     cargo run --release -p recurve-tests --bin overhead -- BUNDLE [PAIRS [TOKENS]]
//!
//! Each pair runs the bare loop and then the same greedy generation through a daemon on loopback. Prints medians, and the
//! median and the middle half of the pairs' differences.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use recurve_bundle::{Bundle, StateKind};
use recurve_proto::v1;
use recurve_proto::v1::generate_response::Event;
use recurve_proto::v1::inference_client::InferenceClient;
use recurve_runtime::{Batch, KernelChoice, Model, ModelLayout, Options, StateLayout};
use recurve_tests::graph;
use tonic::transport::Channel;

type Failure = Box<dyn std::error::Error>;

const PROMPT: [u32; 8] = [2, 10, 20, 30, 40, 50, 60, 70];

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let bundle = arguments.first().ok_or("usage: overhead BUNDLE [PAIRS [TOKENS]]")?;
    let pairs: usize = arguments.get(1).map_or(Ok(40), |text| text.parse())?;
    let tokens: u32 = arguments.get(2).map_or(Ok(256), |text| text.parse())?;
    let mut model = load(Path::new(bundle))?;
    let daemon = Daemon::start(bundle)?;
    let mut client = InferenceClient::connect(format!("http://{}", daemon.address)).await?;

    let (mut bare, mut served, mut added) = (Vec::new(), Vec::new(), Vec::new());
    // The first pair warms both up.
    for pair in 0..=pairs {
        let alone = bare_loop(&mut model, tokens)?;
        let through = generate(&mut client, tokens).await?;
        if pair > 0 {
            bare.push(alone);
            served.push(through);
            added.push(through - alone);
        }
    }
    let [bare, served] = [&mut bare, &mut served].map(|times| quartiles(times)[1]);
    let [low, middle, high] = quartiles(&mut added);
    println!("{pairs} pairs of {tokens} tokens, µs a token");
    println!("bare loop          {bare:8.1}");
    println!("through the daemon {served:8.1}");
    println!("added              {middle:8.1}   (half of the pairs between {low:.1} and {high:.1})");
    Ok(())
}

fn load(bundle: &Path) -> Result<Model, Failure> {
    let bundle = Bundle::open(bundle)?;
    let info = bundle.info();
    let layout = ModelLayout {
        vocab: info.vocab_size as usize,
        max_chunk: info.max_chunk as usize,
        states: info
            .states
            .iter()
            .map(|state| StateLayout {
                name: state.name.clone(),
                shape: state.shape.iter().map(|&dim| dim as usize).collect(),
                ring: matches!(state.kind, StateKind::K | StateKind::V),
            })
            .collect(),
    };
    // The daemon's defaults.
    let options = Options { threads: 0, spinning: false, rows: 4, kernels: KernelChoice::Recurve };
    Ok(Model::load(graph::library(), &bundle.graph_path(), layout, &options)?)
}

/// Microseconds a token from the first to the last.
fn bare_loop(model: &mut Model, tokens: u32) -> Result<f64, Failure> {
    model.reset(0);
    let step = model.step(Batch { first: 0, starts: &[0], ids: &PROMPT, logits: 1, tag: None })?;
    let mut next = argmax(step.logits);
    let begun = Instant::now();
    for position in 0..u64::from(tokens - 1) {
        let starts = [PROMPT.len() as u64 + position];
        let step = model.step(Batch { first: 0, starts: &starts, ids: &[next], logits: 1, tag: None })?;
        next = argmax(step.logits);
    }
    Ok(per_token(begun.elapsed(), tokens))
}

/// As `bare_loop`, timed where the messages arrive.
async fn generate(client: &mut InferenceClient<Channel>, tokens: u32) -> Result<f64, Failure> {
    let request = v1::GenerateRequest {
        prompt: Some(v1::generate_request::Prompt::Tokens(v1::TokenIds { ids: PROMPT.to_vec() })),
        sampling: Some(v1::Sampling { temperature: Some(0.0), ..Default::default() }),
        max_tokens: Some(tokens),
        ignore_eos: true,
        ..Default::default()
    };
    let mut stream = client.generate(request).await?.into_inner();
    let (mut first, mut last, mut seen) = (None, Instant::now(), 0);
    while let Some(response) = stream.message().await? {
        if let Some(Event::Delta(delta)) = response.event {
            last = Instant::now();
            first.get_or_insert(last);
            seen += delta.tokens.len();
        }
    }
    assert_eq!(seen, tokens as usize, "every token arrived");
    Ok(per_token(last - first.unwrap_or(last), tokens))
}

fn per_token(time: Duration, tokens: u32) -> f64 {
    time.as_secs_f64() * 1e6 / f64::from(tokens - 1)
}

fn argmax(logits: &[f32]) -> u32 {
    (0..).zip(logits).fold((0, f32::NEG_INFINITY), |best, (i, &x)| if x > best.1 { (i, x) } else { best }).0
}

/// The values at a quarter, a half and three quarters.
fn quartiles(values: &mut [f64]) -> [f64; 3] {
    values.sort_by(f64::total_cmp);
    [1, 2, 3].map(|quarter| values[(values.len() - 1) * quarter / 4])
}

/// A daemon of the same build.
struct Daemon {
    process: Child,
    address: String,
}

impl Daemon {
    fn start(bundle: &str) -> Result<Self, Failure> {
        let binary = std::env::current_exe()?.with_file_name("recurved");
        let mut process = Command::new(&binary)
            .args(["--bundle", bundle, "--listen", "127.0.0.1:0"])
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| format!("{}: {error}; build it first", binary.display()))?;
        let log = process.stderr.take().ok_or("no log")?;
        let mut lines = BufReader::new(log).lines();
        let ready = lines.by_ref().map_while(Result::ok).find(|line| line.contains(" ready "));
        let address =
            ready.as_deref().and_then(|line| line.split("listen=").nth(1)?.split(' ').next().map(str::to_owned));
        // The rest of the log has to be read, or the daemon would wait for it.
        std::thread::spawn(move || lines.for_each(drop));
        match address {
            Some(address) => Ok(Self { process, address }),
            None => Err("the daemon did not become ready".into()),
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
