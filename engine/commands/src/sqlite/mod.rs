//! Placeholder: see the branch that fills it.
