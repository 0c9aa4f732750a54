//! Texts that are borrowed where they can be.

use std::borrow::Cow;

use serde::Deserialize;

/// A string of the input's own, unless it has escapes in it. A `Cow` by itself is always a copy to serde.
#[derive(Deserialize)]
pub(super) struct Text<'a>(#[serde(borrow)] pub(super) Cow<'a, str>);
