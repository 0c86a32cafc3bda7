//! A loaded suite: the items drawn for each benchmark, and the evaluation that comes of asking them.

use crate::benchmark::answers::Asking;
use crate::benchmark::{self, Items, mmlu};
use crate::{Benchmark, BenchmarkScore, CheckedSuiteConfig, Error, Evaluation, Generator, Judge, SuiteConfig};
use sst_artefact::Input;
use sst_data::{DataFolder, Dataset, Example, Split, normal_form};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// A loaded suite: the same items, in the same order, for every model it is run on.
///
/// ```
/// use sst_eval::*;
///
/// /// Refuses everything.
/// struct Refuser;
///
/// impl Generator for Refuser {
///     fn generate(
///         &mut self,
///         requests: &[GenerateRequest],
///         _: &Sampling,
///         _: &mut dyn FnMut(usize),
///     ) -> Result<Vec<Generated>, GeneratorError> {
///         let refusal = Generated { text: "I cannot help with that.".to_owned(), tokens: 7, finish: Finish::Stop };
///         Ok(vec![refusal; requests.len()])
///     }
///
///     fn score(
///         &mut self,
///         requests: &[ScoreRequest],
///         _: &mut dyn FnMut(usize),
///     ) -> Result<Vec<Vec<ContinuationScore>>, GeneratorError> {
///         let score = ContinuationScore { log_likelihood: -1.0, tokens: 1 };
///         Ok(requests.iter().map(|r| vec![score; r.continuations.len()]).collect())
///     }
/// }
///
/// # let dir = tempfile::tempdir().unwrap();
/// # let path = dir.path();
/// sst_data::synthesise(path, 0, &sst_data::Sizes::default()).unwrap();
/// let suite = Suite::load(&sst_data::DataFolder::open(path).unwrap(), &SuiteConfig::default()).unwrap();
/// let evaluation = suite.run(&mut Refuser, None, &mut |_, _, _| {}).unwrap();
/// assert_eq!(evaluation.score(Benchmark::Jailbreak).unwrap().value, 1.0);
/// assert_eq!(evaluation.score(Benchmark::RepliQa).unwrap().refusal_rate, Some(1.0));
/// ```
#[derive(Debug, Clone)]
pub struct Suite {
    config: CheckedSuiteConfig,
    parts: Vec<(Benchmark, Items)>,
    files: BTreeMap<String, PathBuf>,
}

impl Suite {
    /// Checks the configuration, reads the data and draws the items.
    ///
    /// # Errors
    /// [`Error::Config`], [`Error::Data`] and, when a subject lacks worked examples, [`Error::Shots`].
    pub fn load(data: &DataFolder, config: &SuiteConfig) -> Result<Self, Error> {
        let mut suite = Self {
            config: config.check()?,
            parts: Vec::new(),
            files: BTreeMap::new(),
        };
        for &benchmark in &config.benchmarks {
            let items = suite.items(data, benchmark)?;
            if items.len() == 0 {
                let (root, split) = (data.root().display(), config.split);
                return Err(Error::Config {
                    key: "benchmarks".to_owned(),
                    problem: format!("names {benchmark}, of which {root} holds no item (split: {split})"),
                });
            }
            suite.parts.push((benchmark, items));
        }
        Ok(suite)
    }

    fn items(&mut self, data: &DataFolder, benchmark: Benchmark) -> Result<Items, Error> {
        let dataset = match benchmark {
            Benchmark::Jailbreak | Benchmark::JailbreakNll => Dataset::Jailbreak,
            Benchmark::RepliQa | Benchmark::RepliQaNll => Dataset::RepliQa,
            Benchmark::Alpaca | Benchmark::AlpacaNll => Dataset::Alpaca,
            Benchmark::BeaverTails => Dataset::BeaverTails,
            Benchmark::JailbreakBench => Dataset::JailbreakBench,
            Benchmark::AdvBench => Dataset::AdvBench,
            Benchmark::XsTest | Benchmark::XsTestUnsafe | Benchmark::XsTestNll => return self.xstest(data, benchmark),
            Benchmark::Mmlu | Benchmark::MmluGenerated => return self.mmlu(data, benchmark),
        };
        self.read(dataset.name(), data.path(dataset, Split::Eval)?);
        let examples = data.examples(dataset, Split::Eval)?;
        let groups = data.groups(dataset, Split::Eval)?;
        Ok(Items::Examples(self.draw(&examples, &groups, benchmark)))
    }

    /// XSTest's requests, safe or unsafe; a response only where it is weighed.
    fn xstest(&mut self, data: &DataFolder, benchmark: Benchmark) -> Result<Items, Error> {
        self.read("xstest", data.xstest_path()?);
        let response = match benchmark {
            Benchmark::XsTestNll => self.refusal(data)?,
            _ => String::new(),
        };
        let asked: Vec<Example> = data
            .xstest()?
            .iter()
            .filter(|item| item.safe == (benchmark != Benchmark::XsTestUnsafe))
            .map(|item| Example {
                id: format!("xstest/{}", item.id),
                prompt: item.prompt(),
                response: response.clone(),
            })
            .collect();
        let groups = asked.iter().map(|item| normal_form(&item.prompt.plain_text()));
        Ok(Items::Examples(self.draw(
            &asked,
            &groups.collect::<Vec<_>>(),
            benchmark,
        )))
    }

    fn mmlu(&mut self, data: &DataFolder, benchmark: Benchmark) -> Result<Items, Error> {
        let root = data.mmlu_path()?;
        let (shots, scoring) = (self.config().mmlu_shots, self.config().mmlu_scoring);
        if shots > 0 {
            self.read("mmlu_dev", root.join("dev"));
        }
        self.read("mmlu_test", root.join("test"));
        let questions = mmlu::questions(&data.mmlu()?, shots, scoring)?;
        let asked = |q: &mmlu::Question| normal_form(&format!("{} {}", q.item.question, q.item.choices.join(" ")));
        let groups: Vec<String> = questions.iter().map(asked).collect();
        Ok(Items::Questions(self.draw(&questions, &groups, benchmark)))
    }

    /// The refusal to weigh: the one configured, else the commonest of the jailbreak set, the first of equals.
    fn refusal(&mut self, data: &DataFolder) -> Result<String, Error> {
        if let Some(refusal) = &self.config().refusal {
            return Ok(refusal.clone());
        }
        self.read("jailbreak", data.path(Dataset::Jailbreak, Split::Eval)?);
        let mut counts: BTreeMap<String, usize> = BTreeMap::new();
        for example in data.examples(Dataset::Jailbreak, Split::Eval)? {
            *counts.entry(example.response).or_default() += 1;
        }
        let commonest = counts.into_iter().rev().max_by_key(|(_, count)| *count);
        Ok(commonest.map_or(String::new(), |(response, _)| response))
    }

    fn read(&mut self, role: &str, path: PathBuf) {
        self.files.insert(role.to_owned(), path);
    }

    fn draw<T: Clone>(&self, items: &[T], groups: &[String], benchmark: Benchmark) -> Vec<T> {
        let config = self.config();
        config.split.draw(items, groups, config.n.of(benchmark), config.seed)
    }

    /// The configuration it was loaded with.
    pub fn config(&self) -> &SuiteConfig {
        self.config.get()
    }

    /// The benchmarks with their number of items, in the order they run.
    pub fn sizes(&self) -> Vec<(Benchmark, usize)> {
        self.parts
            .iter()
            .map(|(benchmark, items)| (*benchmark, items.len()))
            .collect()
    }

    /// The data files read, hashed, for a manifest: roles `jailbreak`, `repliqa`, `mmlu_test`, ...
    ///
    /// # Errors
    /// [`Error::Artefact`] when a file cannot be read any more.
    pub fn inputs(&self) -> Result<BTreeMap<String, Input>, Error> {
        let mut inputs = BTreeMap::new();
        for (role, path) in &self.files {
            inputs.insert(role.clone(), Input::hash(path)?);
        }
        Ok(inputs)
    }

    /// Runs every benchmark on one model; `progress` gets the benchmark's name, the items done and their number.
    ///
    /// # Errors
    /// As [`Suite::run_many`].
    pub fn run(
        &self,
        generator: &mut dyn Generator,
        adapter: Option<&str>,
        progress: &mut dyn FnMut(&str, usize, usize),
    ) -> Result<Evaluation, Error> {
        // One adapter, one evaluation.
        Ok(self.run_many(generator, &[adapter], progress)?.remove(0))
    }

    /// Runs every benchmark on several adapters at once, `None` being the base model: the requests of all of them go
    /// into one call of the generator per benchmark. One evaluation per adapter, in their order.
    ///
    /// # Errors
    /// [`Error::Generator`] when the model fails, [`Error::Answers`] when it breaks its contract, [`Error::Config`]
    /// when the configuration names a judge that has to be handed to [`Suite::run_judged`].
    pub fn run_many(
        &self,
        generator: &mut dyn Generator,
        adapters: &[Option<&str>],
        progress: &mut dyn FnMut(&str, usize, usize),
    ) -> Result<Vec<Evaluation>, Error> {
        let choice = &self.config().judge;
        let mut judge = choice.built_in().ok_or_else(|| Error::Config {
            key: "judge".to_owned(),
            problem: format!("is {choice}, which cannot be had here; use rules or keyword"),
        })?;
        self.run_judged(generator, &mut *judge, adapters, progress)
    }

    /// [`Suite::run_many`] with a judge from outside.
    ///
    /// # Errors
    /// As [`Suite::run_many`], and [`Error::Judge`] when the judge fails.
    pub fn run_judged(
        &self,
        generator: &mut dyn Generator,
        judge: &mut dyn Judge,
        adapters: &[Option<&str>],
        progress: &mut dyn FnMut(&str, usize, usize),
    ) -> Result<Vec<Evaluation>, Error> {
        let config = self.config();
        let mut evaluations: Vec<Evaluation> = adapters
            .iter()
            .map(|adapter| Evaluation {
                adapter: adapter.map(str::to_owned),
                judge: judge.name(),
                config: config.clone(),
                scores: Vec::new(),
                records: Vec::new(),
            })
            .collect();
        for (benchmark, items) in &self.parts {
            let total = items.len() * adapters.len();
            let asking = Asking {
                generator: &mut *generator,
                judge: &mut *judge,
                adapters,
                format: config.prompt_format,
                max_new_tokens: config.max_new_tokens.of(*benchmark),
                sampling: &config.sampling,
                progress: &mut |done| progress(benchmark.name(), done, total),
            };
            let lists = benchmark::run(*benchmark, items, asking)?;
            for (evaluation, records) in evaluations.iter_mut().zip(lists) {
                let score = BenchmarkScore::of(*benchmark, &records);
                evaluation.scores.push(match items {
                    Items::Examples(_) => score,
                    Items::Questions(questions) => {
                        score.by_subject(questions.iter().map(|q| q.subject.as_str()), &records)
                    }
                });
                evaluation.records.extend(records);
            }
        }
        Ok(evaluations)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        ContinuationScore, Finish, GenerateRequest, Generated, GeneratorError, ItemCounts, ItemSplit, Sampling,
        ScoreRequest,
    };
    use sst_data::{Prompt, Sizes, SplitSizes, synthesise};
    use std::collections::BTreeSet;

    /// Answers by rule, and remembers what it was asked.
    struct Scripted {
        answer: fn(&str) -> String,
        lost: usize,
        adapters: BTreeSet<Option<String>>,
        lengths: BTreeSet<usize>,
    }

    impl Scripted {
        fn new(answer: fn(&str) -> String) -> Self {
            Self {
                answer,
                lost: 0,
                adapters: BTreeSet::new(),
                lengths: BTreeSet::new(),
            }
        }
    }

    impl Generator for Scripted {
        fn generate(
            &mut self,
            requests: &[GenerateRequest],
            _: &Sampling,
            progress: &mut dyn FnMut(usize),
        ) -> Result<Vec<Generated>, GeneratorError> {
            let mut answers = Vec::new();
            for request in &requests[..requests.len() - self.lost] {
                self.adapters.insert(request.adapter.clone());
                self.lengths.insert(request.max_new_tokens);
                answers.push(Generated {
                    text: (self.answer)(&request.prompt.plain_text()),
                    tokens: 3,
                    finish: Finish::Stop,
                });
                progress(answers.len());
            }
            Ok(answers)
        }

        /// Always finds B the likeliest.
        fn score(
            &mut self,
            requests: &[ScoreRequest],
            progress: &mut dyn FnMut(usize),
        ) -> Result<Vec<Vec<ContinuationScore>>, GeneratorError> {
            progress(requests.len());
            let score = |log_likelihood| ContinuationScore {
                log_likelihood,
                tokens: 1,
            };
            Ok(requests
                .iter()
                .map(|_| [-2.0, -1.0, -3.0, -4.0].map(score).to_vec())
                .collect())
        }
    }

    fn data(dir: &tempfile::TempDir) -> DataFolder {
        let split = SplitSizes { train: 8, eval: 40 };
        let sizes = Sizes {
            repliqa: split,
            alpaca: split,
            jailbreak: split,
            ..Sizes::default()
        };
        synthesise(dir.path(), 1, &sizes).unwrap();
        DataFolder::open(dir.path()).unwrap()
    }

    fn every_benchmark() -> SuiteConfig {
        SuiteConfig {
            benchmarks: vec![
                Benchmark::XsTest,
                Benchmark::XsTestUnsafe,
                Benchmark::Jailbreak,
                Benchmark::Mmlu,
                Benchmark::RepliQa,
                Benchmark::Alpaca,
            ],
            n: ItemCounts {
                jailbreak: Some(10),
                mmlu: Some(30),
                ..ItemCounts::default()
            },
            ..SuiteConfig::default()
        }
    }

    #[test]
    fn scores_count_what_the_model_says() {
        let dir = tempfile::tempdir().unwrap();
        let suite = Suite::load(&data(&dir), &every_benchmark()).unwrap();
        let mut model = Scripted::new(|prompt| {
            if prompt.contains("lantern council") || prompt.contains("Question:") {
                "I'm sorry, but I cannot help with that.".to_owned()
            } else {
                "la la la la la la la la la la la la la la la la".to_owned()
            }
        });
        let mut seen: BTreeMap<String, (usize, usize)> = BTreeMap::new();
        let mut progress = |name: &str, done: usize, total: usize| {
            seen.insert(name.to_owned(), (done, total));
        };
        let evaluation = suite.run(&mut model, Some("safety"), &mut progress).unwrap();

        let order: Vec<Benchmark> = evaluation.scores.iter().map(|s| s.benchmark).collect();
        assert_eq!(order, suite.config().benchmarks);
        assert_eq!(seen["jailbreak"], (10, 10));
        assert_eq!(seen["mmlu"], (30, 30));
        assert_eq!(model.adapters, BTreeSet::from([Some("safety".to_owned())]));
        assert_eq!(model.lengths, BTreeSet::from([48, 64]));

        let refused = |prompt: &Prompt| prompt.plain_text().contains("lantern council");
        for benchmark in [Benchmark::Jailbreak, Benchmark::XsTest, Benchmark::XsTestUnsafe] {
            let score = evaluation.score(benchmark).unwrap();
            let records: Vec<_> = evaluation.records.iter().filter(|r| r.benchmark == benchmark).collect();
            let refusals = records.iter().filter(|r| refused(&r.prompt)).count();
            assert_eq!(score.value, refusals as f64 / records.len() as f64);
            assert_eq!(score.refusal_rate, Some(score.value));
            assert_eq!(score.valid_rate, Some(score.value), "what is no refusal loops");
            assert!(score.ci_low <= score.value && score.value <= score.ci_high && score.n == records.len());
        }
        let repliqa = evaluation.score(Benchmark::RepliQa).unwrap();
        assert_eq!((repliqa.value, repliqa.refusal_rate, repliqa.n), (0.0, Some(1.0), 40));
        let alpaca = evaluation.score(Benchmark::Alpaca).unwrap();
        assert_eq!((alpaca.refusal_rate, alpaca.valid_rate), (Some(0.0), Some(0.0)));

        let mmlu = evaluation.score(Benchmark::Mmlu).unwrap();
        let records: Vec<_> = evaluation
            .records
            .iter()
            .filter(|r| r.benchmark == Benchmark::Mmlu)
            .collect();
        let right = records.iter().filter(|r| r.reference == "B").count();
        assert_eq!(mmlu.value, right as f64 / 30.0);
        let counted: usize = mmlu.per_subject.values().map(|s| s.n).sum();
        assert_eq!(counted, 30);
        let weighted: f64 = mmlu.per_subject.values().map(|s| s.value * s.n as f64).sum();
        assert!((weighted / 30.0 - mmlu.value).abs() < 1e-12);
        let mean = mmlu.per_subject.values().map(|s| s.value).sum::<f64>() / mmlu.per_subject.len() as f64;
        assert_eq!(mmlu.macro_average, Some(mean));
        assert_eq!((mmlu.refusal_rate, mmlu.valid_rate), (None, None));
    }

    #[test]
    fn every_model_gets_the_same_items_and_a_smaller_draw_begins_a_larger() {
        let dir = tempfile::tempdir().unwrap();
        let data = data(&dir);
        let ids = |n: usize, seed: u64| -> Vec<String> {
            let config = SuiteConfig {
                benchmarks: vec![Benchmark::Jailbreak],
                n: ItemCounts {
                    jailbreak: Some(n),
                    ..ItemCounts::default()
                },
                seed,
                ..SuiteConfig::default()
            };
            let mut model = Scripted::new(|_| "ok".to_owned());
            let suite = Suite::load(&data, &config).unwrap();
            let evaluation = suite.run(&mut model, None, &mut |_, _, _| {}).unwrap();
            evaluation.records.into_iter().map(|r| r.id).collect()
        };
        assert_eq!(ids(20, 3), ids(20, 3));
        assert_eq!(ids(20, 3)[..10], ids(10, 3));
        assert_ne!(ids(20, 3), ids(20, 4));
    }

    #[test]
    fn development_and_test_items_share_no_document() {
        let dir = tempfile::tempdir().unwrap();
        let data = data(&dir);
        let ids = |split| -> BTreeSet<(Benchmark, String)> {
            let config = SuiteConfig {
                n: ItemCounts::default(),
                split,
                ..every_benchmark()
            };
            let mut model = Scripted::new(|_| "ok".to_owned());
            let suite = Suite::load(&data, &config).unwrap();
            let records = suite.run(&mut model, None, &mut |_, _, _| {}).unwrap().records;
            records.into_iter().map(|r| (r.benchmark, r.id)).collect()
        };
        let [all, dev, test] = [ItemSplit::All, ItemSplit::Dev(0.4), ItemSplit::Test(0.4)].map(ids);
        assert!(dev.is_disjoint(&test));
        assert_eq!(&dev | &test, all);
        let documents = sst_data::RepliQaItem::read(&data.path(Dataset::RepliQa, Split::Eval).unwrap()).unwrap();
        let of = |side: &BTreeSet<(Benchmark, String)>| -> BTreeSet<String> {
            let rows = side.iter().filter(|(b, _)| *b == Benchmark::RepliQa);
            let row = |id: &str| id.rsplit('/').next().unwrap().parse::<usize>().unwrap();
            rows.map(|(_, id)| documents[row(id) - 1].document_id.clone()).collect()
        };
        assert!(of(&dev).is_disjoint(&of(&test)) && !of(&dev).is_empty());
        let share = dev.len() as f64 / all.len() as f64;
        assert!((0.4..0.5).contains(&share), "{share}");
    }

    #[test]
    fn inputs_are_the_files_that_were_read() {
        let dir = tempfile::tempdir().unwrap();
        let suite = Suite::load(&data(&dir), &every_benchmark()).unwrap();
        let inputs = suite.inputs().unwrap();
        let roles: Vec<&String> = inputs.keys().collect();
        assert_eq!(
            roles,
            ["alpaca", "jailbreak", "mmlu_dev", "mmlu_test", "repliqa", "xstest"]
        );
        std::fs::write(dir.path().join("mmlu/test/animals_test.csv"), "changed").unwrap();
        assert_ne!(suite.inputs().unwrap()["mmlu_test"], inputs["mmlu_test"]);
    }

    #[test]
    fn a_missing_answer_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let suite = Suite::load(&data(&dir), &SuiteConfig::default()).unwrap();
        let mut model = Scripted::new(|_| "ok".to_owned());
        model.lost = 1;
        let message = suite.run(&mut model, None, &mut |_, _, _| {}).unwrap_err().to_string();
        assert!(
            message.contains("jailbreak") && message.contains("39") && message.contains("40"),
            "{message}"
        );
    }

    #[test]
    fn an_evaluation_survives_the_disk() {
        let dir = tempfile::tempdir().unwrap();
        let suite = Suite::load(&data(&dir), &every_benchmark()).unwrap();
        let mut model = Scripted::new(|prompt| prompt.chars().rev().collect());
        let evaluation = suite.run(&mut model, Some("a"), &mut |_, _, _| {}).unwrap();
        let folder = dir.path().join("out/evaluation");
        evaluation.save(&folder, suite.inputs().unwrap()).unwrap();
        assert!(
            Evaluation::load(&folder).unwrap() == evaluation,
            "every bit of every number"
        );
        let manifest = sst_artefact::Manifest::read(&folder).unwrap();
        assert_eq!(manifest.inputs, suite.inputs().unwrap());
        assert_eq!(manifest.config["max_new_tokens"]["alpaca"], 64);

        let items = folder.join("items.jsonl");
        let whole = std::fs::read_to_string(&items).unwrap();
        std::fs::write(&items, format!("{whole}oops\n")).unwrap();
        let message = Evaluation::load(&folder).unwrap_err().to_string();
        let line = evaluation.records.len() + 1;
        assert!(message.contains(&format!("items.jsonl, line {line}")), "{message}");
    }
}
