//! What the macros say about code they cannot use: each message names the item and what to write instead.

#![forbid(unsafe_code)]

#[test]
fn a_refusal_names_the_item_and_what_to_write_instead() {
    trybuild::TestCases::new().compile_fail("tests/ui/*.rs");
}
