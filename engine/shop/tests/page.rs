//! The page, in a real browser.

mod browser;
mod proxy;
mod talk;
mod tiny;

use browser::{Browser, Tab};
use proxy::Proxy;
use talk::Server;
use tiny::Kept;

/// The row of a figure that is picked, if it is.
fn row(figure: &str) -> String {
    format!("[...document.querySelectorAll('#picked li')].find((one) => one.dataset.figure === {figure:?})")
}

/// What a figure that is picked shows.
fn shows(browser: &mut Browser, tab: &Tab, figure: &str, value: &str) {
    browser.until(tab, &format!("{}?.querySelector('output').textContent === {value:?}", row(figure)));
}

/// What the state of the connection is said to be.
fn state(browser: &mut Browser, tab: &Tab, words: &str) {
    browser.until(tab, &format!("/^{words}$/.test(document.querySelector('header p').textContent.trim())"));
}

/// Types a price and sends it off.
fn set_price(browser: &mut Browser, tab: &Tab, product: u32, money: &str) {
    let form = format!("{}.querySelector('form')", row(&format!("price:{product}")));
    browser.evaluate(tab, &format!("{{ const form = {form}; form.elements.price.value = {money:?}; form.requestSubmit(); }}"));
}

/// What the form of a price has to say.
fn said(browser: &mut Browser, tab: &Tab, product: u32, words: &str) {
    let row = row(&format!("price:{product}"));
    browser.until(tab, &format!("{row}.querySelector('form [role=status]').textContent.includes({words:?})"));
}

/// Presses the button of this text in the entry of a list that has a text.
fn press(browser: &mut Browser, tab: &Tab, list: &str, entry: &str, button: &str) {
    let the_entry = format!("[...document.querySelectorAll('#{list} li')].find((one) => one.textContent.includes({entry:?}))");
    browser.until(tab, &format!("{the_entry} !== undefined"));
    browser.evaluate(tab, &format!("[...{the_entry}.querySelectorAll('button')].find((one) => one.textContent === {button:?}).click()"));
}

#[test]
fn a_price_set_in_one_tab_is_seen_in_all_also_in_those_of_another_server() {
    let Some(mut browser) = Browser::start() else { return };
    let kept = Kept::new();
    let (one, two) = (Server::on_network(&["--db", &kept.db()]), Server::on_network(&["--db", &kept.db()]));
    let picked = "#price:1,basket_total:100,household_spend:1,store_revenue:10,department_revenue:GROCERY";
    let mut open = |server: &Server| browser.open(&format!("http://{}/{picked}", server.page()));
    let tabs = [open(&one), open(&one), open(&two)];
    for tab in &tabs {
        state(&mut browser, tab, "connected");
        shows(&mut browser, tab, "price:1", "2.00");
        shows(&mut browser, tab, "basket_total:100", "4.00");
    }
    set_price(&mut browser, &tabs[0], 1, "3.50");
    for tab in &tabs {
        for (figure, value) in
            [("price:1", "3.50"), ("basket_total:100", "7.00"), ("household_spend:1", "10.50"), ("department_revenue:GROCERY", "10.50")]
        {
            shows(&mut browser, tab, figure, value);
        }
        shows(&mut browser, tab, "store_revenue:10", "35.50");
    }
    said(&mut browser, &tabs[0], 1, "set");
    set_price(&mut browser, &tabs[2], 1, "0.0025");
    shows(&mut browser, &tabs[0], "price:1", "0.0025");
    set_price(&mut browser, &tabs[0], 1, "cheap");
    said(&mut browser, &tabs[0], 1, "\"cheap\" is not an amount");
    assert!(browser.exceptions().is_empty(), "{:?}", browser.exceptions());
}

#[test]
fn tabs_show_that_the_server_is_gone_and_go_on_when_it_is_back() {
    let Some(mut browser) = Browser::start() else { return };
    let kept = Kept::new();
    let server = Server::on_network(&["--db", &kept.db()]);
    let proxy = Proxy::to(server.page());
    let url = format!("http://{}/#price:1,basket_total:100", proxy.at());
    let (one, other) = (browser.open(&url), browser.open(&url));
    for tab in [&one, &other] {
        shows(&mut browser, tab, "basket_total:100", "4.00");
    }
    drop(server);
    for tab in [&one, &other] {
        state(&mut browser, tab, r"reconnecting in \d+ s");
    }
    // What is sent meanwhile is done later, once.
    set_price(&mut browser, &one, 1, "3.50");
    said(&mut browser, &one, 1, "waiting for the server");
    let server = Server::on_network(&["--db", &kept.db()]);
    proxy.lead(server.page());
    for tab in [&one, &other] {
        state(&mut browser, tab, "connected");
        shows(&mut browser, tab, "basket_total:100", "7.00");
    }
    said(&mut browser, &one, 1, "set");
    assert!(server.call().ask("set price:1 4").starts_with("price:1 is 4.00"));
    for tab in [&one, &other] {
        shows(&mut browser, tab, "basket_total:100", "8.00");
    }
    assert!(browser.exceptions().is_empty(), "{:?}", browser.exceptions());
}

#[test]
fn after_a_cut_only_what_is_stale_is_asked_for_again() {
    let Some(mut browser) = Browser::start() else { return };
    let kept = Kept::new();
    let server = Server::on_network(&["--db", &kept.db()]);
    let proxy = Proxy::to(server.page());
    let tab = browser.open(&format!("http://{}/#basket_total:100,basket_total:104", proxy.at()));
    shows(&mut browser, &tab, "basket_total:100", "4.00");
    shows(&mut browser, &tab, "basket_total:104", "0.00");
    let before = browser.sent(&tab).len();

    proxy.cut();
    state(&mut browser, &tab, r"reconnecting in \d+ s");
    assert!(server.call().ask("set price:1 3.50").starts_with("price:1 is 3.50"));
    proxy.open();
    shows(&mut browser, &tab, "basket_total:100", "7.00");
    let sent = browser.sent(&tab).split_off(before);
    let count = |text: &str| sent.iter().filter(|frame| frame.contains(text)).count();
    assert_eq!((count("$sys.Reconnect:3"), count("\n100"), count("\n104")), (1, 1, 0), "{sent:#?}");
    assert!(browser.exceptions().is_empty(), "{:?}", browser.exceptions());
}

#[test]
fn what_was_lost_on_the_way_is_sent_again() {
    let Some(mut browser) = Browser::start() else { return };
    let kept = Kept::new();
    let server = Server::on_network(&["--db", &kept.db()]);
    let proxy = Proxy::to(server.page());
    let tab = browser.open(&format!("http://{}/#price:1,basket_total:100", proxy.at()));
    shows(&mut browser, &tab, "price:1", "2.00");
    shows(&mut browser, &tab, "basket_total:100", "4.00");

    proxy.lose();
    set_price(&mut browser, &tab, 1, "3.50");
    browser.await_sent(&tab, "IShop.SetPrice:4");
    proxy.cut();
    proxy.open();
    shows(&mut browser, &tab, "basket_total:100", "7.00");
    said(&mut browser, &tab, 1, "set");
    let sent = browser.sent(&tab).into_iter().filter(|frame| frame.contains("IShop.SetPrice:4"));
    let sent: Vec<&str> = sent.collect();
    assert!(sent.len() == 2 && sent[0] == sent[1], "the same call under the same name: {sent:?}");
}

#[test]
fn a_tab_answers_each_sign_of_life() {
    let Some(mut browser) = Browser::start() else { return };
    let kept = Kept::new();
    let server = Server::on_network(&["--db", &kept.db()]);
    let tab = browser.open(&format!("http://{}/", server.page()));
    browser.await_sent(&tab, "$sys.KeepAlive:1");
    state(&mut browser, &tab, "connected");
    assert!(browser.exceptions().is_empty(), "{:?}", browser.exceptions());
}

#[test]
fn products_and_baskets_are_found_and_picked_and_their_names_are_text() {
    let Some(mut browser) = Browser::start() else { return };
    let kept = Kept::new();
    let sql = rusqlite::Connection::open(kept.db()).expect("a database");
    sql.execute("UPDATE products SET department = '<b id=bold>, \"&' WHERE product_id = 4", []).expect("a row");
    let server = Server::on_network(&["--db", &kept.db()]);
    let tab = browser.open(&format!("http://{}/", server.page()));
    browser.until(&tab, "document.querySelectorAll('#products li').length === 5 && document.querySelectorAll('#baskets li').length === 5");
    press(&mut browser, &tab, "products", "<b id=bold>, \"&, GAS", "Department");
    shows(&mut browser, &tab, "department_revenue:<b id=bold>, \"&", "25.00");
    assert_eq!(browser.evaluate(&tab, "document.querySelector('#bold')"), serde_json::Value::Null);

    let find = "{ const form = document.querySelector('#find-products'); form.elements.text.value = 'milk'; form.requestSubmit(); }";
    browser.evaluate(&tab, find);
    browser.until(&tab, "document.querySelectorAll('#products li').length === 1");
    press(&mut browser, &tab, "products", "1: GROCERY, MILK", "Price");
    shows(&mut browser, &tab, "price:1", "2.00");
    press(&mut browser, &tab, "products", "1: GROCERY, MILK", "Baskets with it");
    browser.until(&tab, "document.querySelectorAll('#baskets li').length === 2");
    press(&mut browser, &tab, "baskets", "101: week 1, household 1, store 10", "Total");
    shows(&mut browser, &tab, "basket_total:101", "2.00");
    press(&mut browser, &tab, "picked", "price of product 1", "Remove");
    browser.until(&tab, &format!("{} === undefined", row("price:1")));
    // What is picked is in the address, where anybody may have written anything.
    browser.evaluate(&tab, "{ location.hash += ',nothing:7,basket_total:x,%,constructor:1,basket_total:7'; }");
    shows(&mut browser, &tab, "basket_total:7", "there is no basket 7");
    assert_eq!(browser.evaluate(&tab, "document.querySelectorAll('#picked li').length"), 3);
    let inline =
        "{ const script = document.createElement('script'); script.textContent = 'window.ran = true'; document.body.append(script); }";
    browser.evaluate(&tab, inline);
    assert_eq!(browser.evaluate(&tab, "window.ran === undefined"), true, "no script but the page's own runs");
    assert!(browser.exceptions().is_empty(), "{:?}", browser.exceptions());
}
