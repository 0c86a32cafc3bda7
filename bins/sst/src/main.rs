//! The front door of SST-Merge: parse, call one function, print.

mod bars;
mod command;
mod options;

use clap::Parser;
use command::Command;
use options::Options;
use std::process::ExitCode;

/// Merge a utility and a safety LoRA adapter so that both survive, and prove it with numbers.
#[derive(Parser)]
#[command(name = "sst", version, about, after_help = EXAMPLE, propagate_version = true)]
struct Cli {
    #[command(flatten)]
    options: Options,
    #[command(subcommand)]
    command: Command,
}

const EXAMPLE: &str = "\
Example, from nothing to a comparison:
  sst model fetch smollm2-135m-instruct --out .models/smollm2-135m-instruct
  sst data synthesise --out runs/data
  sst sweep docs/recipes/demo.toml --data runs/data --out runs/demo";

fn main() -> ExitCode {
    sst_model::restart_tuned();
    let cli = Cli::parse();
    cli.options.start_logging();
    match cli.options.set_threads().and_then(|()| cli.command.run(&cli.options)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // One line: the library errors name the file, tensor or key; their sources repeat it.
            let mut line = error.to_string();
            for cause in error.chain().skip(1) {
                let cause = cause.to_string();
                if !line.contains(&cause) {
                    line = format!("{line}: {cause}");
                }
            }
            eprintln!("error: {}", line.replace('\n', " "));
            ExitCode::FAILURE
        }
    }
}
