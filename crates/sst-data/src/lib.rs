//! Data sets as text, prompts, splits and synthetic fixtures.
