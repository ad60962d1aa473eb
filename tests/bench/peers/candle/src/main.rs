//! Measures candle's `quantized_recurrent_gemma` on the shape of RecurrentGemma-2B with random weights.
//!
//! ```text
//! peer-candle write   q4k|q40 FILE                    writes a GGUF file of that shape
//! peer-candle measure q4k|q40 FILE [POSITION…]        prints one JSON object: seconds of every step
//! ```
//!
//! Threads are what candle reads from `RAYON_NUM_THREADS` and `CANDLE_NUM_THREADS`.

mod measure;
mod shape;
mod write;

use std::error::Error;
use std::path::Path;
use std::process::ExitCode;

use candle_core::quantized::GgmlDType;

const USAGE: &str = "usage: peer-candle write|measure q4k|q40 FILE [POSITION…]";

fn run(arguments: &[String]) -> Result<(), Box<dyn Error>> {
    let [command, format, file, positions @ ..] = arguments else { return Err(USAGE.into()) };
    let (dtype, name) = match format.as_str() {
        "q4k" => (GgmlDType::Q4K, "Q4_K"),
        "q40" => (GgmlDType::Q4_0, "Q4_0"),
        _ => return Err(USAGE.into()),
    };
    let positions = positions.iter().map(|p| p.parse()).collect::<Result<Vec<usize>, _>>()?;
    match command.as_str() {
        "write" => write::random_file(Path::new(file), dtype)?,
        "measure" => println!("{}", measure::report(Path::new(file), name, &positions)?),
        _ => return Err(USAGE.into()),
    }
    Ok(())
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("peer-candle: {error}");
            ExitCode::FAILURE
        }
    }
}
