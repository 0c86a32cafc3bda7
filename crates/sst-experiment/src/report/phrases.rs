//! The texts of both languages, and how numbers are written in them.

use super::Goals;
use crate::Error;
use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use minijinja::{AutoEscape, Environment, UndefinedBehavior};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sst_eval::{BENCHMARKS, Benchmark};

const EN: &str = include_str!("phrases/en.toml");
const JA: &str = include_str!("phrases/ja.toml");

/// A language that reports are written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Language {
    /// English.
    #[default]
    En,
    /// Japanese.
    Ja,
}

/// One language's phrases, ready to be filled with numbers.
pub(super) struct Phrases {
    table: Value,
    environment: Environment<'static>,
}

impl Phrases {
    pub(super) fn of(language: Language) -> Result<Self, Error> {
        let text = match language {
            Language::En => EN,
            Language::Ja => JA,
        };
        let table: Value = toml::from_str(text).map_err(|e| fault(&e))?;
        let environment = environment(&table);
        Ok(Self { table, environment })
    }

    /// The whole table, for templates.
    pub(super) fn table(&self) -> &Value {
        &self.table
    }

    /// What stands between the members of a list.
    pub(super) fn comma(&self) -> &str {
        comma(&self.table)
    }

    /// The phrase at a path of keys, filled in.
    pub(super) fn text(&self, path: &[&str], values: &impl Serialize) -> Result<String, Error> {
        let phrase = path.iter().fold(&self.table, |table, key| &table[*key]);
        let phrase = phrase
            .as_str()
            .ok_or_else(|| fault(&format!("no phrase {}", path.join("."))))?;
        self.environment
            .render_str(phrase, Serde(values))
            .map(|text| text.trim().to_owned())
            .map_err(|e| fault(&format!("{}: {e:#}", path.join("."))))
    }

    /// An environment with the same filters, for whole pages: a tag on a line of its own leaves no line.
    pub(super) fn environment(&self) -> Result<Environment<'static>, Error> {
        let mut environment = environment(&self.table);
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        environment.set_syntax(syntax.map_err(|e| fault(&e))?);
        Ok(environment)
    }
}

/// A phrase or a page of this crate that does not fit its numbers: a defect, not the user's doing.
pub(super) fn fault(problem: &impl ToString) -> Error {
    Error::Compare(format!(
        "the report's own texts are at fault: {}",
        problem.to_string().replace('\n', " ")
    ))
}

fn environment(table: &Value) -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_auto_escape_callback(|name| {
        if name.contains(".html") {
            AutoEscape::Html
        } else {
            AutoEscape::None
        }
    });
    environment.add_filter("pct", percent);
    environment.add_filter("pts", points);
    environment.add_filter("p", p_value);
    environment.add_filter("num", short_number);
    environment.add_filter("energy", energy);
    environment.add_filter("bench", |name: &str| bench(name));
    environment.add_filter("spaced", |name: &str| spaced(name));
    environment.add_filter("score", |x: f64, benchmark: &str| {
        if is_nats(benchmark) {
            format!("{x:.3}")
        } else {
            percent(x)
        }
    });
    environment.add_filter("diff", |x: f64, benchmark: &str| {
        if is_nats(benchmark) {
            format!("{x:+.3}")
        } else {
            points(x)
        }
    });
    environment.add_filter("size", |x: f64, benchmark: &str| {
        match (is_nats(benchmark), x.is_finite()) {
            (_, false) => "∞".to_owned(),
            (true, _) => format!("{x:.3}"),
            (false, _) => percent(x),
        }
    });
    let phrases = table.clone();
    environment.add_filter("setting", move |key: &str| {
        phrases["setting"][key].as_str().unwrap_or(key).to_owned()
    });
    let phrases = table.clone();
    environment.add_filter("course", move |name: &str, turns: usize| {
        let text = phrases["course"][name].as_str().unwrap_or(name);
        text.replace("{{ turns }}", &turns.to_string())
    });
    let phrases = table.clone();
    environment.add_filter("some", move |names: Vec<String>| some(&names, &phrases));
    environment
}

/// The first few of a list.
fn some(names: &[String], phrases: &Value) -> String {
    const SHOWN: usize = 4;
    let mut parts: Vec<String> = names.iter().take(SHOWN).cloned().collect();
    if names.len() > SHOWN {
        let more = phrases["note"]["more"].as_str().unwrap_or("{{ n }}");
        parts.push(more.replace("{{ n }}", &(names.len() - SHOWN).to_string()));
    }
    parts.join(comma(phrases))
}

fn comma(phrases: &Value) -> &str {
    phrases["note"]["list"].as_str().unwrap_or(", ")
}

/// A name that a Japanese particle follows: a space comes between them after Latin letters and digits alone.
fn spaced(name: &str) -> String {
    if name.ends_with(|c: char| c.is_ascii()) {
        format!("{name} ")
    } else {
        name.to_owned()
    }
}

fn is_nats(benchmark: &str) -> bool {
    benchmark.ends_with("-nll")
}

/// A benchmark's title.
pub(super) fn bench(name: &str) -> String {
    let known = BENCHMARKS.iter().find(|b| b.name() == name);
    known.map_or(name.to_owned(), |b: &Benchmark| crate::comparison::title(*b).to_owned())
}

/// `77.6`.
pub(super) fn percent(share: f64) -> String {
    let text = format!("{:.1}", 100.0 * share);
    if text == "-0.0" { "0.0".to_owned() } else { text }
}

/// `+0.6`; a trace shows no sign.
pub(super) fn points(share: f64) -> String {
    let text = percent(share);
    match text.as_str() {
        "0.0" => text,
        negative if negative.starts_with('-') => text,
        positive => format!("+{positive}"),
    }
}

/// Three digits; below a thousandth, the power of ten.
pub(super) fn p_value(p: f64) -> String {
    if p < 1e-300 {
        "< 1e-300".to_owned()
    } else if p < 1e-3 {
        format!("{p:.0e}")
    } else {
        format!("{p:.3}")
    }
}

/// As few digits as the number has, four at most.
pub(super) fn short_number(x: f64) -> String {
    if x != 0.0 && !(1e-3..1e5).contains(&x.abs()) {
        return format!("{x:.2e}");
    }
    let text = format!("{x:.4}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// A share of energy in %, in powers of ten where a tenth does not show it.
pub(super) fn energy(share: f64) -> String {
    if share > 0.0 && share < 1e-3 {
        format!("{:.1e} %", 100.0 * share)
    } else {
        format!("{} %", percent(share))
    }
}

/// `Jailbreak ≥ 77.0, MMLU ≥ 52.0`.
pub(super) fn goal_words(goals: &Goals, phrases: &Phrases) -> String {
    let word = |(b, goal): (&Benchmark, &f64)| format!("{} ≥ {}", bench(b.name()), percent(*goal));
    goals.iter().map(word).collect::<Vec<_>>().join(phrases.comma())
}

#[cfg(test)]
mod tests {
    use super::super::{Rule, next_run};
    use super::*;
    use std::collections::BTreeSet;

    fn keys(table: &Value, path: &str, out: &mut BTreeSet<String>) {
        match table {
            Value::Object(fields) => fields
                .iter()
                .for_each(|(key, inner)| keys(inner, &format!("{path}.{key}"), out)),
            _ => {
                out.insert(path.to_owned());
            }
        }
    }

    #[test]
    fn both_languages_have_the_same_phrases_and_every_rule_its_own() {
        let [en, ja] = [Language::En, Language::Ja].map(|language| {
            let mut found = BTreeSet::new();
            keys(Phrases::of(language).unwrap().table(), "", &mut found);
            found
        });
        assert_eq!(en, ja);
        for rule in Rule::ALL {
            assert!(
                en.contains(&format!(".finding.{}.title", rule.name())),
                "{}",
                rule.name()
            );
        }
        for question in next_run::QUESTIONS {
            assert!(en.contains(&format!(".next.{question}.text")), "{question}");
        }
        for stage in crate::Stage::ALL {
            assert!(en.contains(&format!(".stage.{stage}")), "{stage}");
        }
        let rules = en.iter().filter(|key| key.starts_with(".finding.")).count();
        assert_eq!(rules, 2 * Rule::ALL.len(), "a phrase without its rule");
    }

    #[test]
    fn numbers_are_written_alike_everywhere() {
        assert_eq!([points(0.006), points(-0.064), points(-1e-9)], ["+0.6", "-6.4", "0.0"]);
        assert_eq!(
            [p_value(0.0362), p_value(2.3e-7), p_value(1.0)],
            ["0.036", "2e-7", "1.000"]
        );
        assert_eq!(
            [short_number(1.0), short_number(0.75), short_number(3e-9)],
            ["1", "0.75", "3.00e-9"]
        );
        assert_eq!(
            [energy(0.0), energy(2e-6), energy(0.125)],
            ["0.0 %", "2.0e-4 %", "12.5 %"]
        );
        assert_eq!(bench("repliqa"), "RepliQA");
    }

    #[test]
    fn a_long_list_is_cut() {
        let phrases = Phrases::of(Language::En).unwrap();
        let names: Vec<String> = (0..6).map(|i| format!("m{i}")).collect();
        assert_eq!(some(&names, phrases.table()), "m0, m1, m2, m3, and 2 more");
        assert_eq!(some(&names[..2], phrases.table()), "m0, m1");
        let japanese = Phrases::of(Language::Ja).unwrap();
        assert_eq!(some(&names, japanese.table()), "m0、m1、m2、m3、ほか 2 件");
    }

    #[test]
    fn a_japanese_particle_is_spaced_from_latin_letters_alone() {
        let phrases = Phrases::of(Language::Ja).unwrap();
        let title = |setting: &str| {
            let values = serde_json::json!({ "setting": setting, "score": "MMLU" });
            phrases.text(&["chart", "effect"], &values).unwrap()
        };
        assert_eq!([title("k"), title("重み")], ["k に対する MMLU", "重みに対する MMLU"]);
    }

    #[test]
    fn a_phrase_without_its_number_is_a_fault() {
        let phrases = Phrases::of(Language::En).unwrap();
        let error = phrases
            .text(&["finding", "goals", "title"], &serde_json::json!({}))
            .unwrap_err();
        assert!(error.to_string().contains("finding.goals.title"), "{error}");
        assert!(phrases.text(&["finding", "nothing", "title"], &1).is_err());
    }
}
