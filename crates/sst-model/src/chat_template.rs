//! Renders a conversation with the model's own chat template, as the Python library transformers does.
//!
//! A template is Jinja with: trimmed blocks, `{% break %}` and `{% continue %}`, methods of Python's `str`, `list` and
//! `dict`, `raise_exception(message)`, `strftime_now(format)`, `tojson` that writes as Python's `json.dumps` does, and
//! `{% generation %}` blocks, which mark the model's own words and render as if they were not there.
//!
//! One thing differs on purpose: "today" is a fixed [`Date`], so that the same conversation gives the same tokens on
//! every day. The default is the one that Llama 3's templates fall back to, 26 July 2024.

mod date;

pub use date::Date;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Kwargs;
use minijinja::{AutoEscape, Environment, Error, ErrorKind, Value};
use sst_data::{Message, Role};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A chat template that cannot be read, or that refuses a conversation.
#[derive(Debug, thiserror::Error)]
pub enum TemplateError {
    /// The configuration could not be read.
    #[error(transparent)]
    Artefact(#[from] sst_artefact::Error),
    /// The configuration names several templates, none of them `default`.
    #[error("{}: chat_template names {names:?} and no \"default\"", path.display())]
    NoDefault {
        /// The tokenizer's configuration.
        path: PathBuf,
        /// The names that are there.
        names: Vec<String>,
    },
    /// The configuration's `chat_template` is neither text nor a list of named templates.
    #[error("{}: chat_template is neither text nor a list of named templates", path.display())]
    Kind {
        /// The tokenizer's configuration.
        path: PathBuf,
    },
    /// The template is not valid Jinja.
    #[error("chat template of {origin}: {source}")]
    Syntax {
        /// Where the template comes from.
        origin: String,
        /// Line and fault.
        #[source]
        source: Error,
    },
    /// The template refused the conversation, or used something that is not there.
    #[error("chat template of {origin} cannot render this conversation: {source:#}")]
    Render {
        /// Where the template comes from.
        origin: String,
        /// Line and fault, or the template's own message.
        #[source]
        source: Error,
    },
    /// The date does not exist.
    #[error("{year:04}-{month:02}-{day:02} is no date")]
    Date {
        /// Year.
        year: u16,
        /// Month, from 1.
        month: u8,
        /// Day, from 1.
        day: u8,
    },
}

/// A compiled chat template with the special tokens it may name.
#[derive(Debug, Clone)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    special_tokens: BTreeMap<String, String>,
    origin: String,
}

const NAME: &str = "chat";

impl ChatTemplate {
    /// Compiles `source`. `special_tokens` maps names such as `bos_token` to their text; `origin` names the template
    /// in errors.
    ///
    /// # Errors
    /// [`TemplateError::Syntax`] when it is not valid Jinja.
    ///
    /// ```
    /// use sst_data::{Message, Role};
    /// let source = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}";
    /// let template = sst_model::ChatTemplate::new(source, Default::default(), "an example")?;
    /// let hello = Message { role: Role::User, content: "Hello".into() };
    /// assert_eq!(template.render(&[hello], false)?, "user: Hello\n");
    /// # Ok::<(), sst_model::TemplateError>(())
    /// ```
    pub fn new(
        source: &str,
        special_tokens: BTreeMap<String, String>,
        origin: impl Into<String>,
    ) -> Result<Self, TemplateError> {
        let origin = origin.into();
        let mut environment = Environment::new();
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        let compiled = syntax.and_then(|syntax| {
            environment.set_syntax(syntax);
            environment.set_auto_escape_callback(|_| AutoEscape::None);
            environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
            environment.add_function("raise_exception", raise_exception);
            environment.add_filter("tojson", to_json);
            environment.add_template_owned(NAME, neutral_generation_blocks(source))
        });
        match compiled {
            Ok(()) => Ok(Self {
                environment,
                special_tokens,
                origin,
            }
            .with_date(Date::DEFAULT)),
            Err(source) => Err(TemplateError::Syntax { origin, source }),
        }
    }

    /// Loads a model folder's template: `chat_template.jinja`, else `chat_template` of `tokenizer_config.json` (text,
    /// or the one called `default` in a list). `None` when the model has none.
    ///
    /// # Errors
    /// Unreadable or malformed files, several templates without a default, invalid Jinja.
    pub fn load(model_dir: &Path, special_tokens: BTreeMap<String, String>) -> Result<Option<Self>, TemplateError> {
        let jinja = model_dir.join("chat_template.jinja");
        if jinja.is_file() {
            let source = std::fs::read_to_string(&jinja).map_err(sst_artefact::Error::io("read", &jinja))?;
            return Self::new(&source, special_tokens, jinja.display().to_string()).map(Some);
        }
        let path = model_dir.join("tokenizer_config.json");
        if !path.is_file() {
            return Ok(None);
        }
        let config: serde_json::Value = sst_artefact::read_json(&path, "tokenizer configuration")?;
        let source = match &config["chat_template"] {
            serde_json::Value::Null => return Ok(None),
            serde_json::Value::String(source) => source.clone(),
            serde_json::Value::Array(named) => default_template(&path, named)?,
            _ => return Err(TemplateError::Kind { path }),
        };
        Self::new(&source, special_tokens, path.display().to_string()).map(Some)
    }

    /// The same template with another "today" for `strftime_now`.
    #[must_use]
    pub fn with_date(mut self, today: Date) -> Self {
        self.environment
            .add_function("strftime_now", move |format: &str| today.format(format));
        self
    }

    /// Renders the conversation; with `add_generation_prompt`, up to the point where the model is to answer.
    ///
    /// # Errors
    /// [`TemplateError::Render`] with the template's own words when it calls `raise_exception` (roles that do not
    /// alternate, a system turn it does not know), or the line at fault.
    pub fn render(&self, messages: &[Message], add_generation_prompt: bool) -> Result<String, TemplateError> {
        let mut context: BTreeMap<&str, Value> = BTreeMap::new();
        for (name, token) in &self.special_tokens {
            context.insert(name, Value::from(token.as_str()));
        }
        context.insert("messages", Value::from(messages.iter().map(turn).collect::<Vec<_>>()));
        context.insert("tools", Value::from(()));
        context.insert("documents", Value::from(()));
        context.insert("add_generation_prompt", Value::from(add_generation_prompt));
        self.environment
            .get_template(NAME)
            .and_then(|template| template.render(context))
            .map_err(|source| TemplateError::Render {
                origin: self.origin.clone(),
                source,
            })
    }
}

fn turn(message: &Message) -> Value {
    let role = match message.role {
        Role::System => "system",
        Role::User => "user",
        Role::Assistant => "assistant",
    };
    Value::from_pairs([("role", role), ("content", message.content.as_str())])
}

fn default_template(path: &Path, named: &[serde_json::Value]) -> Result<String, TemplateError> {
    let name = |entry: &serde_json::Value| entry["name"].as_str().unwrap_or_default().to_owned();
    let Some(default) = named.iter().find(|entry| name(entry) == "default") else {
        return Err(TemplateError::NoDefault {
            path: path.to_path_buf(),
            names: named.iter().map(name).collect(),
        });
    };
    let source = default["template"].as_str();
    source.map(str::to_owned).ok_or_else(|| TemplateError::Kind {
        path: path.to_path_buf(),
    })
}

fn raise_exception(message: String) -> Result<Value, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, message))
}

/// Turns `{% generation %}` ... `{% endgeneration %}` into a block that does nothing, keeping its whitespace marks.
fn neutral_generation_blocks(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(start) = rest.find("{%") {
        let Some(length) = rest[start..].find("%}") else { break };
        let (before, tag) = (&rest[..start], &rest[start + 2..start + length]);
        out.push_str(before);
        let word = tag.trim_matches(['-', '+']).trim();
        let replaced = match word {
            "generation" => tag.replace(word, "if true"),
            "endgeneration" => tag.replace(word, "endif"),
            _ => tag.to_owned(),
        };
        out.push_str("{%");
        out.push_str(&replaced);
        out.push_str("%}");
        rest = &rest[start + length + 2..];
    }
    out + rest
}

/// `json.dumps(value, indent=indent, ensure_ascii=False)`: the engine's own filter without its escapes for HTML.
fn to_json(value: &Value, indent: Option<Value>, arguments: Kwargs) -> Result<Value, Error> {
    let ascii: Option<bool> = arguments.get("ensure_ascii")?;
    let sort: Option<bool> = arguments.get("sort_keys")?;
    if ascii == Some(true) || sort == Some(true) {
        let what = "tojson with ensure_ascii or sort_keys is not supported";
        return Err(Error::new(ErrorKind::InvalidOperation, what));
    }
    let escaped = minijinja::filters::tojson(value, indent, arguments)?.to_string();
    let mut out = String::with_capacity(escaped.len());
    let mut rest = escaped.as_str();
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let html = [("\\u003c", '<'), ("\\u003e", '>'), ("\\u0026", '&'), ("\\u0027", '\'')];
        if let Some((escape, plain)) = html.iter().find(|(escape, _)| rest.starts_with(escape)) {
            out.push(*plain);
            rest = &rest[escape.len()..];
        } else {
            // Both characters of any other escape, so that an escaped backslash starts nothing.
            out.push_str(&rest[..2]);
            rest = &rest[2..];
        }
    }
    Ok(Value::from(out + rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn message(role: Role, content: &str) -> Message {
        Message {
            role,
            content: content.to_owned(),
        }
    }

    fn compile(source: &str) -> ChatTemplate {
        ChatTemplate::new(source, BTreeMap::new(), "test").unwrap()
    }

    /// Witness: transformers rendered (or refused) the same conversations (fixtures/model/make_chat.py).
    #[test]
    fn renders_the_common_styles_as_transformers_does() {
        #[derive(serde::Deserialize)]
        struct Golden {
            special_tokens: BTreeMap<String, String>,
            templates: Vec<Template>,
        }
        #[derive(serde::Deserialize)]
        struct Template {
            name: String,
            source: String,
            cases: Vec<Case>,
        }
        #[derive(serde::Deserialize)]
        struct Case {
            messages: Vec<Message>,
            add_generation_prompt: bool,
            rendered: Option<String>,
            error: Option<String>,
        }
        let golden: Golden = serde_json::from_str(include_str!("../../../fixtures/model/chat.json")).unwrap();
        assert_eq!(golden.templates.len(), 6);
        for Template { name, source, cases } in golden.templates {
            let template = ChatTemplate::new(&source, golden.special_tokens.clone(), name.as_str()).unwrap();
            assert_eq!(cases.len(), 12, "{name}");
            for case in cases {
                match template.render(&case.messages, case.add_generation_prompt) {
                    Ok(text) => assert_eq!(Some(text), case.rendered, "{name} {:?}", case.messages),
                    Err(e) => {
                        let expected = case.error.unwrap_or_else(|| panic!("{name}: {e}"));
                        assert!(
                            e.to_string().contains(&expected) && e.to_string().contains(&name),
                            "{e}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn today_is_fixed_and_can_be_chosen() {
        let template = compile("{{ strftime_now('%a %d %b %Y|%A %B %m %y|%F %H:%M:%S %T %%') }}");
        let expected = "Fri 26 Jul 2024|Friday July 07 24|2024-07-26 00:00:00 00:00:00 %";
        assert_eq!(template.render(&[], false).unwrap(), expected);
        let leap = compile("{{ strftime_now('%A %F') }}").with_date(Date::new(2000, 2, 29).unwrap());
        assert_eq!(leap.render(&[], false).unwrap(), "Tuesday 2000-02-29");
        for (year, month, day) in [(1900, 2, 29), (2023, 2, 29), (2024, 4, 31), (2024, 13, 1), (2024, 1, 0)] {
            assert!(Date::new(year, month, day).is_err(), "{year}-{month}-{day}");
        }
        let unknown = compile("{{ strftime_now('%Q') }}").render(&[], false).unwrap_err();
        assert!(unknown.to_string().contains("%Q"), "{unknown}");
    }

    #[test]
    fn nothing_is_escaped_for_html() {
        let template = compile("{{ messages[0].content }}|{{ {'k': messages[0].content} | tojson }}");
        let text = template.render(&[message(Role::User, "<a> & 'b'")], false).unwrap();
        assert_eq!(text, "<a> & 'b'|{\"k\": \"<a> & 'b'\"}");
        let text = template.render(&[message(Role::User, r"\u003c \<")], false).unwrap();
        assert_eq!(text, r#"\u003c \<|{"k": "\\u003c \\<"}"#);
    }

    #[test]
    fn generation_marks_keep_their_whitespace_control() {
        let neutral = neutral_generation_blocks;
        assert_eq!(
            neutral("a {%- generation -%} b {% endgeneration %}"),
            "a {%- if true -%} b {% endif %}"
        );
        assert_eq!(
            neutral("{% if generation %}{%+endgeneration-%}"),
            "{% if generation %}{%+endif-%}"
        );
        assert_eq!(neutral("{{ generation }} {% open"), "{{ generation }} {% open");
    }

    #[test]
    fn loads_a_string_a_named_default_or_a_file_of_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let load = || ChatTemplate::load(dir.path(), BTreeMap::new());
        let render = || load().unwrap().unwrap().render(&[], false).unwrap();
        let configure = |value: serde_json::Value| {
            std::fs::write(
                dir.path().join("tokenizer_config.json"),
                json!({"chat_template": value}).to_string(),
            )
            .unwrap();
        };
        assert!(load().unwrap().is_none());
        configure(serde_json::Value::Null);
        assert!(load().unwrap().is_none());
        configure(json!("plain"));
        assert_eq!(render(), "plain");
        configure(json!([{"name": "tool_use", "template": "tools"}, {"name": "default", "template": "named"}]));
        assert_eq!(render(), "named");
        configure(json!([{"name": "tool_use", "template": "tools"}]));
        assert!(load().unwrap_err().to_string().contains("[\"tool_use\"]"));
        configure(json!(7));
        assert!(matches!(load(), Err(TemplateError::Kind { .. })));
        std::fs::write(dir.path().join("chat_template.jinja"), "file").unwrap();
        assert_eq!(render(), "file");
        std::fs::write(dir.path().join("chat_template.jinja"), "{% if %}").unwrap();
        assert!(load().unwrap_err().to_string().contains("chat_template.jinja"));
    }
}
