//! Types the commands of a page of the documentation into a shell, and ends with an error where one prints something else than the
//! page shows. For pages that are about a system of their own.

#![allow(clippy::disallowed_methods, reason = "reads no settings")]

use std::path::PathBuf;

use clap::Parser;
use recurve_tests::page;

/// Executes a page in a folder.
#[derive(Debug, Parser)]
struct Args {
    /// The page, in Markdown
    page: PathBuf,
    /// Where its commands are typed
    folder: PathBuf,
}

fn main() {
    let args = Args::parse();
    page::run(&args.page, &args.folder, None);
    println!("every command of {} did what it shows", args.page.display());
}
