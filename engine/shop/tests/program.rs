//! The program as a user runs it.

mod tiny;

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

fn program(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_wellspring-shop")).args(arguments).output().expect("the program ran")
}

fn out(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn err(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn json(output: &Output) -> Value {
    serde_json::from_str(&out(output)).unwrap_or_else(|error| panic!("{error}: {}", out(output)))
}

#[test]
fn json_holds_every_promised_figure_and_the_default_checks_over_20_000_values() {
    let output = program(&["--seconds", "1", "--json", "--seed", "7"]);
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    let json = json(&output);
    for field in [
        "lookups_per_s",
        "sql_lookups_per_s",
        "speedup",
        "invalidations",
        "marked_per_update",
        "recomputed_per_update",
        "cutoff_saved",
        "checked",
        "stale",
        "cached",
        "updates",
        "read_p50_ns",
        "read_p99_ns",
        "update_p50_ns",
        "update_p99_ns",
        "engine_bytes",
        "readers",
        "seed",
    ] {
        assert!(json[field].is_number(), "{field} in {json}");
    }
    assert_eq!((json["stale"].as_u64(), json["seed"].as_u64()), (Some(0), Some(7)));
    assert!(json["checked"].as_u64() >= Some(20_000), "{json}");
    assert_eq!(json["checked"], json["cached"]);
    assert!(json["invalidations"].as_u64() >= Some(10), "{json}");
    assert!(json["cutoff_saved"].as_u64() >= Some(1), "{json}");
    for positive in ["lookups_per_s", "sql_lookups_per_s", "marked_per_update", "recomputed_per_update"] {
        assert!(json[positive].as_f64() > Some(0.0), "{positive} in {json}");
    }
    assert!(err(&output).contains("0 stale"), "{}", err(&output));
}

#[test]
fn the_table_ends_with_the_check_and_progress_is_plain_lines_without_a_terminal() {
    let output = program(&["--seconds", "1.2", "--readers", "1"]);
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    let table = out(&output);
    for row in [
        "lookups/s",
        "read p50",
        "read p99",
        "update p50",
        "update p99",
        "invalidations",
        "nodes marked per update",
        "nodes recomputed per update",
        "recomputes avoided by cut-off",
        "memory",
    ] {
        assert!(table.contains(row), "{row} in\n{table}");
    }
    let last = table.lines().last().expect("a line");
    assert!(last.starts_with("checked ") && last.ends_with(" values, 0 stale"), "{last}");
    let progress = err(&output);
    assert!(progress.contains("1.2 s"), "{progress}");
    assert!(!progress.contains(['\r', '\x1b']), "{progress:?}");
}

#[test]
fn a_skipped_invalidation_is_printed_with_its_key_and_ends_in_exit_1() {
    let small = tiny::folder();
    let small = path(small.path());
    let fault = ["--seconds", "0.3", "--json", "--fault", "skip-invalidation"];
    for more in [&[][..], &["--seed", "2", "--data", &small], &["--seed", "3", "--data", &small]] {
        let output = program(&[&fault, more].concat());
        assert_eq!(output.status.code(), Some(1), "{}", err(&output));
        assert!(err(&output).contains("stale: shop.price("), "{}", err(&output));
        assert!(err(&output).contains("stale: shop.basket_total("), "{}", err(&output));
        assert!(json(&output)["stale"].as_u64() >= Some(2));
    }
}

#[test]
fn a_capacity_bounds_what_is_held_and_the_check_still_compares_every_value_and_finds_none_stale() {
    let output = program(&["--seconds", "1", "--json", "--capacity", "20000"]);
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    let json = json(&output);
    let figure = |name: &str| json[name].as_u64().unwrap_or_else(|| panic!("{name} in {json}"));
    assert_eq!((figure("stale"), figure("capacity")), (0, 20_000));
    assert!(figure("checked") >= 20_000, "{json}");
    assert!(figure("evicted") > 0, "{json}");
    // Whoever is evicting may be a sixteenth behind.
    assert!(figure("held") <= 21_250 && figure("cached") <= figure("held"), "{json}");
    assert!(figure("updates") > 0 && figure("lookups") > 0, "{json}");
}

#[test]
fn with_a_capacity_the_table_says_what_was_held_evicted_and_still_cached() {
    let small = tiny::folder();
    let output = program(&["--seconds", "0.3", "--capacity", "20", "--data", &path(small.path())]);
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    let table = out(&output);
    for row in ["held, of the capacity", " of 20\n", "evicted", "still cached at the check"] {
        assert!(table.contains(row), "{row} in\n{table}");
    }
    assert!(table.ends_with(" values, 0 stale\n"), "{table}");
}

#[test]
fn a_watched_figure_is_told_at_each_change_from_the_first_value_to_the_one_in_the_database() {
    let data = tiny::folder();
    let kept = tempfile::tempdir().expect("a folder");
    let db = kept.path().join("shop.db");
    let watched = ["--watch", "price:1", "--watch", "basket_total:100", "--watch", "price:2", "--watch", "department_revenue:FUEL"];
    let run = ["--seconds", "0.5", "--updates", "2000", "--db", &path(&db), "--data", &path(data.path())];
    let output = program(&[&run[..], &watched].concat());
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    let text = out(&output);
    let told = |figure: &str| -> Vec<String> {
        let lines = text.lines().filter_map(|line| line.split_once(&format!(" s  {figure} ")));
        lines.map(|(_, what)| what.to_owned()).collect()
    };
    for (figure, first) in [("price:1", "2.00"), ("basket_total:100", "4.00"), ("price:2", "none"), ("department_revenue:FUEL", "25.00")] {
        let told = told(figure);
        let (start, changes) = told.split_first().unwrap_or_else(|| panic!("{figure} in\n{text}"));
        // An update may have come before the first look.
        assert!(start == &format!("is {first}") || figure != "price:2", "{figure}: {start}");
        let mut last = start.strip_prefix("is ").unwrap_or_else(|| panic!("{figure}: {start}")).to_owned();
        for change in changes {
            let (old, new) = change.split_once(" -> ").unwrap_or_else(|| panic!("{figure}: {change}"));
            assert!(old == last && new != old, "{figure}: {change} after {last}");
            last = new.to_owned();
        }
    }
    assert!(told("price:1").len() > 1, "{text}");
    assert_eq!(told("price:2").len(), 1, "nobody sets the price of a product that has none: {text}");
    let sql = rusqlite::Connection::open(&db).expect("a database");
    let price: i64 = sql.query_row("SELECT millicents FROM prices WHERE product_id = 1", [], |row| row.get(0)).expect("a price");
    let last = told("price:1").pop().unwrap_or_default();
    let price = wellspring_shop::line::UnitPrice(price).to_string();
    assert!(last.ends_with(&format!(" {price}")), "the last line says {last}, the database {price}");
}

#[test]
fn watching_leaves_the_json_object_alone_on_standard_output() {
    let data = tiny::folder();
    let output = program(&["--seconds", "0.2", "--json", "--data", &path(data.path()), "--watch", "price:1"]);
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    assert!(json(&output)["stale"].is_number());
    assert!(err(&output).contains(" s  price:1 is "), "{}", err(&output));
}

#[test]
fn why_tells_a_baskets_state_its_cause_and_its_neighbours_before_a_price_changes_then_and_afterwards() {
    let data = tiny::folder();
    let output = program(&["why", "basket_total:100", "--data", &path(data.path())]);
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    let text = out(&output);
    let steps: Vec<&str> = text.split("\n\n").collect();
    let [before, changed, after] = steps[..] else { panic!("three steps in\n{text}") };
    let starts = |step: &str, lines: [&str; 2]| assert!(step.starts_with(&lines.join("\n")), "{lines:?} in\n{text}");
    let holds = |step: &str, part: &str| assert!(step.contains(part), "{part} in\n{text}");

    starts(before, ["basket_total:100 is 4.00", "shop.basket_total(100) is fresh"]);
    holds(before, "depends on 2: shop.basket_lines(100), shop.price(1)\n");
    holds(before, "2 depend on it: ");
    holds(before, "shop.household_spend(1)");

    starts(changed, ["price:1 2.00 -> 2.20", "shop.basket_total(100) is "]);
    holds(changed, "stale because\n    commit 1: shop.price(1) invalidated at ");
    holds(changed, " -> shop.basket_total(100)\n");

    starts(after, ["basket_total:100 is now 4.40", "shop.basket_total(100) is fresh"]);
    holds(after, "recomputed last because\n    commit 1: shop.price(1) invalidated at ");
    holds(after, "depends on 2: shop.basket_lines(100), shop.price(1)\n");
}

#[test]
fn why_explains_every_kind_of_figure() {
    let data = tiny::folder();
    let data = path(data.path());
    for figure in ["price:1", "household_spend:1", "store_revenue:10", "department_revenue:GROCERY", "top_products:GROCERY:3"] {
        let output = program(&["why", figure, "--data", &data]);
        assert_eq!(output.status.code(), Some(0), "{figure}: {}", err(&output));
        let text = out(&output);
        assert_eq!(text.matches("is fresh\n").count(), 2, "{text}");
        assert!(text.contains("\nprice:1 2.00 -> 2.20\n"), "{text}");
        assert_eq!(text.matches("commit 1: shop.price(1) invalidated at ").count(), 2, "{text}");
    }
}

#[test]
fn nonsense_on_the_command_line_ends_in_exit_2_and_says_why() {
    for (arguments, word) in [
        (&["--seconds", "never"][..], "never"),
        (&["--fault", "everything"], "everything"),
        (&["--capacity", "0"], "--capacity 0"),
        (&["--watch", "cost:7"], "cost:7"),
        (&["--data", "/no/such/folder"], "/no/such/folder"),
        (&["--db", "/no/such/folder/shop.db"], "unable to open"),
        (&["cut", "--weeks", "1-2"], "cut needs"),
        (&["why"], "why needs"),
        (&["why", "cost:7"], "cost:7"),
        (&["why", "basket_total:1"], "basket_total:1 is made from no price"),
    ] {
        let output = program(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(err(&output).contains(word), "{arguments:?}: {}", err(&output));
        assert_eq!(out(&output), "");
    }
}

#[test]
fn help_names_every_option() {
    let output = program(&["--help"]);
    assert_eq!(output.status.code(), Some(0));
    for option in
        ["--seconds", "--readers", "--seed", "--capacity", "--data", "--db", "--watch", "--json", "--fault", "--help", "cut", "why"]
    {
        assert!(out(&output).contains(option), "{option}");
    }
}

#[test]
fn a_kept_database_is_used_again_as_it_is_and_not_loaded_over() {
    let data = tiny::folder();
    let kept = tempfile::tempdir().expect("a folder");
    let db = path(&kept.path().join("shop.db"));
    let folder = path(data.path());
    let load = ["--seconds", "0.2", "--json", "--db", &db, "--data", &folder];
    let first = program(&load);
    assert_eq!(first.status.code(), Some(0), "{}", err(&first));
    let again = program(&["--seconds", "0.2", "--json", "--db", &db]);
    assert_eq!(again.status.code(), Some(0), "{}", err(&again));
    assert!(json(&again)["checked"].as_u64() < Some(200), "the fixture was loaded over it");
    let over = program(&load);
    assert_eq!(over.status.code(), Some(2));
    assert!(err(&over).contains("filled already"), "{}", err(&over));
}

#[test]
fn a_database_of_somebody_else_is_left_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("other.db");
    let other = rusqlite::Connection::open(&file).expect("a database");
    other.execute_batch("CREATE TABLE precious (x); INSERT INTO precious VALUES (1)").expect("a table");
    drop(other);
    let before = std::fs::read(&file).expect("a file");
    let output = program(&["--db", &path(&file)]);
    assert_eq!(output.status.code(), Some(2));
    assert!(err(&output).contains("not made by this program"), "{}", err(&output));
    assert_eq!(std::fs::read(&file).expect("a file"), before);
}

#[test]
fn data_without_a_single_line_is_an_error_and_leaves_a_database_that_can_be_tried_again() {
    let data = tiny::folder();
    let packed = zstd::encode_all(&b"household_id,store_id\n"[..], 1).expect("compression");
    std::fs::write(data.path().join("transactions.csv.zst"), packed).expect("a written file");
    let kept = tempfile::tempdir().expect("a folder");
    let db = path(&kept.path().join("shop.db"));
    let failed = program(&["--db", &db, "--data", &path(data.path())]);
    assert_eq!(failed.status.code(), Some(2));
    assert!(err(&failed).contains("no column"), "{}", err(&failed));
    let whole = tiny::folder();
    let retried = program(&["--seconds", "0.2", "--db", &db, "--data", &path(whole.path())]);
    assert_eq!(retried.status.code(), Some(0), "{}", err(&retried));
}

fn path(path: &Path) -> String {
    path.to_str().expect("a path that is text").to_owned()
}
