//! Text to token ids and back, with the model's own chat template and its own idea of where an answer ends.
//!
//! - A **chat** is rendered by the template, which writes the special tokens itself; the tokenizer adds none. Prompt
//!   and answer are encoded separately, so that the prompt's ids in training are those of generation.
//! - A **text** is encoded as the tokenizer's post-processor wants it. Text and continuation are encoded together and
//!   split, see [`Tokenizer::encode_continuation`].

use crate::chat_template::{ChatTemplate, TemplateError};
use serde_json::Value;
use sst_data::{Message, Prompt, Role};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// A tokenizer that cannot be loaded, or a text that it cannot encode.
#[derive(Debug, thiserror::Error)]
pub enum TokenizerError {
    /// A configuration file is missing or malformed.
    #[error(transparent)]
    Artefact(#[from] sst_artefact::Error),
    /// The chat template is invalid or refuses a conversation.
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// `tokenizer.json` is not valid, or encoding or decoding failed.
    #[error("{}: {source}", path.display())]
    Backend {
        /// The tokenizer's file.
        path: PathBuf,
        /// The tokenizers library's answer.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A special token or id of the configuration is not in the vocabulary.
    #[error("{}: {role} {token} is not in the vocabulary of tokenizer.json", path.display())]
    UnknownToken {
        /// The model folder.
        path: PathBuf,
        /// Its role: `bos_token`, `eos_token_id`, ...
        role: String,
        /// Its text or id.
        token: String,
    },
    /// No file says which token ends an answer.
    #[error("{}: no eos token in generation_config.json, config.json or tokenizer_config.json", path.display())]
    NoEos {
        /// The model folder.
        path: PathBuf,
    },
    /// A chat prompt for a model without a chat template.
    #[error("{}: the model has no chat template; use a text prompt or an instruction-tuned model", path.display())]
    NoTemplate {
        /// The model folder.
        path: PathBuf,
    },
    /// The template renders the answered conversation differently from what it prompts with.
    #[error("{}: the answered conversation does not start with its generation prompt {prompt:?}", path.display())]
    GenerationPrompt {
        /// The model folder.
        path: PathBuf,
        /// The rendered prompt.
        prompt: String,
    },
    /// A continuation that adds no token to its context.
    #[error("the continuation {continuation:?} adds no token to its context")]
    EmptyContinuation {
        /// The continuation.
        continuation: String,
    },
}

/// A model's tokenizer, special tokens and chat template.
#[derive(Debug, Clone)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    template: Option<ChatTemplate>,
    folder: PathBuf,
    bos: Option<(u32, String)>,
    eos_ids: Vec<u32>,
    pad_id: u32,
    special_ids: BTreeSet<u32>,
}

impl Tokenizer {
    /// Loads `tokenizer.json` and, where they exist, `tokenizer_config.json`, `generation_config.json`, `config.json`
    /// and `chat_template.jinja` of a model folder.
    ///
    /// The ids that end an answer come from the first of generation_config, config and tokenizer_config that names
    /// any. The padding id is that of tokenizer_config, generation_config or config, else the first ending id.
    ///
    /// # Errors
    /// Missing or malformed files, special tokens outside the vocabulary, no ending token, an invalid template.
    ///
    /// ```no_run
    /// use sst_data::Prompt;
    /// let tokenizer = sst_model::Tokenizer::load("models/smollm2".as_ref())?;
    /// let (prompt, answer) = tokenizer.encode_example(&Prompt::user("2 + 2?"), "4")?;
    /// assert_eq!(answer.last(), Some(&tokenizer.eos_ids()[0]));
    /// # Ok::<(), sst_model::TokenizerError>(())
    /// ```
    pub fn load(model_dir: &Path) -> Result<Self, TokenizerError> {
        let path = model_dir.join("tokenizer.json");
        let bytes = std::fs::read(&path).map_err(sst_artefact::Error::io("read", &path))?;
        let mut inner = tokenizers::Tokenizer::from_bytes(bytes).map_err(|source| TokenizerError::Backend {
            path: path.clone(),
            source,
        })?;
        // Length limits and padding of the file would silently change what we encode.
        inner.with_padding(None);
        inner
            .with_truncation(None)
            .map_err(|source| TokenizerError::Backend { path, source })?;

        let names = SpecialNames::read(model_dir, &inner)?;
        let (eos_ids, pad_id) = ending_ids(model_dir, &names)?;
        let mut special_ids: BTreeSet<u32> = inner
            .get_added_tokens_decoder()
            .into_iter()
            .filter(|(_, token)| token.special)
            .map(|(id, _)| id)
            .collect();
        special_ids.extend(&eos_ids);
        Ok(Self {
            template: ChatTemplate::load(model_dir, names.texts())?,
            bos: names.get("bos_token"),
            inner,
            folder: model_dir.to_path_buf(),
            eos_ids,
            pad_id,
            special_ids,
        })
    }

    /// Encodes a text; with `add_special`, with what the tokenizer's post-processor adds (a BOS, usually).
    ///
    /// # Errors
    /// [`TokenizerError::Backend`] when the tokenizer refuses the text.
    pub fn encode(&self, text: &str, add_special: bool) -> Result<Vec<u32>, TokenizerError> {
        let encoding = self.inner.encode_fast(text, add_special).map_err(|e| self.backend(e))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// Encodes a prompt up to the point where the model is to answer. No BOS is ever doubled.
    ///
    /// # Errors
    /// [`TokenizerError::NoTemplate`] for a chat without template, [`TokenizerError::Template`] when it refuses.
    pub fn encode_prompt(&self, prompt: &Prompt) -> Result<Vec<u32>, TokenizerError> {
        match prompt {
            Prompt::Chat(messages) => self.encode(&self.render(messages, true)?, false),
            Prompt::Text(text) => self.encode_text(text),
        }
    }

    /// Encodes a prompt and its reference answer: `(prompt ids, answer ids)`, the answer with its ending token.
    ///
    /// For a chat the answer is what the template writes after its generation prompt once the answer is known, up to
    /// and including the ending token (a template may trim the answer, or put line breaks behind the end: those are
    /// no words of the model). Where a template writes no ending token, and for texts, the first of
    /// [`Self::eos_ids`] is appended. For a text the two are split as in [`Self::encode_continuation`].
    ///
    /// # Errors
    /// As [`Self::encode_prompt`]; [`TokenizerError::GenerationPrompt`] when the template's answered conversation does
    /// not begin with its generation prompt.
    pub fn encode_example(&self, prompt: &Prompt, response: &str) -> Result<(Vec<u32>, Vec<u32>), TokenizerError> {
        match prompt {
            Prompt::Chat(messages) => self.encode_turn(messages, response),
            Prompt::Text(text) => {
                let (context, mut answer) = if response.is_empty() {
                    (self.encode_prompt(prompt)?, Vec::new())
                } else {
                    self.encode_continuation(text, response)?
                };
                answer.push(self.eos_ids[0]);
                Ok((context, answer))
            }
        }
    }

    /// Encodes a context and a continuation to score: `(context ids, continuation ids)`.
    ///
    /// The rule of lm-evaluation-harness: white space at the context's end moves to the continuation, the whole is
    /// encoded once, and the continuation is what lies beyond the length of the context encoded alone. An empty
    /// context becomes the BOS token (the ending token where there is none), so that a first token can be scored.
    ///
    /// # Errors
    /// [`TokenizerError::EmptyContinuation`] when nothing lies beyond the context.
    pub fn encode_continuation(
        &self,
        context: &str,
        continuation: &str,
    ) -> Result<(Vec<u32>, Vec<u32>), TokenizerError> {
        let kept = context.trim_end();
        let moved = format!("{}{continuation}", &context[kept.len()..]);
        let (context_ids, continuation_ids) = if kept.is_empty() {
            let first = self.bos.as_ref().map_or(self.eos_ids[0], |(id, _)| *id);
            (vec![first], self.encode(&moved, false)?)
        } else {
            let context_ids = self.encode_text(kept)?;
            let whole = self.encode_text(&format!("{kept}{moved}"))?;
            let beyond = whole.get(context_ids.len()..).unwrap_or_default().to_vec();
            (context_ids, beyond)
        };
        if continuation_ids.is_empty() {
            return Err(TokenizerError::EmptyContinuation {
                continuation: continuation.to_owned(),
            });
        }
        Ok((context_ids, continuation_ids))
    }

    /// Decodes ids to text; with `skip_special`, without special tokens.
    ///
    /// # Errors
    /// [`TokenizerError::Backend`] when the decoder fails.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String, TokenizerError> {
        self.inner.decode(ids, skip_special).map_err(|e| self.backend(e))
    }

    /// The chat as text, up to the point where the model is to answer if `add_generation_prompt`.
    ///
    /// # Errors
    /// As [`Self::encode_prompt`] for a chat.
    pub fn render(&self, messages: &[Message], add_generation_prompt: bool) -> Result<String, TokenizerError> {
        let template = self.template.as_ref().ok_or_else(|| TokenizerError::NoTemplate {
            path: self.folder.clone(),
        })?;
        Ok(template.render(messages, add_generation_prompt)?)
    }

    /// Whether chats can be encoded.
    pub fn has_chat_template(&self) -> bool {
        self.template.is_some()
    }

    /// Ids that end an answer, at least one.
    pub fn eos_ids(&self) -> &[u32] {
        &self.eos_ids
    }

    /// Id that fills a batch.
    pub fn pad_id(&self) -> u32 {
        self.pad_id
    }

    /// Id of the BOS token, if the model has one.
    pub fn bos_id(&self) -> Option<u32> {
        self.bos.as_ref().map(|(id, _)| *id)
    }

    /// Number of ids, added tokens included.
    pub fn vocab_size(&self) -> usize {
        self.inner.get_vocab_size(true)
    }

    /// A text as the post-processor wants it, unless it spells out the BOS itself.
    fn encode_text(&self, text: &str) -> Result<Vec<u32>, TokenizerError> {
        let has_bos = self.bos.as_ref().is_some_and(|(_, bos)| text.starts_with(bos.as_str()));
        self.encode(text, !has_bos)
    }

    fn encode_turn(&self, messages: &[Message], response: &str) -> Result<(Vec<u32>, Vec<u32>), TokenizerError> {
        let prompt = self.render(messages, true)?;
        let answered = self.render_answered(messages, response)?;
        let Some(answer) = answered.strip_prefix(&prompt) else {
            return Err(TokenizerError::GenerationPrompt {
                path: self.folder.clone(),
                prompt,
            });
        };
        let mut answer_ids = self.encode(answer, false)?;
        match self.end_of_turn(messages)? {
            Some(end) => {
                // The last one: a response may spell the token out.
                let length = answer_ids
                    .iter()
                    .rposition(|&id| id == end)
                    .map_or(answer_ids.len(), |at| at + 1);
                answer_ids.truncate(length);
            }
            None => answer_ids.push(self.eos_ids[0]),
        }
        Ok((self.encode(&prompt, false)?, answer_ids))
    }

    fn render_answered(&self, messages: &[Message], response: &str) -> Result<String, TokenizerError> {
        let mut answered = messages.to_vec();
        answered.push(Message {
            role: Role::Assistant,
            content: response.to_owned(),
        });
        self.render(&answered, false)
    }

    /// The first special token that the template writes behind an answer, found by answering with a marker.
    fn end_of_turn(&self, messages: &[Message]) -> Result<Option<u32>, TokenizerError> {
        const MARKER: &str = "Q7ANSWERQ7";
        let answered = self.render_answered(messages, MARKER)?;
        let behind = answered.rsplit(MARKER).next().unwrap_or_default();
        Ok(self
            .encode(behind, false)?
            .into_iter()
            .find(|id| self.special_ids.contains(id)))
    }

    fn backend(&self, source: Box<dyn std::error::Error + Send + Sync>) -> TokenizerError {
        TokenizerError::Backend {
            path: self.folder.join("tokenizer.json"),
            source,
        }
    }
}

/// The `*_token` entries of `tokenizer_config.json`, by name, with their ids.
struct SpecialNames(BTreeMap<String, (u32, String)>);

impl SpecialNames {
    fn read(folder: &Path, tokenizer: &tokenizers::Tokenizer) -> Result<Self, TokenizerError> {
        let mut names = BTreeMap::new();
        for role in ["bos_token", "eos_token", "pad_token", "unk_token"] {
            let entry = &read_optional(&folder.join("tokenizer_config.json"))?[role];
            // Either the text, or an object that describes the token.
            let Some(text) = entry.as_str().or_else(|| entry["content"].as_str()) else {
                continue;
            };
            let id = tokenizer
                .token_to_id(text)
                .ok_or_else(|| TokenizerError::UnknownToken {
                    path: folder.to_path_buf(),
                    role: role.to_owned(),
                    token: format!("{text:?}"),
                })?;
            names.insert(role.to_owned(), (id, text.to_owned()));
        }
        Ok(Self(names))
    }

    fn get(&self, role: &str) -> Option<(u32, String)> {
        self.0.get(role).cloned()
    }

    fn texts(&self) -> BTreeMap<String, String> {
        self.0
            .iter()
            .map(|(role, (_, text))| (role.clone(), text.clone()))
            .collect()
    }
}

/// `Null` when the file does not exist.
fn read_optional(path: &Path) -> Result<Value, sst_artefact::Error> {
    if path.is_file() {
        sst_artefact::read_json(path, "model configuration")
    } else {
        Ok(Value::Null)
    }
}

/// Ids that end an answer, and the padding id.
fn ending_ids(folder: &Path, names: &SpecialNames) -> Result<(Vec<u32>, u32), TokenizerError> {
    let generation = read_optional(&folder.join("generation_config.json"))?;
    let config = read_optional(&folder.join("config.json"))?;
    let mut eos_ids = Vec::new();
    for source in [&generation, &config] {
        if eos_ids.is_empty() {
            eos_ids = ids(folder, "eos_token_id", &source["eos_token_id"])?;
        }
    }
    if eos_ids.is_empty() {
        eos_ids.extend(names.get("eos_token").map(|(id, _)| id));
    }
    let &first = eos_ids.first().ok_or_else(|| TokenizerError::NoEos {
        path: folder.to_path_buf(),
    })?;
    let mut pad = names.get("pad_token").map(|(id, _)| id);
    for source in [&generation, &config] {
        if pad.is_none() {
            pad = ids(folder, "pad_token_id", &source["pad_token_id"])?.first().copied();
        }
    }
    Ok((eos_ids, pad.unwrap_or(first)))
}

/// A number, a list of numbers, or null.
fn ids(folder: &Path, role: &str, value: &Value) -> Result<Vec<u32>, TokenizerError> {
    let one = |value: &Value| {
        let id = value.as_u64().and_then(|id| u32::try_from(id).ok());
        id.ok_or_else(|| TokenizerError::UnknownToken {
            path: folder.to_path_buf(),
            role: role.to_owned(),
            token: value.to_string(),
        })
    };
    match value {
        Value::Null => Ok(Vec::new()),
        Value::Array(list) => list.iter().map(one).collect(),
        value => one(value).map(|id| vec![id]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const LLAMA_2: &str = "{% for m in messages %}{% if m.role == 'user' %}{{ bos_token + 'u' + m.content + ':' }}\
        {% else %}{{ ' ' + m.content | trim + ' ' + eos_token }}{% endif %}{% endfor %}";
    const CHATML: &str = "{% for m in messages %}{{ '<turn>' + m.content + '<stop>' + '\n' }}{% endfor %}\
        {% if add_generation_prompt %}{{ '<turn>' }}{% endif %}";

    /// A model folder whose tokens are single characters of `TEXT` (id = place), one merge, and special tokens; the
    /// post-processor puts `<bos>` first.
    struct Folder(tempfile::TempDir);

    /// A space is stored as `Ġ` and a line break as `Ċ` by the byte-level alphabet.
    const TEXT: [&str; 12] = [
        "a", "b", "c", "u", ":", "Ġ", "Ċ", "ab", "<bos>", "<stop>", "<turn>", "Ġa",
    ];
    const SPACE: u32 = 5;
    const AB: u32 = 7;
    const BOS: u32 = 8;
    const STOP: u32 = 9;
    const TURN: u32 = 10;
    const SPACE_A: u32 = 11;

    impl Folder {
        fn new(template: &str) -> Self {
            let folder = Self(tempfile::tempdir().unwrap());
            let vocab: BTreeMap<&str, usize> = TEXT.iter().enumerate().map(|(id, t)| (*t, id)).collect();
            let special = |text: &str| {
                json!({"id": vocab[text], "content": text, "single_word": false, "lstrip": false, "rstrip": false,
                       "normalized": false, "special": true})
            };
            let byte_level = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true,
                                    "use_regex": true});
            folder.write(
                "tokenizer.json",
                &json!({
                    "version": "1.0",
                    "truncation": {"direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0},
                    "padding": null,
                    "added_tokens": [special("<bos>"), special("<stop>"), special("<turn>")],
                    "normalizer": null,
                    "pre_tokenizer": byte_level,
                    "post_processor": {
                        "type": "TemplateProcessing",
                        "single": [{"SpecialToken": {"id": "<bos>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
                        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
                        "special_tokens": {"<bos>": {"id": "<bos>", "ids": [BOS], "tokens": ["<bos>"]}},
                    },
                    "decoder": byte_level,
                    "model": {"type": "BPE", "vocab": vocab, "merges": [["a", "b"], ["Ġ", "a"]]},
                }),
            );
            folder.write(
                "tokenizer_config.json",
                &json!({"bos_token": {"content": "<bos>"}, "eos_token": "<stop>", "chat_template": template}),
            );
            folder
        }

        fn write(&self, name: &str, value: &Value) {
            std::fs::write(self.0.path().join(name), value.to_string()).unwrap();
        }

        fn load(&self) -> Tokenizer {
            Tokenizer::load(self.0.path()).unwrap()
        }
    }

    fn chat(turns: &[&str]) -> Prompt {
        let roles = [Role::User, Role::Assistant].into_iter().cycle();
        let message = |(content, role): (&&str, Role)| Message {
            role,
            content: (*content).to_owned(),
        };
        Prompt::Chat(turns.iter().zip(roles).map(message).collect())
    }

    #[test]
    fn a_text_gets_one_bos_and_the_length_limit_of_the_file_is_ignored() {
        let tokenizer = Folder::new(CHATML).load();
        let text = |t: &str| tokenizer.encode_prompt(&Prompt::Text(t.into())).unwrap();
        assert_eq!(text("cabcc"), [BOS, 2, AB, 2, 2]);
        assert_eq!(text("<bos>cab"), [BOS, 2, AB]);
        assert_eq!(tokenizer.encode("cab", false).unwrap(), [2, AB]);
        assert_eq!(tokenizer.decode(&[BOS, 2, AB, STOP], true).unwrap(), "cab");
        assert_eq!(tokenizer.decode(&[BOS, 2, AB, STOP], false).unwrap(), "<bos>cab<stop>");
    }

    #[test]
    fn a_chat_has_only_the_special_tokens_of_its_template() {
        assert_eq!(
            Folder::new(CHATML).load().encode_prompt(&chat(&["c"])).unwrap(),
            [TURN, 2, STOP, 6, TURN]
        );
        assert_eq!(
            Folder::new(LLAMA_2).load().encode_prompt(&chat(&["c"])).unwrap(),
            [BOS, 3, 2, 4]
        );
    }

    #[test]
    fn an_answer_ends_with_the_template_s_own_end_and_nothing_behind_it() {
        let tokenizer = Folder::new(CHATML).load();
        let (prompt, answer) = tokenizer.encode_example(&chat(&["c", "b", "a"]), "ab").unwrap();
        assert_eq!(prompt, tokenizer.encode_prompt(&chat(&["c", "b", "a"])).unwrap());
        assert_eq!(
            answer,
            [AB, STOP],
            "the line break behind the end is no word of the model"
        );
        // A template that trims the answer and puts a space around it.
        let (prompt, answer) = Folder::new(LLAMA_2)
            .load()
            .encode_example(&chat(&["c"]), "  ab ")
            .unwrap();
        assert_eq!(prompt, [BOS, 3, 2, 4]);
        assert_eq!(answer, [SPACE, AB, SPACE, STOP]);
        // A response that spells the end out keeps it.
        let (_, answer) = tokenizer.encode_example(&chat(&["c"]), "a<stop>b").unwrap();
        assert_eq!(answer, [0, STOP, 1, STOP]);
        let (_, answer) = tokenizer.encode_example(&chat(&["c"]), "").unwrap();
        assert_eq!(answer, [STOP]);
    }

    #[test]
    fn a_template_without_an_end_gets_the_eos() {
        let bare = "{% for m in messages %}{{ m.content + ':' }}{% endfor %}";
        let (prompt, answer) = Folder::new(bare).load().encode_example(&chat(&["c"]), "a").unwrap();
        assert_eq!((prompt, answer), (vec![2, 4], vec![0, 4, STOP]));
    }

    #[test]
    fn a_template_that_rewrites_its_prompt_is_refused() {
        let rewriting = "{% if add_generation_prompt %}u{% endif %}{% for m in messages %}{{ m.content }}{% endfor %}";
        let error = Folder::new(rewriting)
            .load()
            .encode_example(&chat(&["c"]), "a")
            .unwrap_err();
        assert!(matches!(error, TokenizerError::GenerationPrompt { .. }), "{error}");
    }

    #[test]
    fn text_and_continuation_are_encoded_together() {
        let tokenizer = Folder::new(CHATML).load();
        let pair = |context: &str, continuation: &str| tokenizer.encode_continuation(context, continuation).unwrap();
        // The space belongs to the word behind it, wherever it was written.
        assert_eq!(pair("c", " a"), (vec![BOS, 2], vec![SPACE_A]));
        assert_eq!(pair("c ", "a"), (vec![BOS, 2], vec![SPACE_A]));
        // An empty context becomes the BOS alone.
        assert_eq!(pair("", "ab"), (vec![BOS], vec![AB]));
        assert_eq!(pair(" ", "a"), (vec![BOS], vec![SPACE_A]));
        // "a" + "b" merge: nothing lies beyond the length of the context.
        let error = tokenizer.encode_continuation("a", "b").unwrap_err();
        assert!(matches!(error, TokenizerError::EmptyContinuation { .. }), "{error}");
        let (prompt, answer) = tokenizer.encode_example(&Prompt::Text("c ".into()), "a").unwrap();
        assert_eq!((prompt, answer), (vec![BOS, 2], vec![SPACE_A, STOP]));
    }

    #[test]
    fn ending_ids_come_from_the_most_specific_file() {
        let folder = Folder::new(CHATML);
        assert_eq!((folder.load().eos_ids(), folder.load().pad_id()), (&[STOP][..], STOP));
        folder.write("config.json", &json!({"eos_token_id": 4, "pad_token_id": 3}));
        assert_eq!((folder.load().eos_ids(), folder.load().pad_id()), (&[4][..], 3));
        folder.write(
            "generation_config.json",
            &json!({"eos_token_id": [STOP, 10], "pad_token_id": 6}),
        );
        assert_eq!((folder.load().eos_ids(), folder.load().pad_id()), (&[STOP, 10][..], 6));
        folder.write("generation_config.json", &json!({"eos_token_id": null}));
        assert_eq!(folder.load().eos_ids(), [4]);
        assert_eq!(
            (folder.load().bos_id(), folder.load().vocab_size()),
            (Some(BOS), TEXT.len())
        );
    }

    #[test]
    fn what_is_missing_is_named() {
        let folder = Folder::new(CHATML);
        let fail = || Tokenizer::load(folder.0.path()).unwrap_err().to_string();
        folder.write("tokenizer_config.json", &json!({"eos_token": "<nowhere>"}));
        assert!(fail().contains("eos_token \"<nowhere>\""), "{}", fail());
        folder.write("tokenizer_config.json", &json!({"bos_token": "<bos>"}));
        assert!(fail().contains("no eos token"), "{}", fail());
        folder.write("config.json", &json!({"eos_token_id": "nine"}));
        assert!(fail().contains("eos_token_id \"nine\""), "{}", fail());
        folder.write("config.json", &json!({"eos_token_id": STOP}));
        let error = folder.load().encode_prompt(&chat(&["c"])).unwrap_err();
        assert!(matches!(error, TokenizerError::NoTemplate { .. }), "{error}");
        folder.write("tokenizer.json", &json!({"version": "1.0"}));
        assert!(fail().contains("tokenizer.json"), "{}", fail());
    }
}
