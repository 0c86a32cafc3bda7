//! One measured process of the evaluation benchmark, told by its arguments what to do; `cargo xtask bench eval` runs it beside
//! Hugging Face transformers. The last line that it prints is a JSON object.
#![allow(clippy::unwrap_used)] // a benchmark that cannot go on stops

use clap::{Parser, Subcommand};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sst_adapter::{Adapter, Dtype, LoraConfig};
use sst_data::{DataFolder, Dataset, MmluItem, Prompt, Sizes, Split, SplitSizes, synthesise};
use sst_eval::{Finish, GenerateRequest, Generated, Generator, Sampling, ScoreRequest};
use sst_model::{BatchLimits, DeviceChoice, LanguageModel, Precision, uniform};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

const ADAPTERS: usize = 8;
const SHOTS: usize = 5;
const LETTERS: [&str; 4] = [" A", " B", " C", " D"];
const TARGETS: [&str; 7] = [
    "q_proj",
    "k_proj",
    "v_proj",
    "o_proj",
    "gate_proj",
    "up_proj",
    "down_proj",
];

#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Write prompts (questions about documents and instructions in turn), requests to refuse, quiz items and adapters.
    Prepare {
        #[arg(long)]
        model: PathBuf,
        #[arg(long)]
        out: PathBuf,
        /// Prompts, and as many requests.
        #[arg(long)]
        prompts: usize,
        /// Quiz items of every subject.
        #[arg(long)]
        items: usize,
    },
    /// Answer the first prompts.
    Generate {
        #[command(flatten)]
        run: Run,
        #[arg(long)]
        out: PathBuf,
    },
    /// Weigh the answers of the first quiz items.
    Quiz {
        #[command(flatten)]
        run: Run,
        #[arg(long)]
        out: PathBuf,
    },
    /// Answer the first requests under each of the adapters: in one batch, or adapter by adapter.
    Adapters {
        #[command(flatten)]
        run: Run,
        #[arg(long)]
        together: bool,
    },
    /// How many answers of two runs are equal.
    CompareAnswers {
        #[arg(long)]
        model: PathBuf,
        #[arg(long)]
        ours: PathBuf,
        #[arg(long)]
        theirs: PathBuf,
    },
    /// How far the likelihoods of two runs are apart.
    CompareLikelihoods {
        #[arg(long)]
        ours: PathBuf,
        #[arg(long)]
        theirs: PathBuf,
    },
}

#[derive(clap::Args)]
struct Run {
    #[arg(long)]
    model: PathBuf,
    #[arg(long)]
    folder: PathBuf,
    /// Prompts or items.
    #[arg(long)]
    n: usize,
    #[arg(long)]
    rows: usize,
    #[arg(long, default_value_t = BatchLimits::default().tokens)]
    tokens: usize,
    #[arg(long, default_value_t = 64)]
    max_new_tokens: usize,
    #[arg(long)]
    threads: usize,
}

/// A prompt as both sides read it.
#[derive(Clone, Serialize, Deserialize)]
struct Question {
    prompt: Prompt,
    ids: Vec<u32>,
    /// Tokens that end an answer, or those that are weighed.
    tokens: Vec<u32>,
}

/// An answer without the token that ends it: as text, or as tokens.
#[derive(Serialize, Deserialize)]
struct Answer {
    #[serde(default)]
    text: Option<String>,
    #[serde(default)]
    ids: Vec<u32>,
    tokens: usize,
    ended: bool,
}

fn main() {
    sst_model::restart_tuned();
    match Arguments::parse().action {
        Action::Prepare {
            model,
            out,
            prompts,
            items,
        } => prepare(&load(&model), &out, prompts, items),
        Action::Generate { run, out } => generate(&mut run.load(), &run, &out),
        Action::Quiz { run, out } => quiz(&mut run.load(), &run, &out),
        Action::Adapters { run, together } => adapters(&mut run.load(), &run, together),
        Action::CompareAnswers { model, ours, theirs } => compare_answers(&load(&model), &ours, &theirs),
        Action::CompareLikelihoods { ours, theirs } => compare_likelihoods(&ours, &theirs),
    }
}

fn load(folder: &Path) -> LanguageModel {
    LanguageModel::load(folder, DeviceChoice::Auto, Precision::F32).unwrap()
}

impl Run {
    fn load(&self) -> LanguageModel {
        sst_model::set_threads(self.threads).unwrap();
        let mut model = load(&self.model);
        let (rows, tokens) = (self.rows, self.tokens);
        model.set_limits(BatchLimits { rows, tokens }).unwrap();
        model
    }

    fn read(&self, name: &str) -> Vec<Question> {
        let mut questions: Vec<Question> = read(&self.folder.join(name));
        assert!(questions.len() >= self.n, "{name} holds too few questions");
        questions.truncate(self.n);
        questions
    }

    fn requests(&self, questions: &[Question], adapter: Option<&str>) -> Vec<GenerateRequest> {
        let request = |question: &Question| GenerateRequest {
            adapter: adapter.map(str::to_owned),
            prompt: question.prompt.clone(),
            max_new_tokens: self.max_new_tokens,
        };
        questions.iter().map(request).collect()
    }
}

fn prepare(model: &LanguageModel, out: &Path, prompts: usize, items: usize) {
    let sizes = Sizes {
        repliqa: SplitSizes {
            train: 4,
            eval: prompts.next_multiple_of(4),
        },
        alpaca: SplitSizes {
            train: 4,
            eval: prompts,
        },
        jailbreak: SplitSizes {
            train: 4,
            eval: prompts,
        },
        mmlu_dev: SHOTS,
        mmlu_test: items,
        ..Sizes::default()
    };
    let folder = out.join("data");
    synthesise(&folder, 0, &sizes).unwrap();
    let data = DataFolder::open(folder).unwrap();
    let examples = |dataset| {
        data.examples(dataset, Split::Eval)
            .unwrap()
            .into_iter()
            .map(|e| e.prompt)
    };
    let documents_and_instructions = examples(Dataset::RepliQa).zip(examples(Dataset::Alpaca));
    let questions = questions(
        model,
        documents_and_instructions.flat_map(|(a, b)| [a, b]).take(prompts),
    );
    let requests = self::questions(model, examples(Dataset::Jailbreak));
    let quiz = items_of(model, &data);
    for (name, questions) in [("prompts", &questions), ("requests", &requests), ("quiz", &quiz)] {
        write(&out.join(format!("{name}.jsonl")), questions);
    }
    for number in 0..ADAPTERS {
        let folder = out.join(adapter_name(number));
        adapter(model, number as u64).save(&folder, Dtype::F32).unwrap();
    }
    let lengths = |questions: &[Question]| questions.iter().map(|q| q.ids.len()).collect::<Vec<_>>();
    print(&serde_json::json!({
        "prompts": lengths(&questions),
        "requests": lengths(&requests),
        "quiz": lengths(&quiz),
    }));
}

/// Prompts in the model's chat format.
fn questions(model: &LanguageModel, prompts: impl Iterator<Item = Prompt>) -> Vec<Question> {
    prompts
        .map(|prompt| Question {
            ids: model.tokenizer().encode_prompt(&prompt).unwrap(),
            prompt,
            tokens: model.tokenizer().eos_ids().to_vec(),
        })
        .collect()
}

/// Multiple-choice items of all subjects after five worked examples, in random order as a draw of items has them.
fn items_of(model: &LanguageModel, data: &DataFolder) -> Vec<Question> {
    let block = |item: &MmluItem| {
        let choices = LETTERS.iter().zip(&item.choices);
        let lines: Vec<String> = choices
            .map(|(letter, choice)| format!("{}. {choice}\n", letter.trim()))
            .collect();
        format!("{}\n{}Answer:", item.question, lines.concat())
    };
    let mut quiz = Vec::new();
    for (subject, of) in data.mmlu().unwrap().subjects {
        let mut before = format!("The following are multiple choice questions (with answers) about {subject}.\n\n");
        for item in &of.dev {
            before += &format!("{}{}\n\n", block(item), LETTERS[item.answer]);
        }
        for item in &of.test {
            let text = format!("{before}{}", block(item));
            let encoded = LETTERS.map(|letter| model.tokenizer().encode_continuation(&text, letter).unwrap());
            quiz.push(Question {
                prompt: Prompt::Text(text),
                ids: encoded[0].0.clone(),
                tokens: encoded.iter().map(|(_, letter)| letter[0]).collect(),
            });
        }
    }
    sst_data::sample(&quiz, quiz.len(), 0)
}

fn adapter_name(number: usize) -> String {
    format!("adapter-{number}")
}

/// Of rank 16 on every linear, small enough not to break the answers.
fn adapter(model: &LanguageModel, seed: u64) -> Adapter {
    let targets = TARGETS.map(str::to_owned);
    let factors = model.modules(&targets).into_iter().map(|path| {
        let (d_out, d_in) = model.linear_shape(&path).unwrap();
        let entry = |factor: &str, i, bound: f64| uniform(seed, &format!("{path}.{factor}"), i, -bound, bound);
        let a = ndarray::Array2::from_shape_fn((16, d_in), |(i, j)| entry("lora_A", i * d_in + j, 0.04));
        let b = ndarray::Array2::from_shape_fn((d_out, 16), |(i, j)| entry("lora_B", i * 16 + j, 0.004));
        (path, a, b)
    });
    let factors: Vec<_> = factors.collect();
    Adapter::from_pairs(LoraConfig::new(16, 32.0, targets), factors).unwrap()
}

fn generate(model: &mut LanguageModel, run: &Run, out: &Path) {
    let questions = run.read("prompts.jsonl");
    let (answers, times) = timed(model, &[run.requests(&questions, None)]);
    let lines: Vec<Answer> = answers
        .iter()
        .map(|answer| Answer {
            text: Some(answer.text.clone()),
            ids: Vec::new(),
            tokens: answer.tokens,
            ended: answer.finish == Finish::Stop,
        })
        .collect();
    write(out, &lines);
    report(&times, &answers, &questions);
}

fn adapters(model: &mut LanguageModel, run: &Run, together: bool) {
    let questions = run.read("requests.jsonl");
    let mut runs = Vec::new();
    for name in (0..ADAPTERS).map(adapter_name) {
        let adapter = Adapter::load(&run.folder.join(&name)).unwrap();
        model.add_adapter(&name, &adapter).unwrap();
        runs.push(run.requests(&questions, Some(&name)));
    }
    if together {
        runs = vec![runs.concat()];
    }
    let (answers, times) = timed(model, &runs);
    report(&times, &answers, &questions);
}

/// The answers of some runs, one after the other, and their time; what is made at first use is not measured.
fn timed(model: &mut LanguageModel, runs: &[Vec<GenerateRequest>]) -> (Vec<Generated>, Times) {
    let mut run = |requests: &[GenerateRequest]| model.generate(requests, &Sampling::Greedy, &mut |_| ()).unwrap();
    run(&runs[0][..1]);
    measure(|| runs.iter().flat_map(|requests| run(requests)).collect())
}

/// How long something took.
struct Times {
    seconds: f64,
    /// Of all threads: on a machine that others use too, nearer to what the work itself takes.
    cpu_seconds: f64,
}

fn measure<T>(work: impl FnOnce() -> T) -> (T, Times) {
    let (started, before) = (Instant::now(), cpu_seconds());
    let done = work();
    let times = Times {
        seconds: started.elapsed().as_secs_f64(),
        cpu_seconds: cpu_seconds() - before,
    };
    (done, times)
}

/// Processor time of this process, which Linux counts in hundredths of a second after the name in parentheses.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    fields[11..13]
        .iter()
        .map(|ticks| ticks.parse::<f64>().unwrap() / 100.0)
        .sum()
}

fn report(times: &Times, answers: &[Generated], questions: &[Question]) {
    let tokens: usize = answers.iter().map(|answer| answer.tokens).sum();
    let ended = answers.iter().filter(|answer| answer.finish == Finish::Stop).count();
    print(&serde_json::json!({
        "seconds": times.seconds,
        "cpu_seconds": times.cpu_seconds,
        "tokens": tokens,
        "answers": answers.len(),
        "ended": ended,
        "prompt_tokens": prompt_tokens(questions) * answers.len() / questions.len(),
    }));
}

fn prompt_tokens(questions: &[Question]) -> usize {
    questions.iter().map(|question| question.ids.len()).sum()
}

fn quiz(model: &mut LanguageModel, run: &Run, out: &Path) {
    let questions = run.read("quiz.jsonl");
    let request = |question: &Question| ScoreRequest {
        adapter: None,
        prompt: question.prompt.clone(),
        continuations: LETTERS.map(str::to_owned).to_vec(),
    };
    let requests: Vec<ScoreRequest> = questions.iter().map(request).collect();
    model.score(&requests[..1], &mut |_| ()).unwrap();
    let (scores, times) = measure(|| model.score(&requests, &mut |_| ()).unwrap());
    let likelihoods: Vec<Vec<f64>> = scores
        .iter()
        .map(|scores| scores.iter().map(|s| s.log_likelihood).collect())
        .collect();
    write(out, &likelihoods);
    print(&serde_json::json!({
        "seconds": times.seconds,
        "cpu_seconds": times.cpu_seconds,
        "items": questions.len(),
        "prompt_tokens": prompt_tokens(&questions),
    }));
}

fn compare_answers(model: &LanguageModel, ours: &Path, theirs: &Path) {
    let (ours, theirs): (Vec<Answer>, Vec<Answer>) = (read(ours), read(theirs));
    assert_eq!(ours.len(), theirs.len());
    let text = |answer: &Answer| match &answer.text {
        Some(text) => text.clone(),
        None => model.tokenizer().decode(&answer.ids, true).unwrap(),
    };
    let equal = ours
        .iter()
        .zip(&theirs)
        .filter(|(a, b)| (a.tokens, a.ended) == (b.tokens, b.ended) && text(a) == text(b))
        .count();
    print(&serde_json::json!({ "answers": ours.len(), "equal": equal }));
}

fn compare_likelihoods(ours: &Path, theirs: &Path) {
    let (ours, theirs): (Vec<Vec<f64>>, Vec<Vec<f64>>) = (read(ours), read(theirs));
    assert_eq!(ours.len(), theirs.len());
    let mut largest = 0.0f64;
    for (ours, theirs) in ours.iter().zip(&theirs) {
        assert_eq!(ours.len(), theirs.len());
        for (a, b) in ours.iter().zip(theirs) {
            assert!(a.is_finite() && b.is_finite());
            largest = largest.max((a - b).abs());
        }
    }
    print(&serde_json::json!({ "items": ours.len(), "largest_difference": largest }));
}

fn read<T: DeserializeOwned>(path: &Path) -> Vec<T> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn write<T: Serialize>(path: &Path, rows: &[T]) {
    let mut file = BufWriter::new(std::fs::File::create(path).unwrap());
    for row in rows {
        serde_json::to_writer(&mut file, row).unwrap();
        file.write_all(b"\n").unwrap();
    }
    file.flush().unwrap();
}

fn print(value: &serde_json::Value) {
    println!("{value}");
}
