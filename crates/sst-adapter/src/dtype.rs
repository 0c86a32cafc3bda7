//! The number types that an adapter file may hold.

use serde::{Deserialize, Serialize};
use sst_artefact::ParseError;
use std::fmt;
use std::str::FromStr;

/// How numbers are stored on disk. In memory everything is f32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dtype {
    /// 32-bit IEEE 754.
    #[default]
    F32,
    /// bfloat16: the range of f32, 8 bits of precision.
    Bf16,
    /// IEEE 754 half precision: largest value 65504.
    F16,
}

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Dtype::F32 => "f32",
            Dtype::Bf16 => "bf16",
            Dtype::F16 => "f16",
        })
    }
}

impl FromStr for Dtype {
    type Err = ParseError;

    /// # Errors
    /// A line that lists the known names.
    fn from_str(name: &str) -> Result<Self, ParseError> {
        match name {
            "f32" => Ok(Dtype::F32),
            "bf16" => Ok(Dtype::Bf16),
            "f16" => Ok(Dtype::F16),
            _ => Err(ParseError::new(format!(
                "unknown dtype `{name}`: expected f32, bf16 or f16"
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_prints() {
        for dtype in [Dtype::F32, Dtype::Bf16, Dtype::F16] {
            assert_eq!(dtype.to_string().parse(), Ok(dtype));
        }
        let message = "int8".parse::<Dtype>().unwrap_err().to_string();
        assert_eq!(message, "unknown dtype `int8`: expected f32, bf16 or f16");
    }
}
