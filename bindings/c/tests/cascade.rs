//! The C program beside this file, compiled, linked with each kind of library, and run.
#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::{env, fs};

const HOME: &str = env!("CARGO_MANIFEST_DIR");

/// What the program says beside the refusals, whose words are not fixed here: it looks for the ones it needs itself.
const STORY: [&str; 12] = [
    "total 310, line ran 3 times, total ran 1 times",
    "total 310, line ran 3 times, total ran 1 times",
    "total 340, line ran 4 times, total ran 2 times",
    "total 340, line ran 4 times, total ran 2 times",
    "total 340, line ran 5 times, total ran 2 times",
    "total 340, line ran 5 times, total ran 2 times",
    "total 700, line ran 8 times, total ran 3 times",
    "total 700, line ran 8 times, total ran 3 times",
    "total 700, line ran 8 times, total ran 4 times",
    "total 700, line ran 11 times, total ran 4 times",
    "total 700, line ran 14 times, total ran 5 times",
    "done",
];

fn compiler() -> OsString {
    env::var_os("CC").unwrap_or_else(|| "gcc".into())
}

/// The library that cargo built for this very test lies beside the test's executable.
fn library(name: &str) -> PathBuf {
    let test = env::current_exe().expect("the test has a path");
    let beside = test.parent().expect("the test lies in a folder");
    let above = beside.parent().expect("that folder lies in the target folder");
    let found = [beside, above].map(|folder| folder.join(name));
    let newest = found.iter().filter_map(|path| Some((fs::metadata(path).ok()?.modified().ok()?, path))).max();
    match newest {
        Some((_, path)) => path.clone(),
        None => panic!("cargo has built none of {found:?}"),
    }
}

fn compile(source: &Path, program: &str, arguments: &[&str], libraries: &[PathBuf]) -> (PathBuf, Output) {
    let out = Path::new(env!("CARGO_TARGET_TMPDIR")).join(program);
    let output = Command::new(compiler())
        .args(["-std=c99", "-pedantic", "-Wall", "-Wextra", "-Werror", "-g", "-O1"])
        .args(arguments)
        .arg("-I")
        .arg(Path::new(HOME).join("include"))
        .arg(source)
        .arg("-o")
        .arg(&out)
        .args(libraries)
        .args(["-lpthread", "-ldl", "-lm"])
        .output()
        .expect("a C compiler is installed (CC, else gcc)");
    (out, output)
}

fn run(program: &Path) {
    let output = Command::new(program)
        // A Rust backtrace of a deliberate refusal is no output of the program.
        .env_remove("RUST_BACKTRACE")
        .output()
        .expect("the program starts");
    let (said, complained) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}\n{said}\n{complained}", output.status);
    let (refusals, story): (Vec<&str>, Vec<&str>) = said.lines().partition(|line| line.starts_with("refused: "));
    assert_eq!(story, STORY, "{said}");
    assert_eq!(refusals.len(), 20, "{said}");
    assert_eq!(complained, "", "nothing is said on the side");
}

fn cascade() -> PathBuf {
    Path::new(HOME).join("tests/cascade.c")
}

fn compiled(source: &Path, program: &str, arguments: &[&str], libraries: &[PathBuf]) -> PathBuf {
    let (path, output) = compile(source, program, arguments, libraries);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    path
}

#[test]
fn a_c_program_with_the_static_library_shows_a_cascade() {
    run(&compiled(&cascade(), "cascade-static", &[], &[library("libwellspring_c.a")]));
}

#[test]
fn a_c_program_with_the_shared_library_shows_the_same() {
    let shared = library("libwellspring_c.so");
    let folder = shared.parent().expect("the library lies in a folder").display().to_string();
    run(&compiled(&cascade(), "cascade-shared", &[&format!("-Wl,-rpath,{folder}")], &[shared]));
}

#[test]
fn the_address_and_leak_sanitizers_find_nothing_in_it() {
    let (program, output) = compile(
        &cascade(),
        "cascade-asan",
        &["-fsanitize=address,undefined", "-fno-sanitize-recover=all"],
        &[library("libwellspring_c.a")],
    );
    let complained = String::from_utf8_lossy(&output.stderr);
    if complained.contains("cannot find") && complained.contains("san") {
        eprintln!("skipped: this compiler has no sanitizer runtime");
        return;
    }
    assert!(output.status.success(), "{complained}");
    run(&program);
}

#[test]
fn the_program_in_the_readme_prints_what_its_comment_says() {
    let readme = fs::read_to_string(Path::new(HOME).join("README.md")).expect("the README is there");
    let (_, rest) = readme.split_once("```c\n").expect("the README holds a program");
    let (program, _) = rest.split_once("```").expect("the program ends");
    let source = Path::new(env!("CARGO_TARGET_TMPDIR")).join("readme.c");
    fs::write(&source, program).expect("the program can be written");
    let program = compiled(&source, "readme", &[], &[library("libwellspring_c.a")]);
    let output = Command::new(program).output().expect("the program starts");
    assert!(output.status.success(), "{}", output.status);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "100\n102\n104\n");
}

#[test]
fn the_header_compiles_as_c99_c11_and_cplusplus() {
    for (language, standard) in [("c", "c99"), ("c", "c11"), ("c++", "c++17")] {
        let output = Command::new(compiler())
            .args(["-x", language, &format!("-std={standard}")])
            .args(["-pedantic", "-Wall", "-Wextra", "-Werror", "-fsyntax-only", "-include", "wellspring.h"])
            .arg("-I")
            .arg(Path::new(HOME).join("include"))
            .arg("/dev/null")
            .output()
            .expect("a C compiler is installed (CC, else gcc)");
        let complained = String::from_utf8_lossy(&output.stderr);
        if language == "c++" && complained.contains("cc1plus") {
            eprintln!("skipped: this compiler speaks no C++");
            continue;
        }
        assert!(output.status.success(), "{standard}: {complained}");
    }
}
