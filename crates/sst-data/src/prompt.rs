//! What a model is asked, and one prompt with its reference response.

use serde::{Deserialize, Serialize};

/// Who speaks in a chat.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Instructions that precede the conversation.
    System,
    /// The person asking.
    User,
    /// The model.
    Assistant,
}

/// One turn of a chat.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Message {
    /// Who speaks.
    pub role: Role,
    /// What is said.
    pub content: String,
}

/// What a model is asked.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Prompt {
    /// A conversation, rendered by the model's own chat template.
    Chat(Vec<Message>),
    /// Raw text, continued as it stands.
    Text(String),
}

impl Prompt {
    /// A chat of one user turn.
    ///
    /// ```
    /// use sst_data::{Prompt, Role};
    /// let Prompt::Chat(messages) = Prompt::user("Hello") else { unreachable!() };
    /// assert_eq!(messages[0].role, Role::User);
    /// ```
    pub fn user(content: impl Into<String>) -> Self {
        Prompt::Chat(vec![Message {
            role: Role::User,
            content: content.into(),
        }])
    }

    /// The text a reader sees: raw text, or the turns of a chat separated by blank lines.
    pub fn plain_text(&self) -> String {
        match self {
            Prompt::Text(text) => text.clone(),
            Prompt::Chat(messages) => {
                let contents: Vec<&str> = messages.iter().map(|m| m.content.as_str()).collect();
                contents.join("\n\n")
            }
        }
    }
}

/// One prompt and its reference response: for training, Fisher statistics and generation alike.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Example {
    /// Unique within its data set: `repliqa/eval/12`, rows counted from 1.
    pub id: String,
    /// What is asked.
    pub prompt: Prompt,
    /// The answer to learn or to compare with.
    pub response: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_uses_the_words_chat_templates_use() {
        let prompt = Prompt::user("Hi");
        let json = serde_json::to_string(&prompt).unwrap();
        assert_eq!(json, r#"{"chat":[{"role":"user","content":"Hi"}]}"#);
        assert_eq!(serde_json::from_str::<Prompt>(&json).unwrap(), prompt);
    }

    #[test]
    fn plain_text_joins_turns() {
        let turn = |role, content: &str| Message {
            role,
            content: content.to_owned(),
        };
        let chat = Prompt::Chat(vec![turn(Role::System, "Be brief."), turn(Role::User, "Hi")]);
        assert_eq!(chat.plain_text(), "Be brief.\n\nHi");
        assert_eq!(Prompt::Text("as is".to_owned()).plain_text(), "as is");
    }
}
