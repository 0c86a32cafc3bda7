//! Which tokens the loss behind the gradients is about.

use crate::Error;
use serde::{Deserialize, Serialize};
use sst_data::Example;
use sst_model::{Encoded, LanguageModel};
use std::str::FromStr;

/// Prompts are cut to this many tokens under [`Protocol::LegacyPrompt`], as the earlier study did.
const LEGACY_TOKENS: usize = 512;

/// The loss of one sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    /// Mean of -log p over the response's tokens, given the prompt.
    #[default]
    Response,
    /// Mean of -log p over the prompt's own tokens, cut to 512; the response is never seen. What the earlier study's
    /// code measured.
    LegacyPrompt,
}

impl Protocol {
    /// The name used in configuration files and artefacts.
    pub fn name(self) -> &'static str {
        match self {
            Self::Response => "response",
            Self::LegacyPrompt => "legacy-prompt",
        }
    }

    /// Tokens of an example with the scored ones marked; `None` where it is longer than `max_tokens`.
    pub(crate) fn encode(
        self,
        model: &LanguageModel,
        example: &Example,
        max_tokens: usize,
    ) -> Result<Option<Encoded>, Error> {
        match self {
            Self::Response => {
                let encoded = model.encode_response(example)?;
                Ok((encoded.ids.len() <= max_tokens).then_some(encoded))
            }
            Self::LegacyPrompt => Ok(Some(model.encode_prompt_only(example, LEGACY_TOKENS.min(max_tokens))?)),
        }
    }
}

impl FromStr for Protocol {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        [Self::Response, Self::LegacyPrompt]
            .into_iter()
            .find(|p| p.name() == text)
            .ok_or_else(|| format!("unknown protocol `{text}`; use response or legacy-prompt"))
    }
}
