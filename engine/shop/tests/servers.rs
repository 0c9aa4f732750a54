//! Several servers on one database, as processes.

mod server;
mod talk;
mod tiny;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value;
use server::Schema;
use talk::Server;
use tiny::Kept;

fn program(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_wellspring-shop")).args(arguments).output().expect("the program ran")
}

fn err(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn json(output: &Output) -> Value {
    let text = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}{}", err(output)))
}

fn path(path: &Path) -> String {
    path.to_str().expect("a path that is text").to_owned()
}

fn position(answer: &str) -> &str {
    answer.rsplit_once("position=").unwrap_or_else(|| panic!("no position in {answer}")).1
}

/// What two servers on one database owe each other.
fn what_one_changes_the_other_sees(arguments: &[&str]) {
    let watching = [arguments, &["--watch", "basket_total:100"]].concat();
    let (one, mut other) = (Server::start(arguments), Server::start(&watching));
    let (mut here, mut there) = (one.call(), other.call());
    assert_eq!(other.hear_end(), "basket_total:100 is 4.00");
    for figure in ["price:1 is 2.00", "household_spend:1 is 6.00", "department_revenue:GROCERY is 6.00"] {
        let name = figure.split(' ').next().expect("a name");
        assert_eq!((here.ask(&format!("get {name}")).as_str(), there.ask(&format!("get {name}")).as_str()), (figure, figure));
    }
    assert_eq!(there.ask("until-stale price:1"), "price:1 is 2.00");

    let set = here.ask("set price:1 3.50");
    assert!(set.starts_with("price:1 is 3.50, done in "), "{set}");
    assert_eq!(here.ask("get basket_total:100"), "basket_total:100 is 7.00", "one reads what it has written");
    let stale = there.hear();
    assert!(stale.starts_with("price:1 is stale, at_ns="), "{stale}");
    assert_eq!(there.ask("get price:1"), "price:1 is 3.50");
    assert_eq!(other.hear_end(), "basket_total:100 4.00 -> 7.00", "a change is told as it comes");
    let applied = there.ask(&format!("wait {}", position(&set)));
    assert!(applied.starts_with("applied here by commit "), "{applied}");
    assert_eq!(there.ask("get household_spend:1"), "household_spend:1 is 10.50");

    // A product nobody has heard of: the other learns of it too.
    assert_eq!(here.ask("get department_revenue:(not in the product file)"), "department_revenue:(not in the product file) is 0.90");
    let added = there.ask("add-line 104 98 2 0.40");
    assert!(added.starts_with("basket:104 has one line more, "), "{added}");
    here.ask(&format!("wait {}", position(&added)));
    assert_eq!(here.ask("get department_revenue:(not in the product file)"), "department_revenue:(not in the product file) is 1.30");
    // At today's price, if no other is said.
    let added = there.ask("add-line 104 1 2");
    here.ask(&format!("wait {}", position(&added)));
    assert_eq!(here.ask("get basket_total:104"), "basket_total:104 is 7.40");

    for line in [&mut here, &mut there] {
        let check = line.ask("check");
        assert!(check.starts_with("checked ") && check.ends_with(" stale=0"), "{check}");
    }
    assert!(there.ask("stats").contains(" poisoned=0 coverage_lost=0 "));
    drop((here, there));
    assert_eq!((one.end(), other.end()), (Some(0), Some(0)));
}

#[test]
fn a_price_set_in_one_server_on_a_file_is_seen_in_the_other() {
    let kept = Kept::new();
    what_one_changes_the_other_sees(&["--db", &kept.db()]);
}

#[test]
fn a_price_set_in_one_server_on_postgresql_is_seen_in_the_other() {
    let Some(schema) = Schema::new() else { return };
    let data = tiny::folder();
    let data = wellspring_shop::data::Data::Folder(data.path().to_owned());
    wellspring_shop::database::Database::open_postgres(schema.url(), schema.name(), Some(&data)).expect("a database");
    what_one_changes_the_other_sees(&["--postgres", schema.url(), "--schema", schema.name()]);
}

#[test]
fn servers_that_are_started_at_once_on_a_new_file_fill_it_once_and_share_one_log() {
    let folder = tempfile::tempdir().expect("a folder");
    let db = path(&folder.path().join("shop.db"));
    let servers: Vec<Server> = std::thread::scope(|scope| {
        let starting: Vec<_> = (0..3).map(|_| scope.spawn(|| Server::start(&["--db", &db]))).collect();
        starting.into_iter().map(|server| server.join().expect("a server")).collect()
    });
    let set = servers[0].call().ask("set price:1110843 1.25");
    for server in &servers {
        let mut line = server.call();
        let applied = line.ask(&format!("wait {}", position(&set)));
        assert!(applied.starts_with("applied here"), "{applied}");
        assert_eq!(line.ask("get price:1110843"), "price:1110843 is 1.25");
    }
    let sql = rusqlite::Connection::open(&db).expect("a database");
    let lines: i64 = sql.query_row("SELECT COUNT(*) FROM lines", [], |row| row.get(0)).expect("a count");
    assert_eq!(lines, 114_947);
}

/// Four who add lines to one basket on two servers at once.
fn lines_of_one_basket_are_added_by_all_at_once(arguments: &[&str]) -> i64 {
    let servers = [Server::start(arguments), Server::start(arguments)];
    std::thread::scope(|scope| {
        for server in servers.iter().chain(&servers) {
            scope.spawn(|| {
                let mut line = server.call();
                for _ in 0..25 {
                    let added = line.ask("add-line 104 1 1 0.01");
                    assert!(added.starts_with("basket:104 has one line more"), "{added}");
                }
            });
        }
    });
    100
}

#[test]
fn lines_that_are_added_to_one_basket_at_once_are_all_there() {
    let kept = Kept::new();
    let added = lines_of_one_basket_are_added_by_all_at_once(&["--db", &kept.db()]);
    let sql = rusqlite::Connection::open(kept.db()).expect("a database");
    let lines: i64 = sql.query_row("SELECT COUNT(*) FROM lines WHERE basket_id = 104", [], |row| row.get(0)).expect("a count");
    assert_eq!(lines, 1 + added);

    let Some(schema) = Schema::new() else { return };
    let data = tiny::folder();
    let data = wellspring_shop::data::Data::Folder(data.path().to_owned());
    wellspring_shop::database::Database::open_postgres(schema.url(), schema.name(), Some(&data)).expect("a database");
    let added = lines_of_one_basket_are_added_by_all_at_once(&["--postgres", schema.url(), "--schema", schema.name()]);
    assert_eq!(schema.count("SELECT COUNT(*) FROM {s}.lines WHERE basket_id = 104"), 1 + added);
}

#[test]
fn a_repeated_name_changes_nothing_on_any_server_and_one_for_something_else_is_refused() {
    let kept = Kept::new();
    let (one, other) = (Server::start(&["--db", &kept.db()]), Server::start(&["--db", &kept.db()]));
    let (mut here, mut there) = (one.call(), other.call());
    let first = here.ask("add-line 104 1 1 1.00 as till-7");
    let second = there.ask("add-line 104 1 1 1.00 as till-7");
    assert_eq!(position(&first), position(&second));
    assert_eq!(there.ask("get basket_total:104"), "basket_total:104 is 2.00");
    let refused = there.ask("add-line 104 1 2 1.00 as till-7");
    assert!(refused.starts_with("error: ") && refused.contains("till-7"), "{refused}");
}

#[test]
fn a_row_written_behind_the_servers_is_what_check_finds() {
    let kept = Kept::new();
    let one = Server::start(&["--db", &kept.db()]);
    let mut here = one.call();
    assert_eq!(here.ask("get price:1"), "price:1 is 2.00");
    let sql = rusqlite::Connection::open(kept.db()).expect("a database");
    sql.execute("UPDATE prices SET millicents = 1 WHERE product_id = 1", []).expect("a row");
    let check = here.ask("check");
    assert_eq!(check, "checked 1 values, 1 stale, checked=1 served=1 cached=1 stale=1");
    let details = here.details();
    assert!(details.len() == 1 && details[0].contains("shop.price(1): cached"), "{details:?}");
}

#[test]
fn a_key_that_is_of_no_row_is_compared_too_and_what_is_computed_for_the_check_is_not_counted_as_served() {
    let kept = Kept::new();
    let one = Server::start(&["--db", &kept.db()]);
    let mut here = one.call();
    // A price is a node, a household two, a store two, a department two, its best sellers one more, a basket two.
    for figure in ["price:999999", "basket_total:-5", "household_spend:77", "store_revenue:77", "department_revenue:X", "top_products:X:5"]
    {
        assert!(here.ask(&format!("get {figure}")).starts_with(figure), "{figure}");
    }
    assert!(here.ask("add-line -6 888888 1").starts_with("error: "), "there is no such basket, but its price was read");
    assert_eq!(here.ask("check"), "checked 11 values, 0 stale, checked=11 served=11 cached=11 stale=0");
    // The price is marked now, and what the check computes anew proves nothing.
    here.ask("set price:999999 1");
    assert_eq!(here.ask("check"), "checked 11 values, 0 stale, checked=11 served=10 cached=11 stale=0");
    let sql = rusqlite::Connection::open(kept.db()).expect("a database");
    sql.execute("UPDATE prices SET millicents = 1 WHERE product_id = 999999", []).expect("a row");
    assert_eq!(here.ask("check"), "checked 11 values, 1 stale, checked=11 served=11 cached=11 stale=1");
}

#[test]
fn what_cannot_be_done_is_an_answer_and_the_conversation_goes_on() {
    let kept = Kept::new();
    let one = Server::start(&["--db", &kept.db()]);
    let mut here = one.call();
    for (request, word) in [
        ("gte price:1", "\"gte\" is not known"),
        ("get cost:1", "cost:1"),
        ("set price:1 cheap", "cheap"),
        ("set price:1 -1", "\"-1\""),
        ("add-line 1 1 1", "there is no basket 1"),
        ("add-line 104 1 1000000000", "1000000000"),
        ("wait here", "\"here\" is not a position"),
        ("wait 00000000-0000-0000-0000-000000000000/1.0/00000000-0000-0000-0000-000000000000", "of another log"),
        ("load -5", "-5"),
        ("\u{0}\u{7f}", "is not known"),
    ] {
        let answer = here.ask(request);
        assert!(answer.starts_with("error: ") && answer.contains(word), "{request}: {answer}");
    }
    assert!(here.ask_bytes(b"\xff\xfe\n").starts_with("error: "));
    assert_eq!(here.ask("get price:1"), "price:1 is 2.00");
    assert_eq!(here.ask("help").split(' ').next(), Some("FIGURE"));
    assert!(here.details().iter().any(|line| line.starts_with("set price:PRODUCT MONEY")));
    assert_eq!(here.ask("quit"), "bye");

    let mut long = one.call();
    let answer = long.ask(&"x".repeat(5_000));
    assert!(answer.starts_with("error: a request has at most"), "{answer}");
    assert_eq!(one.call().ask("get price:1"), "price:1 is 2.00", "the server goes on");
}

#[test]
fn a_request_that_is_cut_off_is_not_done() {
    let kept = Kept::new();
    let one = Server::start(&["--db", &kept.db()]);
    one.call().cut_off(b"set price:1 12");
    let mut here = one.call();
    assert_eq!(here.ask("get price:1"), "price:1 is 2.00");
    assert_eq!(here.ask("set price:1 12").split(',').next(), Some("price:1 is 12.00"));
    // Standard input has no line end to lose: what a person or a script has typed is whole.
    let mut command = Command::new(env!("CARGO_BIN_EXE_wellspring-shop"));
    let process = command.args(["serve", "--no-listen", "--db", &kept.db()]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let mut process = process.expect("a process");
    std::io::Write::write_all(&mut process.stdin.take().expect("its input"), b"get price:1").expect("asked");
    let output = process.wait_with_output().expect("an end");
    assert!(String::from_utf8_lossy(&output.stdout).ends_with("price:1 is 12.00\n"), "{output:?}");
}

#[test]
fn what_a_browser_sends_is_hung_up_on_and_its_body_is_not_done() {
    let kept = Kept::new();
    let one = Server::start(&["--db", &kept.db()]);
    for head in ["POST / HTTP/1.1\r\nHost: 127.0.0.1", "GET /x HTTP/1.1", "\r\nOPTIONS * HTTP/1.1", "Host: x", "Content-Length: 3"] {
        let answer = one.call().cut_off(format!("{head}\r\n\r\nset price:1 12\n").as_bytes());
        assert_eq!(answer, "", "{head}");
    }
    assert_eq!(one.call().ask("get price:1"), "price:1 is 2.00");
}

#[test]
fn there_are_so_many_conversations_and_no_more_until_one_ends() {
    let kept = Kept::new();
    let one = Server::start(&["--db", &kept.db()]);
    let mut all: Vec<_> = (0..256).map(|_| one.call()).collect();
    for line in &mut all {
        assert_eq!(line.ask("get price:1"), "price:1 is 2.00");
    }
    assert_eq!(one.call().hear(), "error: 256 conversations are all there may be");
    assert_eq!(all.remove(100).cut_off(b"quit\n"), "bye\n");
    all.push(one.call());
    assert_eq!(all[255].ask("get price:1"), "price:1 is 2.00");
    assert_eq!(one.call().hear(), "error: 256 conversations are all there may be");
}

#[test]
fn a_server_that_reads_in_the_background_counts_what_it_reads() {
    let kept = Kept::new();
    let one = Server::start(&["--db", &kept.db()]);
    let mut here = one.call();
    assert_eq!(here.ask("warm").split(' ').nth(1), Some("are"));
    here.ask("load 100000");
    let read = |stats: &str| stats.split(" reads=").nth(1).and_then(|rest| rest.split(' ').next()?.parse::<u64>().ok()).expect("reads");
    while read(&here.ask("stats")) == 0 {}
    assert_eq!(here.ask("load 0"), "reading 0 figures a second");
    assert!(here.ask("stats").contains(" failed_reads=0 "));
}

#[test]
fn a_database_that_cannot_be_opened_ends_in_exit_2_and_says_why() {
    for (arguments, word) in [
        (&["serve"][..], "--postgres URL"),
        (&["serve", "--db", "/no/such/folder/shop.db"], "unable to open"),
        (&["serve", "--postgres", "postgres://nobody@127.0.0.1:1/x"], "error connecting"),
        (&["cluster", "--servers", "none"], "none"),
        (&["cluster", "--db", "/no/such/folder/shop.db"], "unable to open"),
    ] {
        let output = program(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(err(&output).contains(word), "{arguments:?}: {}", err(&output));
    }
}

#[test]
fn a_cluster_measures_and_finds_every_value_on_every_server_fresh() {
    let output = program(&["cluster", "--servers", "2", "--seconds", "1", "--json"]);
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    let json = json(&output);
    let figure = |name: &str| json[name].as_u64().unwrap_or_else(|| panic!("{name} in {json}"));
    assert_eq!((figure("servers"), figure("stale"), figure("lost"), figure("kills")), (2, 0, 0, 0));
    assert!(figure("checked") >= 2 * 20_000 && figure("updates") > 5 && figure("propagations") > 0 && figure("reads") > 0, "{json}");
    // Most were not written to in the last moment, and so are as they were served.
    assert!(figure("served") > 2 * 10_000 && figure("served") <= figure("checked"), "{json}");
    assert_eq!((figure("trouble"), figure("poisoned"), figure("coverage_lost"), figure("failed_reads")), (0, 0, 0, 0), "{json}");
    // Read at the pace, but for what a server was behind with when the counting began.
    let rate = figure("reads") as f64 / json["read_seconds"].as_f64().expect("a time");
    assert!(rate <= 2.0 * 5_000.0 * 1.1, "{json}");
    assert!(figure("after_answer_p50_ns") <= figure("from_call_p50_ns") && figure("update_p50_ns") <= figure("due_p50_ns"), "{json}");
    for name in [
        "update_p99_ns",
        "after_answer_max_ns",
        "from_call_p99_ns",
        "due_p99_ns",
        "read_seconds",
        "everywhere_p50_ns",
        "everywhere_p99_ns",
        "seconds",
    ] {
        assert!(json[name].is_number(), "{name} in {json}");
    }
    assert!(err(&output).contains(" values on 2 servers, 0 stale"), "{}", err(&output));
}

#[test]
fn a_cluster_on_postgresql_finds_every_value_fresh_too() {
    let Some(schema) = Schema::new() else { return };
    let data = tiny::folder();
    let on = ["--postgres", schema.url(), "--schema", schema.name(), "--data", &path(data.path())];
    let output = program(&[&["cluster", "--servers", "3", "--seconds", "1", "--json"][..], &on].concat());
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    let json = json(&output);
    assert_eq!((json["database"].as_str(), json["stale"].as_u64(), json["lost"].as_u64()), (Some("postgres"), Some(0), Some(0)), "{json}");
    assert!(json["propagations"].as_u64() > Some(0) && json["checked"].as_u64() > Some(100), "{json}");
}

#[test]
fn servers_that_are_killed_and_come_back_lose_nothing_and_serve_nothing_stale() {
    let data = tiny::folder();
    let run = ["cluster", "--servers", "3", "--seconds", "3.5", "--updates", "300", "--json", "--kill", "--data", &path(data.path())];
    let output = program(&run);
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    let json = json(&output);
    let figure = |name: &str| json[name].as_u64().unwrap_or_else(|| panic!("{name} in {json}"));
    assert!(figure("kills") > 0 && figure("reads") > 0, "{json}");
    // Two of three have lived for a second at least, and hold all there is of a tiny shop.
    assert!(figure("checked") >= 100 && figure("served") >= 20, "{json}");
    assert!(err(&output).contains(" values on 3 servers, 0 stale\n"), "{}", err(&output));
}

#[test]
fn a_cluster_that_forgets_an_invalidation_says_so_for_each_server_and_ends_in_exit_1() {
    let data = tiny::folder();
    let run = ["cluster", "--servers", "2", "--seconds", "0.3", "--fault", "skip-invalidation", "--json", "--data", &path(data.path())];
    let output = program(&run);
    assert_eq!(output.status.code(), Some(1), "{}", err(&output));
    assert!(json(&output)["stale"].as_u64() >= Some(2));
    for server in ["server 0: stale: shop.price(1): cached", "server 1: stale: shop.price(1): cached"] {
        assert!(err(&output).contains(server), "{}", err(&output));
    }
}

#[test]
fn a_cluster_that_is_killed_takes_its_servers_along() {
    let data = tiny::folder();
    let mut command = Command::new(env!("CARGO_BIN_EXE_wellspring-shop"));
    let folder = tempfile::tempdir().expect("a folder");
    let run =
        ["cluster", "--servers", "3", "--seconds", "600", "--data", &path(data.path()), "--db", &path(&folder.path().join("shop.db"))];
    let mut cluster = command.args(run).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("a process");
    let mut told = BufReader::new(cluster.stderr.take().expect("its standard error"));
    let mut line = String::new();
    while !line.starts_with("they were ready") {
        line.clear();
        assert!(told.read_line(&mut line).expect("a line") > 0, "the cluster has ended");
    }
    cluster.kill().expect("killed");
    cluster.wait().expect("an end");
    // The servers hold the other end of it too: it ends when the last of them has.
    let (ended, end) = std::sync::mpsc::channel();
    std::thread::spawn(move || ended.send(std::io::copy(&mut told, &mut std::io::sink()).is_ok()));
    assert_eq!(end.recv_timeout(Duration::from_secs(60)), Ok(true), "a server goes on");
}
