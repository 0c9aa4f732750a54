//! The shop over the network: servers as processes, and clients of them.

mod proxy;
mod server;
mod talk;
mod tiny;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use proxy::Proxy;
use serde_json::{Value, json};
use server::Schema;
use talk::Server;
use tiny::Kept;
use tokio::runtime::Runtime;
use wellspring_rpc::web::WebAddress;
use wellspring_rpc::wire::MethodId;
use wellspring_rpc::{Remote, Replica, ToArguments};
use wellspring_shop::data::Data;
use wellspring_shop::database::Database;

/// A client of a server, which comes again soon after a connection has broken.
struct Client(Remote);

impl Client {
    fn of(at: SocketAddr) -> Self {
        let address = WebAddress::new(format!("ws://{at}/rpc/ws")).expect("an address");
        Self(Remote::builder(address).backoff(Duration::from_millis(20), Duration::from_millis(200)).connect())
    }

    async fn basket_total(&self, basket: i64) -> Replica<i64> {
        self.0.compute(&method("BasketTotal:2"), (basket,)).await.expect("a total")
    }

    async fn set_price(&self, product: u32, money: &str, name: Option<&str>) {
        self.0.call::<()>(&method("SetPrice:4"), (product, money, name)).await.expect("set");
    }

    async fn ask(&self, name: &str, arguments: impl ToArguments) -> Result<Value, String> {
        self.0.call(&method(name), arguments).await.map_err(|error| error.to_string())
    }
}

fn method(name: &str) -> MethodId {
    MethodId::new(format!("IShop.{name}")).expect("a name")
}

async fn a_change_is_pushed_to_every_client_of_every_server(arguments: &[&str]) {
    let (one, two) = (Server::on_network(arguments), Server::on_network(arguments));
    let (writer, near, far) = (Client::of(one.page()), Client::of(one.page()), Client::of(two.page()));
    let (here, there) = (near.basket_total(100).await, far.basket_total(100).await);
    assert_eq!((*here.value(), *there.value()), (400, 400));

    writer.set_price(1, "3.50", None).await;
    here.stale().await;
    there.stale().await;
    let (here, there) = (near.basket_total(100).await, far.basket_total(100).await);
    assert_eq!((*here.value(), *there.value()), (700, 700));

    // What is typed at a server is news over the network, and the other way round.
    let mut typed = two.call();
    assert_eq!(typed.ask("get basket_total:100"), "basket_total:100 is 7.00");
    assert!(typed.ask("set price:1 4").starts_with("price:1 is 4.00"));
    here.stale().await;
    there.stale().await;
    assert_eq!((*near.basket_total(100).await.value(), *far.basket_total(100).await.value()), (800, 800));
    let check = typed.ask("check");
    assert!(check.ends_with(" stale=0"), "{check}");
    drop(typed);
    assert_eq!((one.end(), two.end()), (Some(0), Some(0)), "open connections keep no server");
}

#[tokio::test]
async fn a_price_set_by_one_client_is_pushed_to_all_over_a_file() {
    let kept = Kept::new();
    a_change_is_pushed_to_every_client_of_every_server(&["--db", &kept.db()]).await;
}

#[test]
fn a_price_set_by_one_client_is_pushed_to_all_over_postgresql() {
    let Some(schema) = postgresql() else { return };
    let arguments = ["--postgres", schema.url(), "--schema", schema.name()];
    Runtime::new().expect("a runtime").block_on(a_change_is_pushed_to_every_client_of_every_server(&arguments));
}

/// The tiny shop in a schema of its own; none without a PostgreSQL server.
fn postgresql() -> Option<Schema> {
    let (schema, folder) = (Schema::new()?, tiny::folder());
    let data = Data::Folder(folder.path().to_owned());
    Database::open_postgres(schema.url(), schema.name(), Some(&data)).expect("a database");
    Some(schema)
}

#[tokio::test]
async fn a_client_sees_what_has_changed_while_its_server_was_away_and_a_named_change_is_made_once() {
    let kept = Kept::new();
    let (db, other) = (kept.db(), Server::start(&["--db", &kept.db()]));
    let server = Server::on_network(&["--db", &db]);
    let proxy = Proxy::to(server.page());
    let client = Client::of(proxy.at());
    client.set_price(1, "3.50", Some("till-7")).await;
    let before = client.basket_total(100).await;
    assert_eq!(*before.value(), 700);

    drop(server);
    assert!(other.call().ask("set price:1 9").starts_with("price:1 is 9.00"));
    let server = Server::on_network(&["--db", &db]);
    proxy.lead(server.page());
    before.stale().await;
    assert_eq!(*client.basket_total(100).await.value(), 1800);
    client.set_price(1, "3.50", Some("till-7")).await;
    assert_eq!(*client.basket_total(100).await.value(), 1800, "it was made before");
}

#[tokio::test]
async fn what_cannot_be_done_fails_in_words() {
    let kept = Kept::new();
    let server = Server::on_network(&["--db", &kept.db()]);
    let client = Client::of(server.page());
    let long = "x".repeat(101);
    let refused = [
        (client.ask("BasketTotal:2", (7,)).await, "there is no basket 7"),
        (client.ask("Price:2", (7,)).await, "there is no product 7"),
        (client.ask("HouseholdSpend:2", (7,)).await, "there is no household 7"),
        (client.ask("StoreRevenue:2", (7,)).await, "there is no store 7"),
        (client.ask("DepartmentRevenue:2", ("TOYS",)).await, "there is no department \"TOYS\""),
        (client.ask("TopProducts:3", ("TOYS", 3)).await, "there is no department \"TOYS\""),
        (client.ask("TopProducts:3", ("GROCERY", 101)).await, "101 best sellers: there are 100 at most"),
        (client.ask("SetPrice:4", (7, "1.00", None::<&str>)).await, "there is no product 7"),
        (client.ask("SetPrice:4", (1, "cheap", None::<&str>)).await, "\"cheap\" is not an amount from 0 to 100000.00, such as 1.99"),
        (client.ask("SetPrice:4", (1, long.as_str(), None::<&str>)).await, "an amount has at most 40 characters"),
        (client.ask("FindProducts:2", (long.as_str(),)).await, "a text to search for has at most 100 characters"),
        (client.ask("FindBaskets:2", (long.as_str(),)).await, "a text to search for has at most 100 characters"),
    ];
    for (answer, expected) in refused {
        assert_eq!(answer, Err(expected.to_owned()));
    }
    for unreadable in [client.ask("Price:2", ("one",)).await, client.ask("Price:2", (-1,)).await, client.ask("Cost:2", (1,)).await] {
        assert!(unreadable.is_err(), "{unreadable:?}");
    }
    assert_eq!(client.ask("Price:2", (1,)).await, Ok(json!(200_000)));
    assert_eq!(client.ask("Price:2", (5,)).await, Ok(Value::Null), "it is there, and was never sold");
    assert_eq!(
        client.ask("TopProducts:3", ("GROCERY", 3)).await,
        Ok(json!([{ "product": 1, "revenue": 550 }, { "product": 2, "revenue": 50 }]))
    );
}

#[tokio::test]
async fn keys_that_are_made_up_are_not_cached() {
    let kept = Kept::new();
    let server = Server::on_network(&["--db", &kept.db()]);
    let client = Client::of(server.page());
    let mut talk = server.call();
    let mut values = || talk.ask("stats").split(' ').find(|word| word.starts_with("values=")).expect("a count").to_owned();
    let before = values();
    for basket in 1000..1050_i64 {
        assert!(client.ask("BasketTotal:2", (basket,)).await.is_err());
    }
    assert_eq!(values(), before);
}

async fn searches_find_what_is_there(arguments: &[&str]) {
    let server = Server::on_network(arguments);
    let client = Client::of(server.page());
    let numbers = |answer: Result<Value, String>, of: &str| -> Vec<i64> {
        let answer = answer.expect("an answer");
        assert_eq!(answer["more"], false);
        answer["found"].as_array().expect("a list").iter().map(|one| one[of].as_i64().expect("a number")).collect()
    };
    for (text, found) in
        [("", vec![1, 2, 3, 4, 99]), ("gro", vec![1, 2]), ("milk", vec![1]), (" 9", vec![99]), ("%", vec![]), ("_", vec![]), ("!", vec![])]
    {
        assert_eq!(numbers(client.ask("FindProducts:2", (text,)).await, "product"), found, "{text:?}");
    }
    for (text, found) in [("", vec![100, 101, 102, 103, 104]), ("104", vec![104]), ("4", vec![]), ("' OR 1=1 --\0", vec![])] {
        assert_eq!(numbers(client.ask("FindBaskets:2", (text,)).await, "basket"), found, "{text:?}");
    }
    assert_eq!(numbers(client.ask("BasketsWith:2", (2,)).await, "basket"), [100, 104]);
    let one = client.ask("FindBaskets:2", ("103",)).await.expect("an answer");
    assert_eq!(one, json!({ "found": [{ "basket": 103, "household": 2, "store": 10, "week": 2 }], "more": false }));
}

#[test]
fn searches_find_products_and_baskets_in_both_databases() {
    let (kept, runtime) = (Kept::new(), Runtime::new().expect("a runtime"));
    runtime.block_on(searches_find_what_is_there(&["--db", &kept.db()]));
    let Some(schema) = postgresql() else { return };
    runtime.block_on(searches_find_what_is_there(&["--postgres", schema.url(), "--schema", schema.name()]));
}

#[tokio::test]
async fn a_search_tells_that_there_is_more_than_it_tells() {
    let folder = tempfile::tempdir().expect("a folder");
    let db = folder.path().join("shop.db");
    let server = Server::on_network(&["--db", db.to_str().expect("text")]);
    let client = Client::of(server.page());
    for (name, text) in [("FindProducts:2", "GROCERY"), ("FindBaskets:2", "33")] {
        let found = client.ask(name, (text,)).await.expect("an answer");
        assert_eq!((found["found"].as_array().map(Vec::len), &found["more"]), (Some(20), &json!(true)), "{name}");
    }
}

/// What is answered to a request that has these lines beside its first and the end.
fn http(at: SocketAddr, path: &str, headers: &[&str]) -> String {
    let mut stream = TcpStream::connect(at).expect("a connection");
    let headers: String = headers.iter().map(|line| format!("{line}\r\n")).collect();
    write!(stream, "GET {path} HTTP/1.1\r\n{headers}\r\n").expect("asked");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    answer
}

#[test]
fn the_page_comes_with_headers_that_let_nothing_else_in() {
    let kept = Kept::new();
    let server = Server::on_network(&["--db", &kept.db()]);
    let (at, host) = (server.page(), format!("Host: {}", server.page()));
    for (path, kind, word) in [
        ("/", "text/html; charset=utf-8", "<title>Wellspring shop</title>"),
        ("/page.css", "text/css; charset=utf-8", "color-scheme"),
        ("/page.js", "text/javascript; charset=utf-8", "IShop.BasketTotal:2"),
        ("/rpc.js", "text/javascript; charset=utf-8", "$sys.Reconnect:3"),
    ] {
        let answer = http(at, path, &[&host, "Connection: close"]);
        let (head, body) = answer.split_once("\r\n\r\n").expect("a body");
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        assert!(body.contains(word), "{path}");
        for line in [
            format!("content-type: {kind}").as_str(),
            "x-content-type-options: nosniff",
            "content-security-policy: default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; ",
        ] {
            assert!(head.contains(line), "{path}: {line} in {head}");
        }
    }
    assert!(http(at, "/other", &[&host, "Connection: close"]).starts_with("HTTP/1.1 404 "));
}

#[test]
fn pages_of_other_hosts_are_refused_also_those_whose_name_points_here() {
    let kept = Kept::new();
    let server = Server::on_network(&["--db", &kept.db()]);
    let at = server.page();
    let upgrade = ["Connection: upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA=="];
    let ask = |path: &str, own: &[&str]| {
        let mut stream = TcpStream::connect(at).expect("a connection");
        let lines: String = own.iter().chain(&upgrade).map(|line| format!("{line}\r\n")).collect();
        write!(stream, "GET {path} HTTP/1.1\r\n{lines}\r\n").expect("asked");
        let mut answer = String::new();
        BufReader::new(stream).read_line(&mut answer).expect("an answer");
        answer
    };
    let host = format!("Host: {at}");
    assert!(ask("/rpc/ws?clientId=a&f=json5np", &[&host, &format!("Origin: http://{at}")]).starts_with("HTTP/1.1 101 "));
    assert!(ask("/rpc/ws?clientId=b&f=json5np", &[&host, "Origin: http://example.org"]).starts_with("HTTP/1.1 403 "));
    let here = ["Host: example.org", "Origin: http://example.org"];
    assert!(ask("/rpc/ws?clientId=c&f=json5np", &here).starts_with("HTTP/1.1 421 "));
    assert!(http(at, "/", &["Host: example.org:7070", "Connection: close"]).starts_with("HTTP/1.1 421 "));
}

#[test]
fn a_port_that_is_taken_ends_in_exit_2_and_says_what_to_do() {
    let kept = Kept::new();
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let at = taken.local_addr().expect("its address").to_string();
    let output = Command::new(env!("CARGO_BIN_EXE_wellspring-shop")).args(["serve", "--db", &kept.db(), "--listen", &at]).output();
    let output = output.expect("the program ran");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains(&format!("cannot listen on {at}: ")) && said.contains("--listen") && said.contains("--no-listen"), "{said}");
}

/// `watch --url` as a process.
struct Watch {
    process: Child,
    output: BufReader<ChildStdout>,
}

impl Watch {
    fn start(arguments: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_wellspring-shop"));
        let mut process = command.arg("watch").args(arguments).stdout(Stdio::piped()).spawn().expect("a process");
        let output = BufReader::new(process.stdout.take().expect("its output"));
        Self { process, output }
    }

    /// The next line, without the time before it.
    fn hear(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).expect("a line");
        line.trim_end().split_once(" s  ").unwrap_or_else(|| panic!("no time in {line:?}")).1.to_owned()
    }

    /// Presses Ctrl-C, and waits for the exit code.
    fn interrupt(mut self) -> Option<i32> {
        let killed = Command::new("kill").args(["-INT", &self.process.id().to_string()]).status().expect("kill ran");
        assert!(killed.success());
        self.process.wait().expect("an end").code()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn watch_tells_each_change_and_the_state_and_goes_on_after_a_restart() {
    let kept = Kept::new();
    let server = Server::on_network(&["--db", &kept.db()]);
    let proxy = Proxy::to(server.page());
    let url = format!("ws://{}/rpc/ws", proxy.at());
    let mut watch = Watch::start(&["--url", &url, "basket_total:100"]);
    assert_eq!(watch.hear(), format!("connected to {url}"));
    assert_eq!(watch.hear(), "basket_total:100 is 4.00");
    server.call().ask("set price:1 3.50");
    assert_eq!(watch.hear(), "basket_total:100 4.00 -> 7.00");

    drop(server);
    assert!(watch.hear().starts_with("not connected, trying again in 0."));
    let server = Server::on_network(&["--db", &kept.db()]);
    proxy.lead(server.page());
    let mut line = watch.hear();
    while line.starts_with("not connected, ") {
        line = watch.hear();
    }
    assert_eq!(line, format!("connected to {url}"));
    server.call().ask("set price:1 4");
    assert_eq!(watch.hear(), "basket_total:100 7.00 -> 8.00");
    assert_eq!(watch.interrupt(), Some(0));
}

#[test]
fn watch_tells_every_kind_of_figure_and_one_that_is_not_there() {
    let kept = Kept::new();
    let server = Server::on_network(&["--db", &kept.db()]);
    let url = format!("ws://{}/rpc/ws", server.page());
    let figures = [
        "price:1",
        "price:5",
        "basket_total:100",
        "basket_total:7",
        "household_spend:1",
        "store_revenue:10",
        "department_revenue:GROCERY",
        "top_products:GROCERY:1",
    ];
    let mut watch = Watch::start(&[&["--url", &url][..], &figures].concat());
    assert!(watch.hear().starts_with("connected to "));
    let mut told: Vec<String> = figures.iter().map(|_| watch.hear()).collect();
    told.sort();
    let expected = [
        "basket_total:100 is 4.00",
        "basket_total:7 is the error \"there is no basket 7\"",
        "department_revenue:GROCERY is 6.00",
        "household_spend:1 is 6.00",
        "price:1 is 2.00",
        "price:5 is none",
        "store_revenue:10 is 31.00",
        "top_products:GROCERY:1 is 1 (5.50)",
    ];
    assert_eq!(told, expected);
    // A basket that comes to be is seen, though nobody says so: what was refused is asked again.
    let sql = rusqlite::Connection::open(Path::new(&kept.db())).expect("a database");
    sql.execute("INSERT INTO baskets VALUES (7, 1, 10, 1)", []).expect("a row");
    assert_eq!(watch.hear(), "basket_total:7 the error \"there is no basket 7\" -> 0.00");
    assert_eq!(watch.interrupt(), Some(0));
}
