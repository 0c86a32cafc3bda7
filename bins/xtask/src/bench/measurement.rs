//! What one measured process says about itself: one line of JSON, the last on its standard output.

use anyhow::{Context, Result, bail};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::command::Command;

/// One run over a set of samples.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Measurement {
    /// Wall time of the measured part.
    pub seconds: f64,
    pub samples: u64,
    pub tokens: u64,
    /// Operations that a forward and a backward pass through the frozen weights need for these samples.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flop: Option<f64>,
    /// Peak resident memory of the process.
    pub peak_bytes: u64,
    /// Resident memory once model and adapter were loaded.
    pub model_bytes: u64,
    pub forward_s: f64,
    pub backward_s: f64,
    pub statistics_s: f64,
    /// What else the process says: kept, not interpreted.
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

/// One timed piece of work, such as a merge.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Timed {
    /// Wall time of the measured part.
    pub seconds: f64,
    /// What else the process says: kept, not interpreted.
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

/// The speed of the machine, from one large matrix product in f32.
#[derive(Debug, Clone, Copy, Deserialize)]
pub struct Matmul {
    /// 10^9 operations a second.
    pub gflops: f64,
}

impl Measurement {
    /// Reads the report in `output` and refuses one that cannot be true of a run over `samples` samples.
    pub fn parse(output: &str, samples: u64) -> Result<Self> {
        let run: Self = last_line(output)?;
        if run.samples != samples {
            bail!("{} samples were measured instead of {samples}", run.samples);
        }
        positive("seconds", run.seconds)?;
        for part in [run.forward_s, run.backward_s, run.statistics_s] {
            if !(part.is_finite() && part >= 0.0) {
                bail!("a part of the run took {part} s");
            }
        }
        if run.peak_bytes <= run.model_bytes {
            bail!(
                "the peak of {} bytes is not above the {} bytes of the loaded model",
                run.peak_bytes,
                run.model_bytes
            );
        }
        Ok(run)
    }

    /// Samples a second.
    pub fn rate(&self) -> f64 {
        self.samples as f64 / self.seconds
    }

    /// The most memory it took on top of the loaded model, in bytes.
    pub fn memory(&self) -> u64 {
        self.peak_bytes - self.model_bytes
    }

    /// The operations it reports, in 10^9.
    pub fn gflop(&self) -> Result<f64> {
        let flop = self.flop.context("a run of ours does not report its `flop`")?;
        positive("flop", flop).map(|flop| flop / 1e9)
    }
}

impl Timed {
    /// Runs `command`, which does `what`, and reads its report.
    pub fn of(command: &Command, what: &str) -> Result<Self> {
        let output = command.output_quietly(what)?;
        Self::parse(&output).with_context(|| format!("{what}: `{}`", command.line()))
    }

    /// Reads the report in `output`.
    pub fn parse(output: &str) -> Result<Self> {
        let timed: Self = last_line(output)?;
        positive("seconds", timed.seconds)?;
        Ok(timed)
    }

    /// A number that the process reports besides, larger than 0.
    pub fn figure(&self, key: &str) -> Result<f64> {
        let figure = self.rest.get(key).and_then(Value::as_f64);
        positive(
            key,
            figure.with_context(|| format!("a process does not report its `{key}`"))?,
        )
    }
}

impl Matmul {
    /// Reads the report in `output`.
    pub fn parse(output: &str) -> Result<Self> {
        let matmul: Self = last_line(output)?;
        positive("gflops", matmul.gflops)?;
        Ok(matmul)
    }
}

/// The shares that the parts have in the time of all `runs` together; what no part accounts for is `rest`.
pub fn shares<'a>(runs: impl IntoIterator<Item = &'a Measurement>) -> [(&'static str, f64); 4] {
    let [mut forward, mut backward, mut statistics, mut seconds] = [0.0; 4];
    for run in runs {
        forward += run.forward_s;
        backward += run.backward_s;
        statistics += run.statistics_s;
        seconds += run.seconds;
    }
    let rest = (seconds - forward - backward - statistics).max(0.0);
    [
        ("forward", forward / seconds),
        ("backward", backward / seconds),
        ("statistics", statistics / seconds),
        ("rest", rest / seconds),
    ]
}

pub(super) fn last_line<T: DeserializeOwned>(output: &str) -> Result<T> {
    let line = output
        .lines()
        .rfind(|line| !line.trim().is_empty())
        .context("nothing was printed")?;
    serde_json::from_str(line).with_context(|| format!("not the report that was expected: {line}"))
}

fn positive(what: &str, value: f64) -> Result<f64> {
    if !(value.is_finite() && value > 0.0) {
        bail!("`{what}` is {value}");
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = r#"{"seconds": 8.0, "samples": 4, "tokens": 700, "peak_bytes": 900, "model_bytes": 500,
        "forward_s": 2.0, "backward_s": 5.0, "statistics_s": 0.5, "flop": 3e12, "device": "cpu"}"#;

    fn line() -> String {
        LINE.replace('\n', "")
    }

    #[test]
    fn a_timed_piece_of_work_keeps_its_figures() {
        let timed = Timed::parse("preparing\n{\"seconds\": 2.0, \"merge_s\": 1.5, \"zero\": 0.0}\n").unwrap();
        assert_eq!((timed.seconds, timed.figure("merge_s").unwrap()), (2.0, 1.5));
        for key in ["zero", "absent"] {
            assert!(timed.figure(key).unwrap_err().to_string().contains(key));
        }
        assert!(Timed::parse("{\"seconds\": 0.0}").is_err());
    }

    #[test]
    fn the_last_line_is_the_report_and_what_we_do_not_know_is_kept() {
        let run = Measurement::parse(&format!("loading\n{{\"a\": 1}}\n{}\n\n", line()), 4).unwrap();
        assert_eq!(run.rate(), 0.5);
        assert_eq!(run.memory(), 400);
        assert_eq!(run.gflop().unwrap(), 3000.0);
        let expected = [
            ("forward", 0.25),
            ("backward", 0.625),
            ("statistics", 0.0625),
            ("rest", 0.0625),
        ];
        assert_eq!(shares([&run, &run]), expected);
        let again: Value = serde_json::to_value(&run).unwrap();
        assert_eq!(again, serde_json::from_str::<Value>(&line()).unwrap());
    }

    #[test]
    fn a_report_that_cannot_be_true_is_refused() {
        let refused = |from: &str, to: &str, word: &str| {
            let text = line().replace(from, to);
            assert_ne!(text, line());
            let error = format!("{:#}", Measurement::parse(&text, 4).unwrap_err());
            assert!(error.contains(word), "{error}");
        };
        refused(r#""samples": 4"#, r#""samples": 3"#, "3 samples");
        refused(r#""seconds": 8.0"#, r#""seconds": 0.0"#, "`seconds` is 0");
        refused(r#""forward_s": 2.0"#, r#""forward_s": -1.0"#, "-1 s");
        refused(r#""peak_bytes": 900"#, r#""peak_bytes": 500"#, "500 bytes");
        refused(r#""tokens": 700, "#, "", "tokens");
        for output in ["", "\n \n", "no JSON"] {
            assert!(Measurement::parse(output, 4).is_err(), "{output:?}");
        }
    }

    #[test]
    fn ours_must_say_its_operations() {
        let run = Measurement::parse(&line().replace(r#""flop": 3e12, "#, ""), 4).unwrap();
        assert!(run.gflop().unwrap_err().to_string().contains("flop"));
    }

    #[test]
    fn a_machine_without_speed_is_refused() {
        assert_eq!(Matmul::parse("{\"gflops\": 239.5}\n").unwrap().gflops, 239.5);
        assert!(Matmul::parse("{\"gflops\": 0}").is_err());
        assert!(Matmul::parse("{}").is_err());
    }
}
