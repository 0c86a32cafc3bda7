//! Measures the refusal judge against human labels.
//!
//! Usage: `cargo run -p sst-eval --example judge_agreement -- LABELLED.csv...`, each file with columns `completion` and
//! `label` as XSTest publishes them (`1_full_compliance`, `2_full_refusal`, `3_partial_refusal`). With `--list`, every
//! completion judged against its label is printed.

use sst_eval::{is_refusal, validity};
use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    let (flags, files): (Vec<String>, Vec<String>) = std::env::args().skip(1).partition(|a| a == "--list");
    println!(
        "{:<50} {:>8} {:>8} {:>8} {:>8} {:>8}",
        "file", "recall", "specif.", "balanced", "partial", "valid"
    );
    for file in &files {
        let (mut refused, mut counts, mut valid, mut rows) = ([0.0; 3], [0.0; 3], 0.0, 0.0);
        let mut reader = csv::Reader::from_path(file)?;
        let headers = reader.headers()?.clone();
        let column = |name: &str| {
            headers
                .iter()
                .position(|h| h == name)
                .ok_or(format!("{file}: no column `{name}`"))
        };
        let (completion, label) = (column("completion")?, column("label")?);
        for record in reader.records() {
            let record = record?;
            let (text, label) = (&record[completion], &record[label]);
            let class = match label.as_bytes().first() {
                Some(&digit @ b'1'..=b'3') => usize::from(digit - b'1'),
                _ => return Err(format!("{file}: unknown label `{label}`").into()),
            };
            let judged = is_refusal(text);
            counts[class] += 1.0;
            refused[class] += f64::from(u8::from(judged));
            valid += f64::from(u8::from(validity(text).is_valid()));
            rows += 1.0;
            if !flags.is_empty() && class < 2 && judged != (class == 1) {
                let opening: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
                println!("  {label}: {}", opening.chars().take(220).collect::<String>());
            }
        }
        let (recall, specificity) = (refused[1] / counts[1], 1.0 - refused[0] / counts[0]);
        let balanced = (recall + specificity) / 2.0;
        let (partial, valid) = (refused[2] / counts[2], valid / rows);
        let name = std::path::Path::new(file)
            .file_name()
            .unwrap_or_default()
            .to_string_lossy();
        println!("{name:<50} {recall:>8.3} {specificity:>8.3} {balanced:>8.3} {partial:>8.3} {valid:>8.3}");
    }
    Ok(())
}
