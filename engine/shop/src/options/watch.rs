//! The command line of who watches a server from afar.

use lexopt::prelude::{Long, Short, Value};
use wellspring_rpc::web::WebAddress;

use super::{Command, figure, text, usage};
use crate::error::ShopError;
use crate::remote_watch::RemoteWatch;

pub(super) fn parse_watch(mut parser: lexopt::Parser) -> Result<Command, ShopError> {
    let (mut address, mut figures) = (None, Vec::new());
    while let Some(argument) = parser.next().map_err(usage)? {
        match argument {
            Short('h') | Long("help") => return Ok(Command::Help),
            Long("url") => {
                let said = text(&mut parser)?;
                let url = WebAddress::new(said.clone()).map_err(|error| ShopError::Usage(format!("--url {error}")))?;
                address = Some((url, said));
            }
            Value(key) => figures.push(figure("watch", key)?),
            other => return Err(usage(other.unexpected())),
        }
    }
    match address {
        Some((url, said)) if !figures.is_empty() => Ok(Command::Watch(RemoteWatch { url, said, figures })),
        Some(_) => Err(ShopError::Usage("watch needs a KEY such as basket_total:33002280318".to_owned())),
        None => Err(ShopError::Usage("watch needs --url such as ws://127.0.0.1:7070/rpc/ws".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::*;
    use crate::figure::Figure;
    use crate::options::parse;

    fn parsed(line: &str) -> Result<Command, ShopError> {
        parse(line.split_whitespace().map(OsString::from))
    }

    #[test]
    fn watch_takes_an_address_and_figures_in_any_order() {
        let said = "ws://h:1/rpc/ws".to_owned();
        let url = WebAddress::new(said.clone()).expect("an address");
        let expected = Command::Watch(RemoteWatch { url, said, figures: vec![Figure::Price(7), Figure::BasketTotal(8)] });
        assert_eq!(parsed("watch price:7 --url ws://h:1/rpc/ws basket_total:8").as_ref(), Ok(&expected));
        assert_eq!(parsed("watch --url=ws://h:1/rpc/ws price:7 basket_total:8").as_ref(), Ok(&expected));
        assert_eq!(parsed("watch -h"), Ok(Command::Help));
    }

    #[test]
    fn nonsense_is_refused_with_the_offending_word() {
        for (line, word) in [
            ("watch", "--url"),
            ("watch price:7", "--url"),
            ("watch --url ws://h/rpc/ws", "KEY"),
            ("watch --url http://h/rpc/ws price:7", "http://h/rpc/ws"),
            ("watch --url ws://h/rpc/ws cost:7", "cost:7"),
            ("watch --url ws://h/rpc/ws --db f", "--db"),
        ] {
            let Err(ShopError::Usage(text)) = parsed(line) else { panic!("{line} was accepted") };
            assert!(text.contains(word), "{line}: {text}");
        }
    }
}
