//! The committed header is the one that the sources make.
#![forbid(unsafe_code)]

use std::path::Path;
use std::{env, fs};

/// The order of the declarations in the header.
const SOURCES: [&str; 9] = ["error", "buffer", "engine", "callback", "function", "source", "read", "context", "batch"];

fn header_of_the_sources() -> String {
    let home = Path::new(env!("CARGO_MANIFEST_DIR"));
    let config = cbindgen::Config::from_file(home.join("cbindgen.toml")).expect("cbindgen.toml can be read");
    let mut builder = cbindgen::Builder::new().with_config(config);
    for source in SOURCES {
        builder = builder.with_src(home.join("src").join(source).with_extension("rs"));
    }
    let mut made = Vec::new();
    builder.generate().expect("the sources can be parsed").write(&mut made);
    String::from_utf8(made).expect("the header is UTF-8")
}

#[test]
fn the_committed_header_is_what_cbindgen_makes_of_the_sources() {
    let made = header_of_the_sources();
    let header = Path::new(env!("CARGO_MANIFEST_DIR")).join("include/wellspring.h");
    if env::var_os("WELLSPRING_HEADER").is_some_and(|wish| wish == "write") {
        fs::write(&header, &made).expect("the header can be written");
    }
    let committed = fs::read_to_string(&header).unwrap_or_default();
    assert!(committed == made, "include/wellspring.h is out of date: run WELLSPRING_HEADER=write cargo test -p wellspring-c --test header");
}

#[test]
fn every_entry_of_every_file_is_declared_in_the_header() {
    let made = header_of_the_sources();
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut entries = 0;
    for file in fs::read_dir(sources).expect("the sources are there") {
        let source = fs::read_to_string(file.expect("a source").path()).expect("a source can be read");
        for line in source.lines().filter(|line| line.starts_with("pub ")) {
            let Some((_, rest)) = line.split_once("extern \"C\" fn ") else {
                continue;
            };
            let name = rest.split('(').next().expect("a name");
            let declared = [" ", "*"].iter().any(|before| made.contains(&format!("{before}{name}(")));
            assert!(declared, "{name} is missing: is its file in SOURCES?");
            entries += 1;
        }
    }
    assert!(entries > 20, "only {entries} entries were found in src");
}
