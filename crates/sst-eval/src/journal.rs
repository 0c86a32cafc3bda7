//! A generator that forgets nothing: answers go to a file as they come, and are asked for only once.
//!
//! Requests reach the inner generator in chunks of fixed size, cut from the distinct requests of a call in their order; a
//! chunk's answers are appended, closed by a line of their own, and synced to the disk. Killed at any moment, the next
//! run finds every closed chunk and asks the others as the first run would have: an answer may depend, by rounding, on
//! which requests share its batch, and the same chunks make the same batches. So it ends with the same bytes.
//!
//! What follows the last whole chunk is cut off when the file is opened again.

mod file;

use crate::{ContinuationScore, GenerateRequest, Generated, Generator, GeneratorError, Sampling, ScoreRequest};
use file::{Header, Kept, Line, closed_chunks, difference, first_line};
use serde::Serialize;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{BufRead, BufReader, Read, Seek, Write};
use std::path::{Path, PathBuf};

/// A journal could not be opened or written.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The file could not be read or written.
    #[error(transparent)]
    Artefact(#[from] sst_artefact::Error),
    /// Its answers are of another model, other data or other settings.
    #[error(
        "{} holds the answers of another evaluation that was cut off ({difference}); finish that one, choose another output \
         folder, or delete the file",
        path.display()
    )]
    Other {
        /// The journal.
        path: PathBuf,
        /// What differs.
        difference: String,
    },
    /// Another process writes it.
    #[error("{} is being written by another process: wait for it, or choose another output folder", path.display())]
    InUse {
        /// The journal.
        path: PathBuf,
    },
    /// The inner generator broke its contract.
    #[error("the generator returned {got} answers to {expected} requests")]
    Count {
        /// Number of requests.
        expected: usize,
        /// Number of answers.
        got: usize,
    },
}

/// A [`Generator`] that keeps every answer of another one in a file.
///
/// ```
/// use sst_eval::*;
/// # struct Parrot(usize);
/// # impl Generator for Parrot {
/// #     fn generate(&mut self, requests: &[GenerateRequest], _: &Sampling, _: &mut dyn FnMut(usize)) -> Result<Vec<Generated>, GeneratorError> {
/// #         self.0 += requests.len();
/// #         let parrot = |r: &GenerateRequest| Generated { text: r.prompt.plain_text(), tokens: 1, finish: Finish::Stop };
/// #         Ok(requests.iter().map(parrot).collect())
/// #     }
/// #     fn score(&mut self, _: &[ScoreRequest], _: &mut dyn FnMut(usize)) -> Result<Vec<Vec<ContinuationScore>>, GeneratorError> { Ok(vec![]) }
/// # }
/// # let dir = tempfile::tempdir().unwrap();
/// # let path = dir.path().join("journal.jsonl");
/// # let mut model = Parrot(0);
/// let identity = serde_json::json!({ "model": "parrot" });
/// let request = GenerateRequest { adapter: None, prompt: sst_data::Prompt::user("Hello"), max_new_tokens: 4 };
/// for _ in 0..2 {
///     let mut journal = Journal::open(&path, &identity, 64, &mut model)?;
///     let answers = journal.generate(&[request.clone()], &Sampling::Greedy, &mut |_| {}).unwrap();
///     assert_eq!(answers[0].text, "Hello");
/// }
/// assert_eq!(model.0, 1); // asked once
/// # Ok::<(), JournalError>(())
/// ```
pub struct Journal<'a> {
    inner: &'a mut dyn Generator,
    file: File,
    path: PathBuf,
    chunk: usize,
    answers: BTreeMap<String, Line>,
}

impl<'a> Journal<'a> {
    /// Opens the journal at `path`, or begins one, for the answers of `inner`.
    ///
    /// `identity` is all that decides an answer beside its request: model, adapters, precision. `chunk` requests, at least
    /// 1, go to the generator at a time: many, so that its batches stay full; few, so that little is lost.
    ///
    /// # Errors
    /// [`JournalError::Other`] when the file belongs to another identity or chunk size, [`JournalError::InUse`] when another
    /// process has it open, [`JournalError::Artefact`] when it cannot be read or written.
    pub fn open(
        path: &Path,
        identity: &Value,
        chunk: usize,
        inner: &'a mut dyn Generator,
    ) -> Result<Self, JournalError> {
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            sst_artefact::create_dir(folder)?;
        }
        let mut options = OpenOptions::new();
        let mut file = options
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(sst_artefact::Error::io("open", path))?;
        match file.try_lock() {
            // Where the file system has no locks there is nothing to respect.
            Ok(()) | Err(TryLockError::Error(_)) => {}
            Err(TryLockError::WouldBlock) => return Err(JournalError::InUse { path: path.to_owned() }),
        }
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)
            .map_err(sst_artefact::Error::io("read", path))?;
        let header = Header::new(chunk, identity);
        let (answers, whole) = match first_line(&bytes) {
            Some((Ok(found), begin)) => {
                if let Some(difference) = difference("", &json!(header), &json!(found)) {
                    let path = path.to_owned();
                    return Err(JournalError::Other { path, difference });
                }
                closed_chunks(&bytes, begin)
            }
            Some((Err(error), _)) => {
                return Err(JournalError::Other {
                    path: path.to_owned(),
                    difference: format!("its first line is no journal's: {error}"),
                });
            }
            // Nothing, or a first line that was cut off.
            None => (BTreeMap::new(), 0),
        };
        let mut journal = Self {
            inner,
            file,
            path: path.to_owned(),
            chunk: header.chunk,
            answers,
        };
        let length = whole as u64;
        let cut = journal
            .file
            .set_len(length)
            .and_then(|()| journal.file.seek(std::io::SeekFrom::End(0)));
        cut.map_err(sst_artefact::Error::io("write", path))?;
        if length == 0 {
            journal.append(&[json!(header)])?;
        }
        Ok(journal)
    }

    /// Whether the file at `path` is a journal of this identity.
    pub fn is_of(path: &Path, identity: &Value) -> bool {
        let line = File::open(path).and_then(|file| BufReader::new(file).lines().next().unwrap_or(Ok(String::new())));
        line.is_ok_and(|line| serde_json::from_str(&line).is_ok_and(|header: Header| header.of == *identity))
    }

    /// How many answers it holds.
    pub fn len(&self) -> usize {
        self.answers.len()
    }

    /// Whether it holds no answer.
    pub fn is_empty(&self) -> bool {
        self.answers.is_empty()
    }

    /// Appends lines in one write and waits for the disk.
    fn append<T: Serialize>(&mut self, lines: &[T]) -> Result<(), JournalError> {
        let mut text = String::new();
        for line in lines {
            text += &json!(line).to_string();
            text.push('\n');
        }
        let written = self
            .file
            .write_all(text.as_bytes())
            .and_then(|()| self.file.sync_data());
        Ok(written.map_err(sst_artefact::Error::io("write", &self.path))?)
    }

    /// The answers to `requests`, whose keys are `keys`; `ask` gets those of one chunk that are not there.
    fn answers<R: Clone, A: Kept>(
        &mut self,
        requests: &[R],
        keys: &[String],
        progress: &mut dyn FnMut(usize),
        mut ask: impl FnMut(&mut dyn Generator, &[R], &mut dyn FnMut(usize)) -> Result<Vec<A>, GeneratorError>,
    ) -> Result<Vec<A>, GeneratorError> {
        let mut seen = BTreeSet::new();
        let distinct: Vec<usize> = (0..requests.len()).filter(|&i| seen.insert(&keys[i])).collect();
        let mut done = 0;
        for chunk in distinct.chunks(self.chunk) {
            let open: Vec<usize> = chunk
                .iter()
                .copied()
                .filter(|&i| !self.answers.contains_key(&keys[i]))
                .collect();
            done += chunk.len() - open.len();
            if !open.is_empty() {
                let asked: Vec<R> = open.iter().map(|&i| requests[i].clone()).collect();
                let answers = ask(&mut *self.inner, &asked, &mut |n| progress(done + n))?;
                if answers.len() != open.len() {
                    let (expected, got) = (open.len(), answers.len());
                    return Err(failed(JournalError::Count { expected, got }));
                }
                let mut lines: Vec<Line> = open
                    .iter()
                    .zip(&answers)
                    .map(|(&i, answer)| answer.line(&keys[i]))
                    .collect();
                lines.push(Line::End { end: open.len() });
                self.append(&lines).map_err(failed)?;
                lines.pop();
                self.answers.extend(open.iter().map(|&i| keys[i].clone()).zip(lines));
                done += open.len();
            }
            progress(done);
        }
        if distinct.len() < requests.len() {
            progress(requests.len());
        }
        Ok(keys
            .iter()
            .filter_map(|key| self.answers.get(key).and_then(A::of))
            .collect())
    }
}

impl Generator for Journal<'_> {
    fn generate(
        &mut self,
        requests: &[GenerateRequest],
        sampling: &Sampling,
        progress: &mut dyn FnMut(usize),
    ) -> Result<Vec<Generated>, GeneratorError> {
        let key = |r: &GenerateRequest| key(&json!(["generate", sampling, r.adapter, r.prompt, r.max_new_tokens]));
        let keys: Vec<String> = requests.iter().map(key).collect();
        self.answers(requests, &keys, progress, |inner, asked, progress| {
            inner.generate(asked, sampling, progress)
        })
    }

    fn score(
        &mut self,
        requests: &[ScoreRequest],
        progress: &mut dyn FnMut(usize),
    ) -> Result<Vec<Vec<ContinuationScore>>, GeneratorError> {
        let key = |r: &ScoreRequest| key(&json!(["score", r.adapter, r.prompt, r.continuations]));
        let keys: Vec<String> = requests.iter().map(key).collect();
        self.answers(requests, &keys, progress, |inner, asked, progress| {
            inner.score(asked, progress)
        })
    }
}

fn key(request: &Value) -> String {
    sst_artefact::sha256_bytes(request.to_string().as_bytes())
}

fn failed(error: JournalError) -> GeneratorError {
    GeneratorError(Box::new(error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Finish;
    use sst_data::Prompt;

    /// Answers with its number of calls so far, and fails when told to.
    #[derive(Default)]
    struct Counting {
        calls: Vec<usize>,
        fail_at: Option<usize>,
    }

    impl Generator for Counting {
        fn generate(
            &mut self,
            requests: &[GenerateRequest],
            _: &Sampling,
            progress: &mut dyn FnMut(usize),
        ) -> Result<Vec<Generated>, GeneratorError> {
            if self.fail_at == Some(self.calls.len()) {
                return Err(failed(JournalError::Count { expected: 0, got: 0 }));
            }
            self.calls.push(requests.len());
            progress(requests.len());
            let answer = |r: &GenerateRequest| Generated {
                text: format!("{} in a batch of {}\n", r.prompt.plain_text(), requests.len()),
                tokens: 3,
                finish: Finish::Length,
            };
            Ok(requests.iter().map(answer).collect())
        }

        fn score(
            &mut self,
            requests: &[ScoreRequest],
            _: &mut dyn FnMut(usize),
        ) -> Result<Vec<Vec<ContinuationScore>>, GeneratorError> {
            self.calls.push(requests.len());
            let score = ContinuationScore {
                log_likelihood: -0.1 - 0.2,
                tokens: 2,
            };
            Ok(requests.iter().map(|r| vec![score; r.continuations.len()]).collect())
        }
    }

    fn requests(n: usize) -> Vec<GenerateRequest> {
        let request = |i| GenerateRequest {
            adapter: None,
            prompt: Prompt::user(format!("{i}")),
            max_new_tokens: 4,
        };
        (0..n).map(request).collect()
    }

    fn run(path: &Path, inner: &mut Counting, n: usize) -> Result<Vec<Generated>, GeneratorError> {
        let mut journal = Journal::open(path, &json!({"model": "m"}), 4, inner).unwrap();
        journal.generate(&requests(n), &Sampling::Greedy, &mut |_| {})
    }

    #[test]
    fn cut_off_anywhere_it_goes_on_with_the_same_batches_and_ends_with_the_same_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let (whole, path) = (dir.path().join("whole"), dir.path().join("cut"));
        let expected = run(&whole, &mut Counting::default(), 11).unwrap();
        let bytes = std::fs::read(&whole).unwrap();
        for length in (0..bytes.len()).step_by(7).chain([bytes.len()]) {
            std::fs::write(&path, &bytes[..length]).unwrap();
            let mut inner = Counting::default();
            assert_eq!(run(&path, &mut inner, 11).unwrap(), expected, "cut at {length}");
            assert_eq!(std::fs::read(&path).unwrap(), bytes, "cut at {length}");
            let ends = bytes[..length]
                .split_inclusive(|&b| b == b'\n')
                .filter(|line| line.starts_with(b"{\"end\"") && line.ends_with(b"\n"));
            assert_eq!(inner.calls, [4, 4, 3][ends.count()..], "cut at {length}");
        }
        let mut inner = Counting::default();
        run(&whole, &mut inner, 11).unwrap();
        assert!(inner.calls.is_empty(), "nothing is asked twice");
    }

    #[test]
    fn a_failure_keeps_the_chunks_before_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        let mut failing = Counting {
            fail_at: Some(2),
            ..Counting::default()
        };
        assert!(run(&path, &mut failing, 11).is_err());
        let mut inner = Counting::default();
        assert_eq!(run(&path, &mut inner, 11).unwrap().len(), 11);
        assert_eq!(inner.calls, [3]);
    }

    #[test]
    fn the_same_request_is_asked_once_and_others_by_their_own_key() {
        let dir = tempfile::tempdir().unwrap();
        let mut inner = Counting::default();
        let mut journal = Journal::open(&dir.path().join("journal"), &json!({}), 10, &mut inner).unwrap();
        let twice = [requests(2), requests(2)].concat();
        let mut seen = Vec::new();
        let answers = journal
            .generate(&twice, &Sampling::Greedy, &mut |n| seen.push(n))
            .unwrap();
        assert_eq!(answers[..2], answers[2..]);
        assert_eq!(seen.last(), Some(&4));
        let sampling = Sampling::Sample {
            temperature: 1.0,
            top_p: 1.0,
            seed: 1,
        };
        journal.generate(&requests(1), &sampling, &mut |_| {}).unwrap();
        let of_adapter = GenerateRequest {
            adapter: Some("A".to_owned()),
            ..requests(1)[0].clone()
        };
        journal.generate(&[of_adapter], &Sampling::Greedy, &mut |_| {}).unwrap();
        let weighed = ScoreRequest {
            adapter: None,
            prompt: Prompt::user("0"),
            continuations: vec![" A".to_owned(), " B".to_owned()],
        };
        let scores = journal.score(&[weighed], &mut |_| {}).unwrap();
        assert_eq!(scores[0][1].log_likelihood, -0.1 - 0.2);
        assert_eq!(journal.len(), 5);
        assert_eq!(inner.calls, [2, 1, 1, 1]);
    }

    #[test]
    fn numbers_come_back_to_the_bit() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        let request = ScoreRequest {
            adapter: None,
            prompt: Prompt::Text("x".to_owned()),
            continuations: vec![" A".to_owned()],
        };
        for _ in 0..2 {
            let mut inner = Counting::default();
            let mut journal = Journal::open(&path, &json!({}), 10, &mut inner).unwrap();
            let scores = journal.score(std::slice::from_ref(&request), &mut |_| {}).unwrap();
            assert_eq!(scores[0][0].log_likelihood.to_bits(), (-0.1f64 - 0.2).to_bits());
        }
    }

    #[test]
    fn the_journal_of_another_evaluation_is_refused_by_name_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        let mut inner = Counting::default();
        drop(Journal::open(&path, &json!({"suite": {"seed": 1}}), 4, &mut inner).unwrap());
        let mut refused = |identity: Value, chunk| {
            let error = Journal::open(&path, &identity, chunk, &mut inner)
                .err()
                .unwrap()
                .to_string();
            assert!(error.contains("journal"), "{error}");
            error
        };
        assert!(refused(json!({"suite": {"seed": 2}}), 4).contains("of.suite.seed: 1 there, 2 now"));
        assert!(refused(json!({"suite": {"seed": 1}}), 5).contains("chunk: 4 there, 5 now"));
        assert!(refused(json!({}), 4).contains("of.suite"));
        assert!(Journal::is_of(&path, &json!({"suite": {"seed": 1}})) && !Journal::is_of(&path, &json!({})));
        std::fs::write(&path, "my notes\n").unwrap();
        assert!(refused(json!({}), 4).contains("no journal's"));
        assert_eq!(std::fs::read(&path).unwrap(), b"my notes\n");
    }

    #[test]
    fn two_writers_at_once_are_kept_apart() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        let (mut one, mut two) = (Counting::default(), Counting::default());
        let first = Journal::open(&path, &json!({}), 4, &mut one).unwrap();
        let second = Journal::open(&path, &json!({}), 4, &mut two).err().unwrap();
        assert!(matches!(second, JournalError::InUse { .. }), "{second}");
        drop(first);
        assert!(Journal::open(&path, &json!({}), 4, &mut two).is_ok());
    }
}
