//! Data sets as their publishers keep them on the Hub: which repository, which split, which files.
//!
//! | name | repository | split | becomes |
//! | --- | --- | --- | --- |
//! | `repliqa` | ServiceNow/repliqa | `repliqa_0` (to `repliqa_4`) | `repliqa/` train and eval, split by document |
//! | `alpaca` | tatsu-lab/alpaca | `train` | `alpaca/` train and eval |
//! | `mmlu` | cais/mmlu | `test`, with `dev` | `mmlu/` test and dev by subject |
//! | `beavertails` | PKU-Alignment/BeaverTails-Evaluation | `test` | `beavertails/` eval |
//! | `xstest` | walledai/XSTest | `test` | `xstest/` |
//! | `jailbreakbench` | JailbreakBench/JBB-Behaviors | `harmful` | `jailbreakbench/` eval |
//! | `advbench` | walledai/AdvBench | `train` | `advbench/` eval |
//!
//! A file belongs to a split whose name is the end of its folders and its name up to the first `-` or `.`, joined by `_`:
//! `data/repliqa_0-00000-of-00001.parquet` to `repliqa_0`, `round0/30k/test.jsonl.gz` to `30k_test`.

use crate::Error;
use crate::table::Format;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::Path;
use std::str::FromStr;

/// A published data set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Published {
    /// Questions about fictional documents.
    RepliQa,
    /// Instructions.
    Alpaca,
    /// Multiple choice.
    Mmlu,
    /// Harmful requests of fourteen kinds.
    BeaverTails,
    /// Safe requests that look unsafe, and unsafe ones.
    XsTest,
    /// Harmful requests of ten kinds.
    JailbreakBench,
    /// Harmful requests.
    AdvBench,
}

/// Every published data set that is known.
pub const PUBLISHED: [Published; 7] = [
    Published::RepliQa,
    Published::Alpaca,
    Published::Mmlu,
    Published::BeaverTails,
    Published::XsTest,
    Published::JailbreakBench,
    Published::AdvBench,
];

impl Published {
    /// Its name in commands, and its folder.
    pub fn name(self) -> &'static str {
        match self {
            Published::RepliQa => "repliqa",
            Published::Alpaca => "alpaca",
            Published::Mmlu => "mmlu",
            Published::BeaverTails => "beavertails",
            Published::XsTest => "xstest",
            Published::JailbreakBench => "jailbreakbench",
            Published::AdvBench => "advbench",
        }
    }

    /// Its repository on the Hub.
    pub fn repository(self) -> &'static str {
        match self {
            Published::RepliQa => "ServiceNow/repliqa",
            Published::Alpaca => "tatsu-lab/alpaca",
            Published::Mmlu => "cais/mmlu",
            Published::BeaverTails => "PKU-Alignment/BeaverTails-Evaluation",
            Published::XsTest => "walledai/XSTest",
            Published::JailbreakBench => "JailbreakBench/JBB-Behaviors",
            Published::AdvBench => "walledai/AdvBench",
        }
    }

    /// The split that is taken where none is named.
    pub fn split(self) -> &'static str {
        match self {
            Published::RepliQa => "repliqa_0",
            Published::Alpaca | Published::AdvBench => "train",
            Published::Mmlu | Published::BeaverTails | Published::XsTest => "test",
            Published::JailbreakBench => "harmful",
        }
    }

    /// The files of a split among `names`, sorted. Where a folder holds the same in two formats parquet comes first. Without
    /// a `split`, one file of data alone is taken whatever its name.
    pub(crate) fn pick(self, names: &[String], split: Option<&str>, place: &Path) -> Result<Vec<String>, Error> {
        let data: Vec<&String> = names.iter().filter(|name| Format::of(name).is_some()).collect();
        let wanted = split.unwrap_or(self.split());
        let whole = (self == Published::Mmlu).then(|| format!("all_{wanted}"));
        for split in whole.iter().map(String::as_str).chain([wanted]) {
            let mut files: Vec<&String> = data.iter().copied().filter(|name| belongs(name, split)).collect();
            let formats = files.iter().filter_map(|name| Format::of(name));
            if let Some((best, _)) = formats.min() {
                files.retain(|name| Format::of(name).is_some_and(|(format, _)| format == best));
                files.sort();
                return Ok(files.into_iter().cloned().collect());
            }
        }
        match data.as_slice() {
            [only] if split.is_none() => Ok(vec![(*only).clone()]),
            _ => Err(Error::Split {
                place: place.to_path_buf(),
                split: wanted.to_owned(),
                found: if data.is_empty() {
                    "none".to_owned()
                } else {
                    list(&data)
                },
            }),
        }
    }
}

/// A few names of many.
fn list(names: &[&String]) -> String {
    const SHOWN: usize = 8;
    let mut text = names
        .iter()
        .take(SHOWN)
        .map(|n| n.as_str())
        .collect::<Vec<_>>()
        .join(", ");
    if names.len() > SHOWN {
        text += &format!(" and {} more", names.len() - SHOWN);
    }
    text
}

fn belongs(file: &str, split: &str) -> bool {
    let (folders, name) = file.rsplit_once('/').unwrap_or(("", file));
    let first = name.split(['-', '.']).next().unwrap_or_default();
    let joined = format!("_{}_{first}", folders.replace('/', "_"));
    joined.ends_with(&format!("_{split}"))
}

impl fmt::Display for Published {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Published {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        let known = PUBLISHED.into_iter().find(|set| set.name() == name);
        known.ok_or_else(|| Error::Name {
            what: "published data set",
            name: name.to_owned(),
            expected: PUBLISHED.map(Published::name).join(", "),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pick(set: Published, names: &[&str], split: Option<&str>) -> Result<Vec<String>, String> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        set.pick(&names, split, Path::new("here")).map_err(|e| e.to_string())
    }

    #[test]
    fn splits_are_found_in_the_publishers_layouts() {
        let repliqa = [
            "README.md",
            "data/repliqa_0-00001-of-00002.parquet",
            "data/repliqa_0-00000-of-00002.parquet",
            "data/repliqa_1-00000-of-00001.parquet",
        ];
        let found = pick(Published::RepliQa, &repliqa, None).unwrap();
        assert_eq!(
            found,
            [
                "data/repliqa_0-00000-of-00002.parquet",
                "data/repliqa_0-00001-of-00002.parquet"
            ]
        );
        let found = pick(Published::RepliQa, &repliqa, Some("repliqa_1")).unwrap();
        assert_eq!(found, ["data/repliqa_1-00000-of-00001.parquet"]);

        let mmlu = [
            "abstract_algebra/test-00000-of-00001.parquet",
            "all/dev-00000-of-00001.parquet",
            "all/test-00000-of-00001.parquet",
        ];
        assert_eq!(pick(Published::Mmlu, &mmlu, None).unwrap(), [mmlu[2]]);
        assert_eq!(pick(Published::Mmlu, &mmlu[..1], None).unwrap(), [mmlu[0]]);

        let beavertails = [
            "round0/30k/test.jsonl.gz",
            "round0/330k/test.jsonl.gz",
            "round0/30k/train.jsonl.gz",
        ];
        let found = pick(Published::BeaverTails, &beavertails, Some("30k_test")).unwrap();
        assert_eq!(found, ["round0/30k/test.jsonl.gz"]);

        let jailbreakbench = ["data/benign-behaviors.csv", "data/harmful-behaviors.csv"];
        assert_eq!(
            pick(Published::JailbreakBench, &jailbreakbench, None).unwrap(),
            [jailbreakbench[1]]
        );
    }

    #[test]
    fn one_file_needs_no_name_and_parquet_comes_first() {
        let found = pick(Published::XsTest, &["README.md", "xstest_prompts.csv"], None).unwrap();
        assert_eq!(found, ["xstest_prompts.csv"]);
        let both = ["test.csv", "test.parquet"];
        assert_eq!(pick(Published::XsTest, &both, None).unwrap(), ["test.parquet"]);
        let message = pick(Published::XsTest, &["a.csv", "b.csv"], None).unwrap_err();
        assert!(
            message.contains("split `test`") && message.contains("a.csv, b.csv"),
            "{message}"
        );
        let message = pick(Published::XsTest, &["xstest_prompts.csv"], Some("v2")).unwrap_err();
        assert!(message.contains("split `v2`"), "{message}");
        // What cannot be read is no file of data.
        assert!(
            pick(Published::BeaverTails, &["round0/330k/test.jsonl.xz"], None)
                .unwrap_err()
                .contains("there are none")
        );
    }

    #[test]
    fn names_round_trip() {
        for set in PUBLISHED {
            assert_eq!(set.name().parse::<Published>().unwrap(), set);
            assert_eq!(serde_json::to_value(set).unwrap(), set.name());
        }
        assert!(
            "squad"
                .parse::<Published>()
                .unwrap_err()
                .to_string()
                .contains("repliqa, alpaca, mmlu")
        );
    }
}
