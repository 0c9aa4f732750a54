//! A member's end of the conversation.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::sync::Mutex;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use wellspring_commands::postgres::Postgres;
use wellspring_commands::sqlite::Sqlite;
use wellspring_commands::{Command, CommandError, CommandFault, CommandId, Consumed, Consumer};

use super::backend::Backend;
use super::change::{Data, Refused, Rows};
use super::database::{Database, Dump};
use super::job::{GROUPS, Job, every_key, group_key};
use super::kill::Step;
use super::line::{Answer, Ask, Figures, Line, News, Question};
use super::member::Site;
use super::postgres::PostgresRows;
use super::setup::Setup;
use super::{BoxError, ROWS};

/// Is a member, until its input ends.
///
/// # Errors
/// Whatever keeps it from starting.
pub async fn serve(setup: Setup) -> Result<(), BoxError> {
    let backend = Backend::parse(&setup.backend).ok_or("no such backend")?;
    match &backend.database {
        Database::Sqlite(path) => {
            let (ahead, wrong) = (setup.skew_seconds > 0, Duration::from_secs(setup.skew_seconds.unsigned_abs()));
            let clock = move || if ahead { SystemTime::now() + wrong } else { SystemTime::now() - wrong };
            let file = setup.read_only_while.clone();
            let hook = move |connection: &rusqlite::Connection| match &file {
                Some(file) if file.exists() => connection.pragma_update(None, "query_only", true),
                _ => Ok(()),
            };
            let sqlite = Sqlite::builder(path).wall_clock(clock).on_connect(hook).open()?;
            talk(sqlite.clone(), sqlite, &setup, &backend).await
        }
        Database::Postgres { schema, .. } => {
            let url = backend.database.url();
            let postgres = Postgres::builder(&url).schema(schema).connect().await?;
            talk(postgres, PostgresRows::new(url), &setup, &backend).await
        }
    }
}

/// One conversation.
struct Talk<S: Data> {
    site: Site<S>,
    database: Database,
    lines: UnboundedSender<Line>,
    consumers: Mutex<Vec<Consumer>>,
}

async fn talk<S: Data>(store: S, rows: impl Rows, setup: &Setup, backend: &Backend) -> Result<(), BoxError> {
    let (lines, mut to_write) = unbounded_channel();
    let site = Site::start(store, rows, setup, backend, lines.clone()).await?;
    let writer = tokio::spawn(async move {
        let mut output = tokio::io::stdout();
        while let Some(line) = to_write.recv().await {
            let Ok(mut text) = serde_json::to_string(&line) else { continue };
            text.push('\n');
            if output.write_all(text.as_bytes()).await.is_err() || output.flush().await.is_err() {
                return;
            }
        }
    });
    lines.send(Line::Ready)?;
    let talk = Arc::new(Talk { site, database: backend.database.clone(), lines, consumers: Mutex::default() });
    let mut input = BufReader::new(tokio::io::stdin()).lines();
    while let Some(text) = input.next_line().await? {
        let Question { number, ask } = serde_json::from_str(&text)?;
        if matches!(ask, Ask::Quit) {
            talk.site.server.shutdown().await;
            break;
        }
        let talk = talk.clone();
        tokio::spawn(async move {
            let answer = talk.answer(ask).await.unwrap_or_else(|error| Answer::Failed(error.to_string()));
            if matches!(answer, Answer::Done { .. }) {
                talk.site.switch.reach(Step::BeforeReply);
            }
            let _ = talk.lines.send(Line::Answer { number, answer });
        });
    }
    writer.abort();
    Ok(())
}

/// An error with what is below it.
fn with_causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |error| error.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

impl<S: Data> Talk<S> {
    async fn answer(&self, ask: Ask) -> Result<Answer, BoxError> {
        let Site { server, row, switch, log, own_log, .. } = &self.site;
        let engine = server.engine();
        Ok(match ask {
            Ask::Run { id, job } => match job {
                Job::Put(put) => self.run(id, put).await?,
                Job::Add(add) => self.run(id, add).await?,
                Job::Move(mov) => self.run(id, mov).await?,
                Job::Fail(fail) => self.run(id, fail).await?,
                Job::Setting(setting) => self.run(id, setting).await?,
            },
            Ask::Row { key } => Answer::Value(row.get(engine, &key).await?),
            Ask::Until { key, value } => {
                row.computed(engine, &key).await?.when(|now| *now == value).await?;
                Answer::Well
            }
            Ask::Wait { position } => {
                server.wait_for(position).await?;
                Answer::Well
            }
            Ask::Check => self.check().await?,
            Ask::Stats => {
                let stats = server.stats();
                Answer::Stats(Figures {
                    applied_own: stats.applied_own,
                    applied_from_log: stats.applied_from_log,
                    duplicates: stats.duplicates,
                    poisoned: stats.poisoned,
                    coverage_lost: stats.coverage_lost,
                    failed_reads: stats.failed_reads,
                    is_blind: stats.is_blind,
                })
            }
            Ask::Arm { step, micros } => {
                switch.arm(step, Duration::from_micros(micros));
                Answer::Well
            }
            Ask::Hold { key } => {
                switch.hold(key);
                Answer::Well
            }
            Ask::Held => {
                switch.held().await;
                Answer::Well
            }
            Ask::Trim { keep_ms } => {
                own_log.trim(Duration::from_millis(keep_ms)).await?;
                log.trim(Duration::from_millis(keep_ms)).await?;
                Answer::Well
            }
            Ask::Consume { name } => {
                let lines = self.lines.clone();
                let consumer = server.consume(name, move |consumed| {
                    let news = match consumed {
                        Consumed::Operation(operation) => {
                            News::Consumed { operation: operation.position.operation.to_string(), command: operation.command }
                        }
                        other => News::ConsumedOther(format!("{other:?}")),
                    };
                    let told = lines.send(Line::News(news)).map_err(Into::into);
                    std::future::ready(told)
                });
                self.consumers.lock().await.push(consumer);
                Answer::Well
            }
            Ask::Quit => Answer::Well,
        })
    }

    async fn run<C: Command<Output = i64, Error = Refused>>(&self, id: String, command: C) -> Result<Answer, BoxError> {
        Ok(match self.site.server.call(command).id(CommandId::new(id)?).await {
            Ok(done) => Answer::Done { token: done.value, position: done.position, repeated: done.repeated },
            Err(error) => {
                let kind = match &error {
                    CommandError::Fault(CommandFault::Store { error, .. }) => Some(format!("{:?}", error.kind())),
                    _ => None,
                };
                // There are no filters here: such an error is one of the closure that writes.
                let certain = match &error {
                    CommandError::Handler(_) | CommandError::Filter(_) => true,
                    CommandError::Fault(fault) => matches!(fault, CommandFault::Store { .. }),
                    _ => false,
                };
                Answer::Refused { error: with_causes(&error), kind, certain }
            }
        })
    }

    /// What is cached is looked at before anything is read, since reading makes it right.
    async fn check(&self) -> Result<Answer, BoxError> {
        let Site { server, row, total, .. } = &self.site;
        let engine = server.engine();
        let keys: Vec<_> = every_key().collect();
        let (rows, totals): (Vec<Option<Option<i64>>>, Vec<Option<i64>>) = {
            let pin = engine.pin();
            let rows = keys.iter().map(|key| row.peek(&pin, key).map(|read| *read)).collect();
            (rows, (0..GROUPS).map(|group| total.peek(&pin, &group).map(|read| *read)).collect())
        };
        let Dump { rows: direct, .. } = self.database.dump().await?;
        let sum = |group| (0..ROWS).filter_map(|row| direct.get(&group_key(group, row))).sum::<i64>();
        let mut wrong = Vec::new();
        for (key, cached) in keys.iter().zip(&rows) {
            let (direct, read) = (direct.get(key).copied(), row.get(engine, key).await?);
            if read != direct || cached.is_some_and(|cached| cached != direct) {
                wrong.push(format!("row {key}: cached {cached:?}, read {read:?}, in the database {direct:?}"));
            }
        }
        for (group, cached) in (0..GROUPS).zip(&totals) {
            let (direct, read) = (sum(group), total.get(engine, &group).await?);
            if read != direct || cached.is_some_and(|cached| cached != direct) {
                wrong.push(format!("total {group}: cached {cached:?}, read {read}, in the database {direct}"));
            }
        }
        let cached = rows.iter().flatten().count() + totals.iter().flatten().count();
        Ok(Answer::Checked { cached, wrong })
    }
}
