//! What to tell `sbatch` beside the plan.

use crate::PlanStage;
use std::str::FromStr;

/// What the plan itself decides.
const OURS: [&str; 7] = ["array", "chdir", "dependency", "error", "output", "parsable", "wrap"];

/// Options of `sbatch`, and how often a part may be lost.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SlurmConfig {
    /// In the order given.
    pub options: Vec<SlurmOption>,
    /// How often a part is submitted again that was ended from outside.
    pub retries: usize,
}

/// One long option of `sbatch`, for all stages or for one: `partition=gpu`, `fisher.time=4:00:00`, `exclusive`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlurmOption {
    stage: Option<PlanStage>,
    argument: String,
}

impl SlurmConfig {
    /// The arguments for a stage; its own follow those of all stages, and `sbatch` heeds the last.
    pub(crate) fn arguments(&self, stage: PlanStage) -> impl Iterator<Item = &str> {
        let of = move |whose| self.options.iter().filter(move |option| option.stage == whose);
        of(None).chain(of(Some(stage))).map(|option| option.argument.as_str())
    }
}

impl FromStr for SlurmOption {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (key, value) = text
            .split_once('=')
            .map_or((text, None), |(key, value)| (key, Some(value)));
        let (stage, name) = match key.split_once('.') {
            Some((stage, name)) => (Some(stage.parse::<PlanStage>()?), name),
            None => (None, key),
        };
        if name.is_empty() || name.starts_with('-') || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-') {
            return Err(format!(
                "`{text}` is no option: expected one of sbatch's long ones, such as time=2:00:00"
            ));
        }
        if OURS.contains(&name) {
            return Err(format!("`{name}` is decided by the plan"));
        }
        let argument = value.map_or(format!("--{name}"), |value| format!("--{name}={value}"));
        Ok(Self { stage, argument })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stages_own_options_follow_the_general_ones() {
        let options = ["fisher.time=4:00:00", "time=1:00:00", "exclusive", "comment=a=b c"];
        let config = SlurmConfig {
            options: options.map(|text| text.parse().unwrap()).to_vec(),
            retries: 0,
        };
        let arguments = |stage| config.arguments(stage).collect::<Vec<_>>();
        assert_eq!(
            arguments(PlanStage::Merge),
            ["--time=1:00:00", "--exclusive", "--comment=a=b c"]
        );
        assert_eq!(arguments(PlanStage::Fisher)[3], "--time=4:00:00");
        for (text, part) in [
            ("fsher.time=1", "fsher"),
            ("array=1-3", "the plan"),
            ("--time=1", "long ones"),
            ("=3", "long"),
        ] {
            assert!(text.parse::<SlurmOption>().unwrap_err().contains(part), "{text}");
        }
    }
}
